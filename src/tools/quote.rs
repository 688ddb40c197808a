//! Names in messages, quoted as GNU's programs do it: between single quotes, and so that a shell
//! reads the very name from it.

/// `'name'`; `"it's"`; `'a'$'\n''b'` where there is what does not print.
pub(super) fn quoted(name: &[u8]) -> String {
    let mut text = String::from("'");
    let has_single = name.contains(&b'\'');
    let is_plain = name
        .utf8_chunks()
        .all(|chunk| chunk.invalid().is_empty() && !chunk.valid().chars().any(char::is_control));
    // Between double quotes these mean something to a shell.
    let is_safe = |byte: &u8| !b"\"$`\\!".contains(byte);
    if has_single && is_plain && name.iter().all(is_safe) {
        return format!("\"{}\"", String::from_utf8_lossy(name));
    }
    let mut escaped = false;
    let mut push = |piece: &str, escape: bool| {
        match (escaped, escape) {
            (false, true) => text.push_str("'$'"),
            (true, false) => text.push_str("''"),
            _ => {}
        }
        escaped = escape;
        text.push_str(piece);
    };
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' => push("'\\''", false),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        push(&escape(byte), true);
                    }
                }
                c => push(c.encode_utf8(&mut [0; 4]), false),
            }
        }
        for byte in chunk.invalid() {
            push(&escape(*byte), true);
        }
    }
    text.push('\'');
    text
}

/// As C and bash write it.
fn escape(byte: u8) -> String {
    match byte {
        b'\n' => "\\n".into(),
        b'\t' => "\\t".into(),
        b'\r' => "\\r".into(),
        7 => "\\a".into(),
        8 => "\\b".into(),
        11 => "\\v".into(),
        12 => "\\f".into(),
        byte => format!("\\{byte:03o}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_cp_does_it() {
        for (name, text) in [
            (&b"plain"[..], "'plain'"),
            (b"two words", "'two words'"),
            (b"it's", "\"it's\""),
            (b"it's $5", "'it'\\''s $5'"),
            (b"it's\nnl", "'it'\\''s'$'\\n''nl'"),
            (b"\xff", "''$'\\377'"),
            (b"a\xc3\xa4", "'a\u{e4}'"),
            (b"", "''"),
        ] {
            assert_eq!(quoted(name), text);
        }
    }
}
