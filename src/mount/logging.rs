//! The log: standard error in the foreground, syslog(3)'s socket in the background.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Where syslogd and journald listen (syslog(3), systemd-journald.service(8)).
const SOCKET: &str = "/dev/log";

/// "daemon" of syslog(3), shifted to its place.
const FACILITY: u8 = 3 << 3;

/// Longer lines are cut: RFC 5424, section 6.1, has every receiver take 2048 bytes.
const LINE_SIZE_MAX: usize = 2000;

/// Set when the process goes to the background, and never reset.
static SYSLOG: OnceLock<Option<UnixDatagram>> = OnceLock::new();

struct Logger {
    stderr: env_logger::Logger,
}

/// Starts logging. Libraries say less than we do: their debugging is of use only with ours.
pub(super) fn start(level: LevelFilter) {
    let libraries = if level == LevelFilter::Trace {
        LevelFilter::Debug
    } else {
        LevelFilter::Warn
    };
    let fuser = if level >= LevelFilter::Debug {
        libraries
    } else {
        LevelFilter::Off
    };
    let stderr = env_logger::Builder::new()
        .filter(None, level.min(libraries))
        .filter(Some("sftpfs"), level)
        // It complains of requests that were interrupted, which is no complaint.
        .filter(Some("fuser"), fuser)
        .parse_default_env()
        .format(|out, record| {
            writeln!(
                out,
                "sftpfs: {}",
                one_line(record.level(), &record.args().to_string())
            )
        })
        .build();
    log::set_max_level(stderr.filter());
    // Fails if there is a logger already: then someone uses us as a library, with their own.
    let _ = log::set_boxed_logger(Box::new(Logger { stderr }));
}

/// From now on to syslog. Without one, messages are lost: a mount works without a log too.
pub(super) fn to_syslog() {
    SYSLOG.get_or_init(|| {
        let socket = UnixDatagram::unbound().ok()?;
        // A log that is full must not stop the files.
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    });
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.stderr.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let Some(syslog) = SYSLOG.get() else {
            return self.stderr.log(record);
        };
        if !self.stderr.matches(record) {
            return;
        }
        if let Some(socket) = syslog {
            let text = one_line(record.level(), &record.args().to_string());
            let line = syslog_line(record.level(), std::process::id(), &text);
            // Addressed anew each time: syslogd may have been started again.
            let _ = socket.send_to(line.as_bytes(), SOCKET);
        }
    }

    fn flush(&self) {}
}

/// A message with its level, and without what a hostile name could do to a terminal or a log.
fn one_line(level: Level, message: &str) -> String {
    let level = level.as_str().to_ascii_lowercase();
    let escaped = message.chars().flat_map(|c| {
        let kept = (!c.is_control()).then_some(c);
        let shown = c.is_control().then(|| c.escape_default());
        kept.into_iter().chain(shown.into_iter().flatten())
    });
    format!("{level}: {}", escaped.collect::<String>())
}

/// `<PRIORITY>TAG[PID]: TEXT`, as syslog(3) sends it but for the time, which the receiver knows.
fn syslog_line(level: Level, pid: u32, text: &str) -> String {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let mut line = format!("<{}>sftpfs[{pid}]: {text}", FACILITY | severity);
    while line.len() > LINE_SIZE_MAX {
        line.pop();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_log() {
        assert_eq!(
            one_line(Level::Warn, "a\x1b[31m\nb"),
            "warn: a\\u{1b}[31m\\nb"
        );
    }

    #[test]
    fn a_line_has_its_priority_and_an_end() {
        assert_eq!(
            syslog_line(Level::Error, 7, "error: x"),
            "<27>sftpfs[7]: error: x"
        );
        let long = syslog_line(Level::Info, 7, &"\u{e9}".repeat(2000));
        assert!(long.len() <= LINE_SIZE_MAX);
    }
}
