//! As much of SFTP's packets as the wire must understand: their names, and what VERSION announces.
//! A packet here is whole: the length, the type, the rest.

/// The name of a request; an extended one is called as its extension.
pub(super) fn name(packet: &[u8]) -> String {
    let known = match packet.get(4).copied().unwrap_or(0) {
        1 => "INIT",
        3 => "OPEN",
        4 => "CLOSE",
        5 => "READ",
        6 => "WRITE",
        7 => "LSTAT",
        8 => "FSTAT",
        9 => "SETSTAT",
        10 => "FSETSTAT",
        11 => "OPENDIR",
        12 => "READDIR",
        13 => "REMOVE",
        14 => "MKDIR",
        15 => "RMDIR",
        16 => "REALPATH",
        17 => "STAT",
        18 => "RENAME",
        19 => "READLINK",
        20 => "SYMLINK",
        EXTENDED => return extension(packet).unwrap_or("EXTENDED").to_owned(),
        other => return format!("type {other}"),
    };
    known.to_owned()
}

/// The number of a request, which its answer bears.
pub(super) fn id(packet: &[u8]) -> Option<u32> {
    let bytes = packet.get(5..9)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// Of a READ, its number and how many bytes it asks for, which stands at its end.
pub(super) fn read_len(packet: &[u8]) -> Option<(u32, u32)> {
    if packet.get(4) != Some(&5) {
        return None;
    }
    let (_, len) = packet.split_last_chunk()?;
    Some((id(packet)?, u32::from_be_bytes(*len)))
}

/// Which extension an extended request asks for.
pub(super) fn extension(packet: &[u8]) -> Option<&str> {
    if packet.get(4) != Some(&EXTENDED) {
        return None;
    }
    let (name, _) = string(packet.get(9..)?)?;
    std::str::from_utf8(name).ok()
}

/// The answer STATUS to a request.
pub(super) fn status(request: &[u8], code: u32) -> Vec<u8> {
    let mut body = vec![101];
    body.extend(&request[5..9]);
    body.extend(code.to_be_bytes());
    for text in ["the wire's answer", ""] {
        body.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
        body.extend(text.as_bytes());
    }
    with_length(&body)
}

/// VERSION without these extensions; any other packet as it is.
pub(super) fn without(packet: Vec<u8>, hidden: &[&str]) -> Vec<u8> {
    if packet.get(4) != Some(&2) || hidden.is_empty() {
        return packet;
    }
    let mut body = packet[4..9].to_vec();
    let mut rest = &packet[9..];
    while let Some((name, after)) = string(rest) {
        let Some((value, after)) = string(after) else {
            break;
        };
        if !hidden.iter().any(|hidden| hidden.as_bytes() == name) {
            let len = 8 + name.len() + value.len();
            body.extend(&rest[..len]);
        }
        rest = after;
    }
    with_length(&body)
}

pub(super) fn with_length(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("short");
    let mut packet = len.to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

/// A string and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

/// SSH_FX_OK and SSH_FX_OP_UNSUPPORTED (draft-ietf-secsh-filexfer-02, section 7).
pub(super) const OK: u32 = 0;
pub(super) const UNSUPPORTED: u32 = 8;

const EXTENDED: u8 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn version(extensions: &[&str]) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0, 3];
        for name in extensions {
            for text in [*name, "1"] {
                body.extend((text.len() as u32).to_be_bytes());
                body.extend(text.as_bytes());
            }
        }
        with_length(&body)
    }

    #[test]
    fn a_hidden_extension_is_not_announced_and_the_others_are() {
        let all = version(&["limits@openssh.com", "copy-data", "hardlink@openssh.com"]);
        let two = version(&["limits@openssh.com", "hardlink@openssh.com"]);
        assert_eq!(without(all.clone(), &["copy-data"]), two);
        assert_eq!(without(all.clone(), &[]), all);
    }

    #[test]
    fn requests_are_told_apart() {
        let mut body = vec![EXTENDED, 0, 0, 0, 7, 0, 0, 0, 9];
        body.extend(b"copy-data");
        let request = with_length(&body);
        assert_eq!(name(&request), "copy-data");
        assert_eq!(extension(&request), Some("copy-data"));
        assert_eq!(name(&[0, 0, 0, 1, 5]), "READ");
        assert_eq!(status(&request, OK)[5..9], [0, 0, 0, 7]);
    }
}
