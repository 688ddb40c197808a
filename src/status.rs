//! How a mount is: what it tells who asks, as values and as lines on its control socket.
//!
//! **Invariant:** what is read is not believed to be well-formed: a line that is not understood is
//! passed over, and nothing read can drive a terminal.

use std::time::Duration;

/// What a mount's process says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) state: State,
    /// Since when it is so, counted from 1970.
    pub(crate) since: Duration,
    /// User, host, port and way, for people.
    pub(crate) server: String,
    /// How often the connection was made anew.
    pub(crate) reconnects: u64,
    /// Connections that are open now.
    pub(crate) connections: u64,
    /// Requests that were sent and have no answer.
    pub(crate) outstanding: u64,
    /// How long the oldest of them waits.
    pub(crate) oldest: Option<Duration>,
    /// Calls of programs that wait for the server, whether it is there or not.
    pub(crate) waiting: u64,
    /// How long the first of them has waited.
    pub(crate) longest: Option<Duration>,
    /// Bytes that programs have written and the server has not confirmed.
    pub(crate) unwritten: u64,
    /// What went wrong last, and when, counted from 1970.
    pub(crate) last_error: Option<(Duration, String)>,
    /// The process behind the mount.
    pub(crate) process: u64,
}

/// Whether the server can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Connected,
    /// Lost, and being made anew.
    Reconnecting,
    /// The server does not let us in any more.
    Denied,
    /// Given up: the mount is ending.
    Ended,
}

/// Why there is no [`Report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The process has died and left the mount.
    Gone,
    /// The process is there, and does not answer: it is stopped, or stuck.
    Mute,
    /// Another user's, who alone is answered.
    Forbidden,
    /// There is no control socket; the process may be there.
    NoSocket,
}

/// What `status` and `reconnect` are told about one mount.
pub(crate) type Told = Result<Report, Silence>;

impl State {
    const ALL: [Self; 4] = [
        Self::Connected,
        Self::Reconnecting,
        Self::Denied,
        Self::Ended,
    ];

    /// In one word, for scripts.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Denied => "denied",
            Self::Ended => "ended",
        }
    }
}

impl Silence {
    /// In one word, for scripts.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Mute => "mute",
            Self::Forbidden => "forbidden",
            Self::NoSocket => "unknown",
        }
    }
}

impl Report {
    /// Lines of a key, a blank and a value.
    pub(crate) fn encode(&self) -> String {
        let mut lines = vec![
            ("state", self.state.word().to_owned()),
            ("since", self.since.as_millis().to_string()),
            ("server", one_line(&self.server)),
            ("reconnects", self.reconnects.to_string()),
            ("connections", self.connections.to_string()),
            ("outstanding", self.outstanding.to_string()),
            ("waiting", self.waiting.to_string()),
            ("unwritten", self.unwritten.to_string()),
            ("process", self.process.to_string()),
        ];
        if let Some(oldest) = self.oldest {
            lines.push(("oldest", oldest.as_millis().to_string()));
        }
        if let Some(longest) = self.longest {
            lines.push(("longest", longest.as_millis().to_string()));
        }
        if let Some((when, what)) = &self.last_error {
            lines.push(("failed", when.as_millis().to_string()));
            lines.push(("failure", one_line(what)));
        }
        lines
            .into_iter()
            .map(|(key, value)| format!("{key} {value}\n"))
            .collect()
    }

    /// The reverse. `None` if it does not even say whether it is connected.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        };
        let number = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok());
        let time = |key: &str| number(key).map(Duration::from_millis);
        let failure = value("failure").map(one_line);
        Some(Self {
            state: State::ALL
                .into_iter()
                .find(|state| value("state") == Some(state.word()))?,
            since: time("since").unwrap_or_default(),
            server: one_line(value("server").unwrap_or_default()),
            reconnects: number("reconnects").unwrap_or_default(),
            connections: number("connections").unwrap_or_default(),
            outstanding: number("outstanding").unwrap_or_default(),
            oldest: time("oldest"),
            waiting: number("waiting").unwrap_or_default(),
            longest: time("longest"),
            unwritten: number("unwritten").unwrap_or_default(),
            last_error: time("failed").zip(failure),
            process: number("process").unwrap_or_default(),
        })
    }
}

/// A text of others as one line that cannot drive a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let plain = |c: char| match c {
        '\n' => ' ',
        c if c.is_control() => '?',
        c => c,
    };
    text.trim_end().chars().map(plain).collect()
}

#[cfg(test)]
pub(crate) fn example() -> Report {
    Report {
        state: State::Connected,
        since: Duration::from_millis(1_763_856_000_250),
        server: "eve@nas port 22 through russh".to_owned(),
        reconnects: 2,
        connections: 3,
        outstanding: 12,
        oldest: Some(Duration::from_millis(340)),
        waiting: 2,
        longest: Some(Duration::from_millis(8200)),
        unwritten: 4 << 20,
        last_error: Some((
            Duration::from_millis(1_763_855_990_000),
            "connection lost: the server hung up".to_owned(),
        )),
        process: 4711,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        let quiet = Report {
            state: State::Denied,
            oldest: None,
            last_error: None,
            ..example()
        };
        for report in [example(), quiet] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
    }

    #[test]
    fn a_failure_of_several_lines_is_one_line() {
        let mut report = example();
        report.last_error = Some((Duration::ZERO, "a\nstate ended\n\x1b[2J".to_owned()));
        let told = Report::decode(&report.encode()).unwrap();
        assert_eq!(told.state, State::Connected);
        assert_eq!(told.last_error.unwrap().1, "a state ended ?[2J");
    }

    #[test]
    fn what_later_versions_say_is_passed_over_and_what_they_do_not_say_is_nothing() {
        let told = Report::decode("news x\nstate reconnecting\nreconnects many\n").unwrap();
        assert_eq!((told.state, told.reconnects), (State::Reconnecting, 0));
        assert_eq!(Report::decode("state asleep\n"), None);
        assert_eq!(Report::decode(""), None);
    }
}
