//! Splits what stands behind `-o` as mount(8) does: at commas, but not at `\,` and not between
//! double quotes.

/// The options in a string, in order; empty ones (`a,,b`) are left out.
///
/// `\,`, `\"` and `\\` stand for the character behind the backslash, any other backslash for
/// itself (a command is split into words later). Quotes around a whole value are taken away, and
/// others stay.
pub(super) fn split(typed: &str) -> Result<Vec<String>, String> {
    let mut options = Vec::new();
    let mut option = String::new();
    let mut quoted = false;
    let mut rest = typed.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' if matches!(rest.peek(), Some(',')) => option.extend(rest.next()),
            // Kept for now: `unquote` must not take an escaped quote for one that closes.
            '\\' => {
                option.push(c);
                option.extend(rest.next_if(|next| matches!(next, '"' | '\\')));
            }
            '"' => {
                quoted = !quoted;
                option.push(c);
            }
            ',' if !quoted => options.push(std::mem::take(&mut option)),
            _ => option.push(c),
        }
    }
    if quoted {
        return Err(format!("options '{typed}': the quote \" is not closed"));
    }
    options.push(option);
    Ok(options
        .into_iter()
        .filter(|option| !option.is_empty())
        .map(unquote)
        .collect())
}

/// Takes the quotes away from around a value, and then the backslashes before quotes in it.
fn unquote(option: String) -> String {
    let Some((name, value)) = option.split_once('=') else {
        return option;
    };
    let Some(inside) = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return option;
    };
    if unescaped_quote(inside) {
        return option;
    }
    format!(
        "{name}={}",
        inside.replace("\\\"", "\"").replace("\\\\", "\\")
    )
}

fn unescaped_quote(text: &str) -> bool {
    let mut escaped = false;
    for c in text.chars() {
        if c == '"' && !escaped {
            return true;
        }
        escaped = c == '\\' && !escaped;
    }
    // A backslash at the end escapes the quote that seemed to close.
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_at_commas_that_are_not_protected() {
        for (typed, expected) in [
            ("ro,allow_other", &["ro", "allow_other"][..]),
            ("", &[]),
            (",ro,,", &["ro"]),
            (r"Ciphers=a\,b,ro", &["Ciphers=a,b", "ro"]),
            (r#"Ciphers="a,b",ro"#, &["Ciphers=a,b", "ro"]),
            (
                r#"sftp_command=ssh h "a, b",ro"#,
                &[r#"sftp_command=ssh h "a, b""#, "ro"],
            ),
            (r#"sftp_command="x" "y""#, &[r#"sftp_command="x" "y""#]),
            (r#"fsname="a \" b""#, &[r#"fsname=a " b"#]),
            (r"sftp_command=x a\ b\\", &[r"sftp_command=x a\ b\\"]),
            ("fsname=O'Brien,ro", &["fsname=O'Brien", "ro"]),
            ("a=b=c", &["a=b=c"]),
        ] {
            assert_eq!(split(typed).unwrap(), expected, "{typed}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_is_said() {
        let error = split("ro,fsname=\"x,rw").unwrap_err();
        assert!(error.contains("not closed"), "{error}");
    }
}
