//! Numbers as people read them.

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `999 B`, `5.6 GiB`: three digits and a unit.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1000 {
        return format!("{number} B");
    }
    // Tenths of a unit: 64 bits of them suffice from the first division on.
    let mut tenths = number.saturating_mul(10) / 1024;
    if number > u64::MAX / 10 {
        tenths = number / 1024 * 10;
    }
    let mut unit = UNITS.iter();
    let mut name = unit.next().copied().unwrap_or_default();
    // 999.5 would be shown as 1000.
    while tenths >= 9995 {
        let Some(next) = unit.next() else { break };
        (tenths, name) = (tenths / 1024, next);
    }
    match tenths {
        0..1000 => format!("{}.{} {name}", tenths / 10, tenths % 10),
        _ => format!("{} {name}", (tenths + 5) / 10),
    }
}

/// `0:07`, `12:34`, `1:02:03`.
pub(super) fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// In two units at most: `59 s`, `12 min 5 s`, `3 h 12 min`, `2 d 3 h`.
pub(super) fn rough_duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", grouped(days), hours % 24),
    }
}

/// `1 file`, `1,234 files`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rough_duration_has_two_units() {
        for (seconds, text) in [
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3600 + 125, "1 h 2 min"),
            (2 * 86_400 + 3 * 3600 + 59, "2 d 3 h"),
        ] {
            assert_eq!(rough_duration(seconds), text);
        }
    }

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.9 KiB"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (99 << 10, "99.0 KiB"),
            (100 << 10, "100 KiB"),
            (1000 << 10, "0.9 MiB"),
            (6_012_954_214, "5.5 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
    }

    #[test]
    fn numbers_and_times_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(duration(59), "0:59");
        assert_eq!(duration(3723), "1:02:03");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(counted(1200, "file", "files"), "1,200 files");
    }
}
