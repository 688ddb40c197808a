//! What the server said it can do: extensions, and how much one READ or WRITE may carry.

use super::connection::Connection;
use super::unexpected;
use crate::error::{Error, Result};
use crate::sftp::{Extensions, Limits, Request, Response};

/// What the server said it can do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Features {
    pub(crate) extensions: Extensions,
    /// Bytes that one READ may ask for.
    pub(crate) read_max: u32,
    /// Bytes that one WRITE may carry.
    pub(crate) write_max: u32,
}

impl Features {
    /// Whether the server does what it is asked on one connection in the order in which it was asked,
    /// as the draft wants it (section 6.1), also where that is more than reads and writes. Those who
    /// know fsync@openssh.com do (OpenSSH, ProFTPD, Apache MINA); Go's pkg/sftp has its WRITEs done by
    /// several threads, and does all else meanwhile.
    pub(crate) const fn acts_in_order(&self) -> bool {
        self.extensions.fsync
    }

    /// One line for the log.
    pub(super) fn describe(&self) -> String {
        let has = &self.extensions;
        let named = [
            (has.posix_rename, "posix-rename"),
            (has.statvfs, "statvfs"),
            (has.hardlink, "hardlink"),
            (has.fsync, "fsync"),
            (has.lsetstat, "lsetstat"),
            (has.copy_data, "copy-data"),
            (has.expand_path, "expand-path"),
        ];
        let (yes, no): (Vec<_>, Vec<_>) = named.into_iter().partition(|(has, _)| *has);
        let list = |of: Vec<(bool, &'static str)>| {
            of.into_iter()
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        format!(
            "read {} write {} bytes a request; has: {}; has not: {}",
            self.read_max,
            self.write_max,
            list(yes),
            list(no)
        )
    }
}

/// What VERSION and limits@openssh.com (OpenSSH 8.5) say.
pub(super) async fn features(connection: &Connection, version: Response) -> Result<Features> {
    let Response::Version {
        version,
        extensions,
    } = version
    else {
        return Err(unexpected(version));
    };
    if version < 3 {
        return Err(Error::setup(format!(
            "the server speaks SFTP version {version}; version 3 is needed"
        )));
    }
    let extensions = Extensions::from_version(&extensions);
    let mut features = Features {
        extensions,
        read_max: IO_DEFAULT,
        write_max: IO_DEFAULT,
    };
    if features.extensions.limits {
        // A server that announces limits and then refuses to tell them is taken at the default.
        if let Ok(Response::Extended(body)) = connection.submit(&Request::Limits).await {
            let limits = Limits::decode(body)?;
            features.read_max = io_size(limits.read_max, limits.packet_max);
            features.write_max = io_size(limits.write_max, limits.packet_max);
        }
    }
    Ok(features)
}

/// What to ask for at once: the server's limit, held to what pays; 0 means it has none.
fn io_size(max: u64, packet_max: u64) -> u32 {
    let packet = if packet_max == 0 {
        u64::MAX
    } else {
        packet_max.saturating_sub(1024)
    };
    let max = if max == 0 { u64::from(IO_MAX) } else { max };
    u32::try_from(max.min(packet))
        .unwrap_or(IO_MAX)
        .clamp(IO_MIN, IO_MAX)
}

/// What every SFTP server must take (draft-ietf-secsh-filexfer-02, section 3: packets of 34,000
/// bytes).
const IO_DEFAULT: u32 = 32 << 10;
const IO_MIN: u32 = 4 << 10;
/// OpenSSH's own limit is 261,120; more has not been seen to pay.
const IO_MAX: u32 = 255 << 10;
