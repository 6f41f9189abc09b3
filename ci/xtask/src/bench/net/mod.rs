//! How fast networks are. For the user-mode network, the generator of the crate `usernet` plays the
//! guest and the other hosts, by turns with passt where that is installed. A tap has a bare guest.

mod tap;

use super::{Figure, conclude, limits, median};
use crate::repo;
use crate::steps::cargo;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::process::Command;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetLimits {
    bulk_gbit: f64,
    added_us: f64,
    connections_per_second: f64,
    idle_wakeups: f64,
    times_passt: f64,
    tap_added_us: f64,
}

/// What the generator prints.
#[derive(Debug, Deserialize, Serialize)]
struct Round {
    up_gbit: f64,
    down_gbit: f64,
    loopback_us: f64,
    round_trip_us: f64,
    connections_per_second: f64,
    idle_wakeups: f64,
    resident_kib: f64,
}

/// All rounds with one program.
#[derive(Debug, Serialize)]
struct Rounds(Vec<Round>);

impl Rounds {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(&self.0.iter().map(of).collect::<Vec<_>>())
    }

    fn added_us(&self) -> f64 {
        self.median(|round| round.round_trip_us - round.loopback_us)
    }
}

#[derive(Debug, Serialize)]
struct Samples {
    ours: Rounds,
    passt: Rounds,
    /// None where this user may make no network namespaces.
    tap: Option<Vec<tap::Round>>,
}

/// Measures, prints and writes net.json. `only_tap` leaves the user-mode network out.
pub(super) fn run(rounds: u32, only_tap: bool) -> Result<bool> {
    let limits = limits()?.net;
    let (mut ours, mut passt) = (Rounds(Vec::new()), Rounds(Vec::new()));
    let mut figures = Vec::new();
    if !only_tap {
        (ours, passt) = user(rounds)?;
        figures.extend(self::figures(&ours, &limits));
        if !passt.0.is_empty() {
            figures.extend(beside(&ours, &passt, &limits));
        }
    }
    let tap = tap::measure(rounds)?;
    match &tap {
        Some(rounds) => figures.extend(tap::figures(rounds, &limits)),
        None => println!("OMITTED: 1 part of 2, taps: they take root, iproute2 and ethtool"),
    }
    conclude("net", &figures, &Samples { ours, passt, tap })
}

/// Rounds of our user-mode network, and of passt where it is installed.
fn user(rounds: u32) -> Result<(Rounds, Rounds)> {
    let build = [
        "build",
        "--release",
        "--package",
        "usernet",
        "--example",
        "generator",
    ];
    ensure!(cargo(&build).status()?.success(), "building the generator");
    let has_passt = repo::find_program("passt").is_some();
    if !has_passt {
        println!("passt is not installed: only our own network is measured");
    }
    let (mut ours, mut passt) = (Rounds(Vec::new()), Rounds(Vec::new()));
    for _ in 0..rounds {
        ours.0.push(generate(&[])?);
        if has_passt {
            passt.0.push(generate(&["passt"])?);
        }
    }
    Ok((ours, passt))
}

fn generate(arguments: &[&str]) -> Result<Round> {
    let program = repo::target().join("x86_64-unknown-linux-gnu/release/examples/generator");
    let output = Command::new(&program)
        .args(arguments)
        .output()
        .with_context(|| program.display().to_string())?;
    if !output.status.success() {
        bail!(
            "the generator: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("reading what the generator prints")
}

fn figures(ours: &Rounds, limits: &NetLimits) -> Vec<Figure> {
    let up = ours.median(|round| round.up_gbit);
    let down = ours.median(|round| round.down_gbit);
    let connections = ours.median(|round| round.connections_per_second);
    let wakeups = ours.median(|round| round.idle_wakeups);
    vec![
        Figure::least("TCP from the guest", "Gbit/s", up, limits.bulk_gbit),
        Figure::least("TCP to the guest", "Gbit/s", down, limits.bulk_gbit),
        Figure::told(
            "round trip over loopback",
            "us",
            ours.median(|round| round.loopback_us),
        ),
        Figure::new("added to it", "us", ours.added_us(), limits.added_us),
        Figure::least(
            "connections",
            "1/s",
            connections,
            limits.connections_per_second,
        ),
        Figure::new(
            "wake-ups of an idle network in 10 s",
            "",
            wakeups,
            limits.idle_wakeups,
        ),
        Figure::told("resident", "KiB", ours.median(|round| round.resident_kib)),
    ]
}

fn beside(ours: &Rounds, passt: &Rounds, limits: &NetLimits) -> Vec<Figure> {
    // passt drops what its socket does not take and relies on the guest to send it again, which the
    // generator does not: only its best round is one without such a loss.
    let best = |of: fn(&Round) -> f64| passt.0.iter().map(of).fold(0.0, f64::max);
    let (up, down) = (best(|round| round.up_gbit), best(|round| round.down_gbit));
    let times_up = ours.median(|round| round.up_gbit) / up;
    let times_down = ours.median(|round| round.down_gbit) / down;
    let connections = passt.median(|round| round.connections_per_second);
    let wakeups = passt.median(|round| round.idle_wakeups);
    vec![
        Figure::told("passt: TCP from the guest, best", "Gbit/s", up),
        Figure::told("passt: TCP to the guest, best", "Gbit/s", down),
        Figure::told("passt: added to the round trip", "us", passt.added_us()),
        Figure::told("passt: connections", "1/s", connections),
        Figure::told("passt: wake-ups in 10 s", "", wakeups),
        Figure::told(
            "passt: resident",
            "KiB",
            passt.median(|round| round.resident_kib),
        ),
        Figure::least(
            "from the guest, times passt",
            "",
            times_up,
            limits.times_passt,
        ),
        Figure::least(
            "to the guest, times passt",
            "",
            times_down,
            limits.times_passt,
        ),
    ]
}
