//! SSH in process, by the russh crate: the default way to a server.
//!
//! **Invariant:** nothing secret is sent before the host key was judged ([`handler`]); a prompt
//! never holds up the thread that drives the connections.

mod algorithms;
mod auth;
mod explain;
mod handler;
mod identities;
mod sign;
mod stream;
#[cfg(test)]
pub(super) mod test_server;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::client::{Config, Handle, Msg, connect_stream};
use russh::{Channel, ChannelMsg, SshId};
use tokio::time::timeout;

pub(super) use self::identities::{find_public, load};
pub(super) use self::wire::{Cut, Wire};

use self::auth::Login;
use self::handler::{Handler, Learned};
use self::stream::Stream;
use self::wire::Head;
use super::host_config::Settings;
use super::host_keys;
use super::login::Plan;
use super::{Diagnosis, Link};
use crate::error::{Error, Result};

/// Connects, logs in, and starts the SFTP server.
///
/// # Errors
///
/// [`Error::Denied`] or [`Error::Setup`], in words for the person who wants to mount.
pub(super) async fn dial(plan: &Plan) -> Result<Link> {
    let settings = &plan.settings;
    let (wire, cut) = Wire::connect(settings).await?;
    let head = wire.head();
    let diagnosis = Diagnosis::default();
    let learned = Arc::new(Learned::default());
    let handler = Handler {
        settings: settings.clone(),
        prompter: plan.prompter.clone(),
        memory: plan.memory.clone(),
        diagnosis: diagnosis.clone(),
        learned: learned.clone(),
    };
    let mut handle = shake_hands(settings, wire, handler, &learned, &head).await?;
    let known = plan.memory.proofs(&plan.prompter);
    let (prompter, password) = (plan.prompter.clone(), plan.password.clone());
    let login = Login::new(&mut handle, settings, &learned, prompter, known, password);
    plan.memory.note(login.run().await)?;
    let server = plan.sftp_server.as_deref().unwrap_or(SUBSYSTEM);
    let (channel, rest) = start_server(settings, &handle, server, &diagnosis).await?;
    let peer = {
        let facts = learned.facts();
        format!("{} through russh, {}", facts.server, facts.cipher)
    };
    let stream = Box::new(Stream::new(channel, handle, cut, rest, diagnosis.clone()));
    Ok(Link {
        stream,
        peer,
        diagnosis,
    })
}

/// Key exchange and host key. The time limit stands still while a person looks at the key.
async fn shake_hands(
    settings: &Arc<Settings>,
    wire: Wire,
    handler: Handler,
    learned: &Learned,
    head: &Head,
) -> Result<Handle<Handler>> {
    // Reads the known_hosts files; done once a connection, and not of a size that would be felt.
    let known_types = host_keys::known_types(settings);
    let config = Arc::new(config(settings, &known_types));
    let mut connecting = std::pin::pin!(connect_stream(config, wire, handler));
    loop {
        match timeout(settings.connect_timeout(), &mut connecting).await {
            Ok(Ok(handle)) => return Ok(handle),
            Ok(Err(failure)) => return Err(explain::handshake(settings, failure, head)),
            Err(_) if learned.is_asking() => {}
            Err(_) => return Err(explain::late(settings, head)),
        }
    }
}

fn config(settings: &Settings, known_types: &[String]) -> Config {
    let (interval, count) = settings.server_alive();
    Config {
        client_id: SshId::Standard(concat!("SSH-2.0-sftpfs_", env!("CARGO_PKG_VERSION")).into()),
        window_size: WINDOW_SIZE,
        maximum_packet_size: PACKET_SIZE,
        channel_buffer_size: CHANNEL_MESSAGES_MAX,
        preferred: algorithms::preferred(settings, known_types),
        keepalive_interval: Some(interval).filter(|interval| !interval.is_zero()),
        keepalive_max: usize::try_from(count).unwrap_or(usize::MAX),
        ..Config::default()
    }
}

/// Opens the one channel and starts the SFTP server in it. What the server sent before it said
/// that it did so is returned with the channel.
async fn start_server(
    settings: &Settings,
    handle: &Handle<Handler>,
    server: &str,
    diagnosis: &Diagnosis,
) -> Result<(Channel<Msg>, Bytes)> {
    let fail = |why: String| {
        let whom = format!("{}@{}", settings.user(), settings.host_name());
        let said = diagnosis.text();
        let said = if said.is_empty() {
            String::new()
        } else {
            format!(": {said}")
        };
        Error::setup(format!("{whom}: {why}{said}"))
    };
    let starting = async {
        let mut channel = handle
            .channel_open_session()
            .await
            .map_err(|error| match error {
                russh::Error::ChannelOpenFailure(reason) => fail(format!(
                    "logged in, but the server opens no channel ({reason:?})"
                )),
                other => fail(format!(
                    "logged in, but the server opens no channel ({})",
                    explain::ended(&other)
                )),
            })?;
        let sent = if server.contains('/') {
            channel.exec(true, server).await
        } else {
            channel.request_subsystem(true, server).await
        };
        sent.map_err(|error| fail(explain::ended(&error)))?;
        let mut rest = BytesMut::new();
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => return Ok((channel, rest.freeze())),
                Some(ChannelMsg::Data { data }) if rest.len() < REST_LEN_MAX => {
                    rest.extend_from_slice(&data);
                }
                Some(ChannelMsg::Failure) => {
                    return Err(Error::denied(fail(refused(server)).to_string()));
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::Data { .. }) | None => {
                    return Err(fail(format!("logged in, but {server} ended at once")));
                }
                Some(other) => stream::note(&other, diagnosis),
            }
        }
    };
    match timeout(START_PATIENCE, starting).await {
        Ok(started) => started,
        Err(_) => Err(fail(format!(
            "logged in, but {server} has not started in {} s",
            START_PATIENCE.as_secs()
        ))),
    }
}

fn refused(server: &str) -> String {
    format!(
        "logged in, but the server does not start {server}; is SFTP turned off there, or does \
         another account have it? (-o sftp_server=/path/of/sftp-server runs one by its path)"
    )
}

/// RFC 4254 section 6.5; every server calls it so.
const SUBSYSTEM: &str = "sftp";

/// By measurement: 2 MiB halves a line of 20 ms, and with 16 MiB an sshd spends its time on moving
/// its own buffer.
const WINDOW_SIZE: u32 = 4 << 20;

/// The most that a server may put into one packet.
const PACKET_SIZE: u32 = 32 << 10;

/// As many packets as fill the window, so that the window is the only bound.
const CHANNEL_MESSAGES_MAX: usize = 128;

/// Far more than a login script prints before an SFTP server that is run by its path.
const REST_LEN_MAX: usize = 64 << 10;

/// PAM may mount a home folder first.
const START_PATIENCE: Duration = Duration::from_secs(60);
