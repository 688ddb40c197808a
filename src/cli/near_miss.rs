//! Which word was probably meant.

/// The candidate nearest to what was typed, if one is near enough to be a typing error.
pub(super) fn nearest<'a>(
    typed: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = typed.to_ascii_lowercase();
    // A third of the letters may be wrong: beyond that a hint misleads.
    let distance_max = (lower.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The command of `sftpfs` that was meant by a word that stands in its place. What is written with
/// more than letters is a source, or an attempt at one.
pub(super) fn command(typed: &str) -> Option<&'static str> {
    let is_word = typed.bytes().all(|byte| byte.is_ascii_alphabetic());
    let commands = [
        "cp",
        "info",
        "reconnect",
        "reflink",
        "status",
        "umount",
        "unmount",
    ];
    match nearest(typed, commands.into_iter()).filter(|_| is_word)? {
        "unmount" => Some("umount"),
        command => Some(command),
    }
}

/// Letters to insert, remove, change or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let changed = at(&last, j) + usize::from(from != to);
            let mut cost = changed.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped =
                i > 0 && j > 0 && a.get(i - 1) == Some(&to) && b.get(j - 1) == Some(&from);
            if swapped {
                cost = cost.min(at(&before_last, j - 1) + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    at(&last, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_counted() {
        for (a, b, expected) in [
            ("", "", 0),
            ("abc", "", 3),
            ("allow_othr", "allow_other", 1),
            ("allow_ohter", "allow_other", 1),
            ("umsak", "umask", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_a_near_word_is_offered() {
        let words = || ["allow_other", "umask", "ro", "IdentityFile"].into_iter();
        assert_eq!(nearest("alow_other", words()), Some("allow_other"));
        assert_eq!(nearest("identityfiles", words()), Some("IdentityFile"));
        assert_eq!(nearest("frobnicate", words()), None);
    }

    #[test]
    fn a_mistyped_command_is_told_from_a_source() {
        for (typed, expected) in [
            ("cpp", Some("cp")),
            ("cp", Some("cp")),
            ("CP", Some("cp")),
            ("inof", Some("info")),
            ("reflnik", Some("reflink")),
            ("unmount", Some("umount")),
            ("cp:", None),
            ("c/", None),
            ("-p", None),
            ("server", None),
            ("", None),
        ] {
            assert_eq!(command(typed), expected, "{typed:?}");
        }
    }
}
