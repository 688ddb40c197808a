//! The `ls -l` line that READDIR gives with each name: the one place where version 3 tells a link
//! count.
//!
//! The draft (section 7) recommends the form and forbids relying on it, so a line that does not
//! look like it is no error, only no answer.

/// What such a line says that ATTRS does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongName<'a> {
    /// st_nlink on the server: the second column.
    pub links: u32,
    /// The owner's name, or number if it has none on the server: the third column.
    pub user: &'a [u8],
    /// The group's name, or number: the fourth column.
    pub group: &'a [u8],
}

impl<'a> LongName<'a> {
    /// Reads a line such as `-rw-r--r--    2 ann      users        1024 Jan  1 12:00 name`.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut columns = line
            .split(|byte| *byte == b' ')
            .filter(|column| !column.is_empty());
        let mode = columns.next()?;
        if !is_mode(mode) {
            return None;
        }
        let links = std::str::from_utf8(columns.next()?).ok()?.parse().ok()?;
        Some(Self {
            links,
            user: columns.next()?,
            group: columns.next()?,
        })
    }
}

/// Whether it is a mode as strmode(3) writes it: a type, nine permissions, and perhaps a mark for
/// an ACL or a security context behind them.
fn is_mode(column: &[u8]) -> bool {
    let Some((kind, permissions)) = column.split_first() else {
        return false;
    };
    let Some((permissions, mark)) = permissions.split_at_checked(9) else {
        return false;
    };
    b"-dlpscbD?".contains(kind)
        && permissions
            .iter()
            .all(|letter| b"rwxsStT-".contains(letter))
        && matches!(mark, b"" | b"+" | b"." | b"@")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_column_is_the_link_count() {
        let line = b"-rw-r--r--   12 ann      users        1024 Jan  1 12:00 a name";
        let expected = LongName {
            links: 12,
            user: b"ann",
            group: b"users",
        };
        assert_eq!(LongName::parse(line), Some(expected));
    }

    #[test]
    fn an_acl_mark_and_special_bits_are_part_of_a_mode() {
        assert_eq!(
            LongName::parse(b"drwsr-sr-T+ 3 0 0 4096 Jan 1 2020 d")
                .unwrap()
                .links,
            3
        );
    }

    #[test]
    fn a_line_of_another_form_tells_nothing() {
        for line in [
            &b""[..],
            b"name",
            b"-rw-r--r--",
            b"-rw-r--r-- 1",
            b"-rw-r--r-- 1 ann",
            b"-rw-r--r-- ? ann users 1 Jan 1 2020 n",
            b"-rw-r--r-- -1 ann users 1 Jan 1 2020 n",
            b"-rw-r--r-- 99999999999 ann users 1 Jan 1 2020 n",
            b"-rw-r--r- 1 ann users 1 Jan 1 2020 n",
            b"name-with-10-chars 1 ann users",
        ] {
            assert_eq!(
                LongName::parse(line),
                None,
                "{:?}",
                String::from_utf8_lossy(line)
            );
        }
    }
}
