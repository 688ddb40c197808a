//! One measurement: a system is attached, works, is looked at, and is taken down.

use std::time::{Duration, Instant};

use super::attached::Attached;
use super::cost;
use super::figures::{Ending, Measurement, load};
use super::mixed;
use super::site::Site;
use super::system::{Kind, System};
use super::timed;
use super::works::{Action, Step, Work};
use crate::link::Meter;
use crate::process;

/// Measures all steps of a work once. A step that fails or does not finish ends it.
pub fn run(
    site: &Site,
    system: &System,
    work: &Work,
    round: usize,
    limit: Duration,
) -> Vec<Measurement> {
    let mut done = Vec::new();
    let mut attached = None;
    for step in work.steps.iter().filter(|step| step.is_for(system)) {
        let mut measurement = Measurement::new(step.row, &system.name, round, load());
        let ready = if step.is_cold {
            let clean = if done.is_empty() {
                (work.before)(site)
            } else {
                Ok(())
            };
            let clean = clean.map_err(|why| format!("cannot prepare: {why}"));
            clean
                .and_then(|()| take_down(attached.take(), system))
                .and_then(|()| Attached::new(site, system))
        } else {
            attached.take().ok_or_else(|| "nothing is mounted".into())
        };
        let ending = ready.and_then(|ready| {
            let ending = measure(site, system, step, &ready, limit, &mut measurement);
            match ending {
                Ok(Ending::Unfinished) | Err(_) => ready.abort(),
                Ok(_) => attached = Some(ready),
            }
            ending
        });
        measurement.ending = ending.unwrap_or_else(Ending::Failed);
        let is_over = measurement.ending != Ending::Done;
        done.push(measurement);
        if is_over {
            break;
        }
    }
    if let (Err(why), Some(last)) = (take_down(attached, system), done.last_mut()) {
        last.ending = Ending::Failed(why);
    }
    done
}

fn take_down(attached: Option<Attached>, system: &System) -> Result<(), String> {
    attached.map_or(Ok(()), |attached| attached.detach(system))
}

fn measure(
    site: &Site,
    system: &System,
    step: &Step,
    attached: &Attached,
    limit: Duration,
    measurement: &mut Measurement,
) -> Result<Ending, String> {
    quiet(site);
    let before = Costs::now(site, attached);
    let seconds = act(site, system, step, attached, limit)?;
    // What trails behind, such as closing what was read ahead, is part of the cost.
    quiet(site);
    let after = Costs::now(site, attached);
    measurement.peak_kib = cost::peak_kib(&attached.clients);
    measurement.server_cpu = after.server - before.server;
    measurement.client_cpu = after.client - before.client;
    measurement.link_cpu = after.link - before.link;
    if !system.kind.is_mount() && system.kind != Kind::Local {
        measurement.client_cpu += after.commands - before.commands;
    }
    let (after, before) = (after.meter, before.meter);
    measurement.bytes_up = after.up_bytes - before.up_bytes;
    measurement.bytes_down = after.down_bytes - before.down_bytes;
    measurement.packets =
        after.up_packets + after.down_packets - before.up_packets - before.down_packets;
    measurement.turns = after.turns - before.turns;
    measurement.chain = after.chain - before.chain;
    let Some(seconds) = seconds else {
        measurement.seconds = limit.as_secs_f64();
        return Ok(Ending::Unfinished);
    };
    measurement.seconds = seconds;
    check(site, step)?;
    Ok(Ending::Done)
}

/// Does it; seconds, or None if the deadline came first.
fn act(
    site: &Site,
    system: &System,
    step: &Step,
    attached: &Attached,
    limit: Duration,
) -> Result<Option<f64>, String> {
    let script = match (&step.run, step.yardstick(system)) {
        (_, Some(script)) => script,
        (Action::Command(script), None) => script,
        (Action::ListingsDuring(copy, growing), None) => {
            return mixed::listings(site, attached, copy, &growing(site), limit);
        }
    };
    let mut command = site.shell(script, &attached.place);
    if !system.kind.is_mount() {
        site.link.near().enter(&mut command);
    }
    let started = Instant::now();
    let timed = timed::run(&mut command, limit)?;
    let Some(status) = timed.status else {
        return Ok(None);
    };
    if !status.success() {
        return Err(format!("{script}: {status}: {}", timed.said));
    }
    if (step.has_arrived)(site) {
        return Ok(Some(timed.took.as_secs_f64()));
    }
    // It said that it was done before the server had everything.
    let arrived = process::wait_for(started + limit, || (step.has_arrived)(site).then_some(()));
    Ok(arrived.map(|()| started.elapsed().as_secs_f64()))
}

/// Whether the result is right. What may come late by the rules, such as times, has a moment.
fn check(site: &Site, step: &Step) -> Result<(), String> {
    let mut last = String::new();
    let end = Instant::now() + Duration::from_secs(3);
    let is_right = process::wait_for(end, || match (step.check)(site) {
        Ok(()) => Some(()),
        Err(why) => {
            last = why;
            None
        }
    });
    is_right.ok_or(last)
}

struct Costs {
    meter: Meter,
    server: f64,
    client: f64,
    commands: f64,
    link: f64,
}

impl Costs {
    fn now(site: &Site, attached: &Attached) -> Self {
        Self {
            meter: site.link.meter(),
            server: cost::cpu_seconds(&[site.host.pid()]),
            client: cost::cpu_seconds(&attached.clients),
            commands: cost::cpu_of_ended_children(),
            link: site
                .link
                .thread_times()
                .iter()
                .map(Duration::as_secs_f64)
                .sum(),
        }
    }
}

/// Waits until nothing has gone over the link for more than a round trip, or until it seems that
/// something always does.
fn quiet(site: &Site) {
    let still = site.rtt * 3 / 2 + Duration::from_millis(30);
    let end = Instant::now() + Duration::from_secs(3) + still * 5;
    let (mut last, mut since) = (site.link.meter(), Instant::now());
    process::wait_for(end, || {
        let meter = site.link.meter();
        if (meter.up_packets, meter.down_packets) != (last.up_packets, last.down_packets) {
            (last, since) = (meter, Instant::now());
        }
        (since.elapsed() >= still).then_some(())
    });
}
