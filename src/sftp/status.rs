//! Status codes: what a server says to a request that gets no other answer.

use std::fmt;

/// `SSH_FX_*`. 0 to 8 are version 3's (draft section 7); the later ones are those of version 6
/// (draft-ietf-secsh-filexfer-13 section 9.1), which some servers send to version 3 clients too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusCode(pub u32);

/// Declares the codes with their numbers and what a person reads.
macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl StatusCode {
            $(#[doc = concat!("\"", $text, "\"")] pub const $name: Self = Self($number);)*

            fn text(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    OK = 0, "ok";
    EOF = 1, "end of file";
    NO_SUCH_FILE = 2, "no such file";
    PERMISSION_DENIED = 3, "permission denied";
    FAILURE = 4, "failure";
    BAD_MESSAGE = 5, "bad message";
    NO_CONNECTION = 6, "no connection";
    CONNECTION_LOST = 7, "connection lost";
    OP_UNSUPPORTED = 8, "operation unsupported";
    INVALID_HANDLE = 9, "invalid handle";
    NO_SUCH_PATH = 10, "no such path";
    FILE_ALREADY_EXISTS = 11, "file already exists";
    WRITE_PROTECT = 12, "write protected";
    NO_MEDIA = 13, "no media";
    NO_SPACE_ON_FILESYSTEM = 14, "no space on filesystem";
    QUOTA_EXCEEDED = 15, "quota exceeded";
    UNKNOWN_PRINCIPAL = 16, "unknown principal";
    LOCK_CONFLICT = 17, "lock conflict";
    DIR_NOT_EMPTY = 18, "directory not empty";
    NOT_A_DIRECTORY = 19, "not a directory";
    INVALID_FILENAME = 20, "invalid filename";
    LINK_LOOP = 21, "too many symbolic links";
    CANNOT_DELETE = 22, "cannot delete";
    INVALID_PARAMETER = 23, "invalid parameter";
    FILE_IS_A_DIRECTORY = 24, "file is a directory";
    BYTE_RANGE_LOCK_CONFLICT = 25, "byte range lock conflict";
    BYTE_RANGE_LOCK_REFUSED = 26, "byte range lock refused";
    DELETE_PENDING = 27, "delete pending";
    FILE_CORRUPT = 28, "file corrupt";
    OWNER_INVALID = 29, "owner invalid";
    GROUP_INVALID = 30, "group invalid";
    NO_MATCHING_BYTE_RANGE_LOCK = 31, "no matching byte range lock";
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "status {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_shown_by_its_name_and_an_unknown_one_by_its_number() {
        assert_eq!(StatusCode::DIR_NOT_EMPTY.to_string(), "directory not empty");
        assert_eq!(StatusCode(4711).to_string(), "status 4711");
    }
}
