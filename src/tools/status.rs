//! `sftpfs status` and `sftpfs reconnect`: what a mount says of itself, for people and for scripts. Pure
//! but for the time zone.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::numbers;
use crate::status::{Report, Silence, State, Told, one_line};

/// One mount, and what it told.
#[derive(Debug)]
pub(crate) struct Mount<'a> {
    pub(crate) source: &'a str,
    pub(crate) mountpoint: &'a Path,
    pub(crate) told: Told,
}

/// Moments, counted from 1970.
pub(crate) struct Time {
    pub(crate) now: Duration,
    /// A moment as people here write it.
    pub(crate) written: fn(Duration) -> String,
}

/// As the time zone of this process has it: `2026-11-23 14:02:11`.
pub(crate) fn local_time(moment: Duration) -> String {
    super::sys::local_time(moment.as_secs())
}

/// Whether the server can be asked now.
pub(crate) fn is_connected(told: &Told) -> bool {
    matches!(told, Ok(report) if report.state == State::Connected)
}

/// One mount, in some lines.
pub(crate) fn in_full(mount: &Mount<'_>, time: &Time) -> String {
    let name = one_line(&mount.mountpoint.to_string_lossy());
    let what = format!("{} on {name}", one_line(mount.source));
    let report = match &mount.told {
        Ok(report) => report,
        Err(silence) => return format!("{what}: {}\n", why_silent(*silence, &name)),
    };
    let mut text = what + "\n";
    let mut line = |what: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {what:<13} {value}");
    };
    line("state:", &state(report, time));
    if report.state == State::Denied {
        line("", &format!("'sftpfs reconnect {name}' tries again"));
    }
    line("server:", &report.server);
    line("connections:", &connections(report));
    line("programs:", &programs(report));
    line("requests:", &requests(report));
    line("not written:", &numbers::bytes(report.unwritten));
    if let Some((when, what)) = &report.last_error {
        line("last error:", &format!("{}: {what}", (time.written)(*when)));
    }
    line("process:", &report.process.to_string());
    text
}

/// Many mounts, a line each: where, how it is, what.
pub(crate) fn in_short(mounts: &[Mount<'_>], time: &Time) -> String {
    let rows: Vec<[String; 3]> = mounts
        .iter()
        .map(|mount| {
            let how = match &mount.told {
                Ok(report) => format!(
                    "{} for {}",
                    word(report.state),
                    numbers::rough_duration(since(report.since, time.now))
                ),
                Err(silence) => short(*silence).to_owned(),
            };
            [
                one_line(&mount.mountpoint.to_string_lossy()),
                how,
                one_line(mount.source),
            ]
        })
        .collect();
    let width = |column: fn(&[String; 3]) -> &String| {
        let widths = rows.iter().map(|row| column(row).chars().count());
        widths.max().unwrap_or(0)
    };
    let (first, second) = (width(|[at, ..]| at), width(|[_, how, _]| how));
    rows.iter()
        .map(|[at, how, what]| format!("{at:<first$}  {how:<second$}  {what}\n"))
        .collect()
}

/// How a try to reach the server went, in a line.
pub(crate) fn outcome(mount: &Mount<'_>, time: &Time) -> String {
    let name = one_line(&mount.mountpoint.to_string_lossy());
    match &mount.told {
        Ok(report) if report.state == State::Connected => {
            let ago = numbers::rough_duration(since(report.since, time.now));
            format!("{name}: connected for {ago}")
        }
        Ok(report) => {
            let why = report.last_error.as_ref().map(|(_, what)| what.as_str());
            let why = why.unwrap_or("the server has not answered yet");
            let next = match report.state {
                State::Reconnecting => "; it is tried again by itself",
                _ => "",
            };
            format!("{name}: not connected: {why}{next}")
        }
        Err(silence) => format!("{name}: {}", why_silent(*silence, &name)),
    }
}

fn state(report: &Report, time: &Time) -> String {
    let how = match report.state {
        State::Connected => "connected",
        State::Reconnecting => "not connected, trying again by itself,",
        State::Denied => "the server does not let us in,",
        State::Ended => return "ending".to_owned(),
    };
    let ago = numbers::rough_duration(since(report.since, time.now));
    format!("{how} since {} ({ago})", (time.written)(report.since))
}

fn connections(report: &Report) -> String {
    let again = match report.reconnects {
        0 => "never reconnected".to_owned(),
        1 => "reconnected once".to_owned(),
        times => format!("reconnected {} times", numbers::grouped(times)),
    };
    format!("{} open, {again}", numbers::grouped(report.connections))
}

fn requests(report: &Report) -> String {
    let number = numbers::grouped(report.outstanding);
    match report.oldest.filter(|_| report.outstanding > 0) {
        Some(oldest) => format!("{number} unanswered, the oldest for {}", age(oldest)),
        None => format!("{number} unanswered"),
    }
}

fn programs(report: &Report) -> String {
    let number = numbers::counted(report.waiting, "call waits", "calls wait");
    match report.longest.filter(|_| report.waiting > 0) {
        Some(longest) => format!("{number}, the longest for {}", age(longest)),
        None => "none waits".to_owned(),
    }
}

fn age(time: Duration) -> String {
    let tenths = time.as_millis() / 100;
    match time.as_secs() {
        0..100 => format!("{}.{} s", tenths / 10, tenths % 10),
        seconds => numbers::rough_duration(seconds),
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Connected => "connected",
        State::Reconnecting => "not connected",
        State::Denied => "not let in",
        State::Ended => "ending",
    }
}

fn short(silence: Silence) -> &'static str {
    match silence {
        Silence::Gone => "process gone",
        Silence::Mute => "no answer",
        Silence::Forbidden => "not yours",
        Silence::NoSocket => "unknown",
    }
}

fn why_silent(silence: Silence, name: &str) -> String {
    match silence {
        Silence::Gone => format!(
            "the process behind it is gone (killed?); 'sftpfs umount {name}' removes the mount"
        ),
        Silence::Mute => "the process behind it does not answer (stopped?)".to_owned(),
        Silence::Forbidden => "another user's mount; only that user and root are told".to_owned(),
        Silence::NoSocket => {
            "the process behind it has no control socket, if it is there".to_owned()
        }
    }
}

fn since(moment: Duration, now: Duration) -> u64 {
    // Clocks are set back.
    now.saturating_sub(moment).as_secs()
}

/// One object.
pub(crate) fn json(mount: &Mount<'_>) -> String {
    let mut fields = vec![
        ("source", string(mount.source)),
        ("mountpoint", string(&mount.mountpoint.to_string_lossy())),
        ("connected", is_connected(&mount.told).to_string()),
    ];
    match &mount.told {
        Err(silence) => fields.push(("state", string(silence.word()))),
        Ok(report) => {
            let error = report.last_error.as_ref();
            fields.extend([
                ("state", string(report.state.word())),
                ("since", seconds(report.since)),
                ("server", string(&report.server)),
                ("reconnects", report.reconnects.to_string()),
                ("connections", report.connections.to_string()),
                ("outstanding", report.outstanding.to_string()),
                ("oldest", or_null(report.oldest.map(seconds))),
                ("waiting", report.waiting.to_string()),
                ("longest", or_null(report.longest.map(seconds))),
                ("unwritten", report.unwritten.to_string()),
                ("last_error", or_null(error.map(|(_, what)| string(what)))),
                (
                    "last_error_at",
                    or_null(error.map(|(when, _)| seconds(*when))),
                ),
                ("process", report.process.to_string()),
            ]);
        }
    }
    let fields = fields.into_iter();
    let fields: Vec<_> = fields
        .map(|(key, value)| format!("\"{key}\": {value}"))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

/// An array, an object a line.
pub(crate) fn json_array(mounts: &[Mount<'_>]) -> String {
    let objects: Vec<_> = mounts.iter().map(json).collect();
    if objects.is_empty() {
        return "[]".to_owned();
    }
    format!("[\n  {}\n]", objects.join(",\n  "))
}

fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".to_owned())
}

fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control.is_control() => {
                // All of them are below U+00A0.
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example;

    const TIME: Time = Time {
        now: Duration::from_secs(1_763_856_000 + 11_520),
        written: |moment| format!("T{}", moment.as_secs() - 1_763_850_000),
    };

    fn mount(told: Told) -> Mount<'static> {
        Mount {
            source: "eve@nas:/srv",
            mountpoint: Path::new("/mnt/nas"),
            told,
        }
    }

    fn with(change: impl FnOnce(&mut Report)) -> Told {
        let mut report = example();
        change(&mut report);
        Ok(report)
    }

    #[test]
    fn one_mount_is_told_in_full() {
        let expected = "eve@nas:/srv on /mnt/nas\n  \
            state:        connected since T6000 (3 h 11 min)\n  \
            server:       eve@nas port 22 through russh\n  \
            connections:  3 open, reconnected 2 times\n  \
            programs:     2 calls wait, the longest for 8.2 s\n  \
            requests:     12 unanswered, the oldest for 0.3 s\n  \
            not written:  4.0 MiB\n  \
            last error:   T5990: connection lost: the server hung up\n  \
            process:      4711\n";
        assert_eq!(in_full(&mount(Ok(example())), &TIME), expected);
    }

    #[test]
    fn what_is_not_connected_says_what_to_do() {
        let denied = in_full(&mount(with(|report| report.state = State::Denied)), &TIME);
        assert!(denied.contains("does not let us in, since"), "{denied}");
        assert!(
            denied.contains("'sftpfs reconnect /mnt/nas' tries again"),
            "{denied}"
        );
        let gone = in_full(&mount(Err(Silence::Gone)), &TIME);
        assert_eq!(gone.lines().count(), 1);
        assert!(
            gone.contains("'sftpfs umount /mnt/nas' removes the mount"),
            "{gone}"
        );
    }

    #[test]
    fn many_mounts_are_lines_with_columns() {
        let mut long = mount(Err(Silence::Gone));
        long.mountpoint = Path::new("/mnt/a longer name");
        let expected = "/mnt/nas            connected for 3 h 11 min  eve@nas:/srv\n\
                        /mnt/a longer name  process gone              eve@nas:/srv\n";
        assert_eq!(in_short(&[mount(Ok(example())), long], &TIME), expected);
    }

    #[test]
    fn the_outcome_of_a_try_is_a_line() {
        let connected = outcome(&mount(Ok(example())), &TIME);
        assert_eq!(connected, "/mnt/nas: connected for 3 h 11 min");
        let away = outcome(
            &mount(with(|report| report.state = State::Reconnecting)),
            &TIME,
        );
        assert_eq!(
            away,
            "/mnt/nas: not connected: connection lost: the server hung up; it is tried again by itself"
        );
    }

    #[test]
    fn scripts_get_an_object() {
        let told = json(&mount(with(|report| report.oldest = None)));
        let expected = "{\"source\": \"eve@nas:/srv\", \"mountpoint\": \"/mnt/nas\", \
            \"connected\": true, \"state\": \"connected\", \"since\": 1763856000.250, \
            \"server\": \"eve@nas port 22 through russh\", \"reconnects\": 2, \"connections\": 3, \
            \"outstanding\": 12, \"oldest\": null, \"waiting\": 2, \"longest\": 8.200, \"unwritten\": 4194304, \
            \"last_error\": \"connection lost: the server hung up\", \
            \"last_error_at\": 1763855990.000, \"process\": 4711}";
        assert_eq!(told, expected);
        assert_eq!(json_array(&[]), "[]");
        let gone = "\"connected\": false, \"state\": \"gone\"}";
        assert!(json(&mount(Err(Silence::Gone))).ends_with(gone));
    }

    #[test]
    fn text_in_json_is_escaped() {
        assert_eq!(string("a\"b\\c\n\u{7f}"), "\"a\\\"b\\\\c\\u000a\\u007f\"");
    }
}
