//! The values that options take: seconds, sizes, modes, words of a command. Errors are sentences.

use std::ffi::OsString;
use std::time::Duration;

/// A TCP port, 1 to 65535.
pub(super) fn port(typed: &str) -> Result<u16, String> {
    match typed.parse() {
        Ok(0) | Err(_) => Err(format!("'{typed}' is not a port, which is 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// Seconds, with a fraction if wanted. At most a year: longer is a typing error, and the kernel
/// adds it to its clock.
pub(super) fn seconds(typed: &str) -> Result<Duration, String> {
    const SECONDS_MAX: f64 = 365.0 * 86_400.0;
    let parsed = typed.parse::<f64>().ok();
    parsed
        .filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("'{typed}' is not a number of seconds, e.g. 5 or 0.5"))
}

/// Bytes, with K, M or G behind (1024 each). At most 4 GiB: the memory is really taken.
pub(super) fn size(typed: &str) -> Result<usize, String> {
    const SIZE_MAX: usize = 4 << 30;
    let digits = typed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match typed.get(digits.len()..).unwrap_or_default() {
        "" | "B" | "b" => Some(0),
        "K" | "k" | "KiB" => Some(10),
        "M" | "m" | "MiB" => Some(20),
        "G" | "g" | "GiB" => Some(30),
        _ => None,
    };
    let parsed = shift.and_then(|shift| digits.parse::<usize>().ok()?.checked_mul(1 << shift));
    parsed
        .filter(|&size| size <= SIZE_MAX)
        .ok_or_else(|| format!("'{typed}' is not a size of at most 4G, e.g. 512K or 16M"))
}

/// Permission bits, octal.
pub(super) fn octal(typed: &str) -> Result<u32, String> {
    u32::from_str_radix(typed, 8)
        .ok()
        .filter(|&mode| mode <= 0o777 && !typed.starts_with('+'))
        .ok_or_else(|| format!("'{typed}' is not an octal mask of permissions, e.g. 022"))
}

/// A number from `min` to `max`.
pub(super) fn count(typed: &str, min: usize, max: usize) -> Result<usize, String> {
    typed
        .parse()
        .ok()
        .filter(|count| (min..=max).contains(count))
        .ok_or_else(|| format!("'{typed}' is not a number from {min} to {max}"))
}

/// `yes` or `no`.
pub(super) fn yes_or_no(typed: &str) -> Result<bool, String> {
    match typed {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => Err(format!("'{typed}' is neither yes nor no")),
    }
}

/// A user by number or name.
pub(super) fn user(typed: &str) -> Result<u32, String> {
    if let Ok(number) = typed.parse() {
        return Ok(number);
    }
    match nix::unistd::User::from_name(typed) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(format!("there is no user '{typed}' here")),
    }
}

/// A group by number or name.
pub(super) fn group(typed: &str) -> Result<u32, String> {
    if let Ok(number) = typed.parse() {
        return Ok(number);
    }
    match nix::unistd::Group::from_name(typed) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(format!("there is no group '{typed}' here")),
    }
}

/// Splits a command into words as a shell would: blanks, `'...'`, `"..."` and backslashes.
/// Nothing is expanded, and no shell is run.
pub(super) fn words(typed: &str) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = typed.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(c),
            (Some(_), '\\') => {
                let next = rest.next().ok_or("it ends in a backslash")?;
                // Between double quotes a backslash only matters before these, as in sh(1).
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.get_or_insert_default().push('\\');
                }
                word.get_or_insert_default().push(next);
            }
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\\') => {
                let next = rest.next().ok_or("it ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_ascii_whitespace() => words.extend(word.take().map(OsString::from)),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("the quote {quote} is not closed"));
    }
    words.extend(word.map(OsString::from));
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err("the command is empty".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_mean_what_they_say() {
        assert_eq!(port("22"), Ok(22));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("4G"), Ok(4 << 30));
        assert_eq!(octal("077"), Ok(0o77));
        assert_eq!(count("16", 1, 16), Ok(16));
        assert_eq!(yes_or_no("no"), Ok(false));
        assert_eq!(user("root"), Ok(0));
        assert_eq!(group("0"), Ok(0));
    }

    #[test]
    fn each_wrong_value_says_what_is_wanted() {
        let errors = [
            (port("0").err(), "1 to 65535"),
            (port("65536").err(), "1 to 65535"),
            (port("ssh").err(), "1 to 65535"),
            (seconds("-1").err(), "number of seconds"),
            (seconds("NaN").err(), "number of seconds"),
            (seconds("inf").err(), "number of seconds"),
            (seconds("").err(), "number of seconds"),
            (size("16X").err(), "not a size"),
            (size("5G").err(), "at most 4G"),
            (size("99999999999999999999").err(), "not a size"),
            (size("-1").err(), "not a size"),
            (octal("089").err(), "octal"),
            (octal("1777").err(), "octal"),
            (octal("+22").err(), "octal"),
            (count("0", 1, 16).err(), "from 1 to 16"),
            (yes_or_no("maybe").err(), "neither yes nor no"),
            (user("no-such-user").err(), "no user 'no-such-user'"),
            (group("no-such-group").err(), "no group 'no-such-group'"),
            (words("a 'b").err(), "not closed"),
            (words("a \\").err(), "backslash"),
            (words("  ").err(), "empty"),
            (words("''").err(), "empty"),
        ];
        for (error, message) in errors {
            let error = error.expect(message);
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        for (typed, expected) in [
            (
                "docker exec -i web sftp-server",
                &["docker", "exec", "-i", "web", "sftp-server"][..],
            ),
            ("sh -c 'a  b' c\\ d", &["sh", "-c", "a  b", "c d"]),
            (r#"x "a \" b" "$HOME \n""#, &["x", "a \" b", r"$HOME \n"]),
            ("x '' y", &["x", "", "y"]),
            ("a'b'\"c\"", &["abc"]),
        ] {
            assert_eq!(words(typed).unwrap(), expected, "{typed}");
        }
    }
}
