//! `cargo xtask bench`: figures that are promised, measured beside what they are compared with.
//! Prints, writes JSON and ends with 1 when a limit is missed. No test run depends on it: on a busy
//! machine a time proves little and the ratio to the floor most.
mod api;
mod block;
mod machines;
mod net;
mod startup;

use crate::repo;
use anyhow::{Context, Result};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// From the command to the guest's first byte and to a shell, memory and size of the program
    Startup {
        /// Pairs of runs, ours and the floor's by turns
        #[arg(long, default_value_t = 40)]
        runs: u32,
        /// Boots of the embedded guest
        #[arg(long, default_value_t = 1)]
        boots: u32,
    },
    /// The user-mode network with a guest made of frames, by turns with passt where that is
    /// installed, and, as root, a tap with a bare guest by turns with a veth
    Net {
        /// Rounds
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Only the tap
        #[arg(long)]
        tap: bool,
    },
    /// The API: its first answer, the start of a guest through it, many clients, memory
    Api {
        /// Runs of the monitor
        #[arg(long, default_value_t = 40)]
        runs: u32,
    },
    /// Drives by turns with a plain loop on the same file, system calls of a request, idleness
    Block {
        /// Rounds of every case
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Seconds that an idle guest is watched
        #[arg(long, default_value_t = 10)]
        idle: u64,
        /// Only cases whose names contain this, and nothing else
        #[arg(long)]
        only: Option<String>,
    },
}

/// Runs a benchmark. True when every limit is met.
pub(crate) fn run(bench: &Bench) -> Result<bool> {
    match bench {
        Bench::Api { runs } => api::run(*runs),
        Bench::Net { rounds, tap } => net::run(*rounds, *tap),
        Bench::Startup { runs, boots } => startup::run(*runs, *boots),
        Bench::Block { rounds, idle, only } => block::run(*rounds, *idle, only.as_deref()),
    }
}

pub(crate) use startup::program;

/// What tests/bench/limits.toml promises of each benchmark.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    api: api::ApiLimits,
    block: block::BlockLimits,
    net: net::NetLimits,
    startup: startup::StartupLimits,
}

fn limits() -> Result<Limits> {
    let text = std::fs::read_to_string(repo::root().join("tests/bench/limits.toml"))
        .context("tests/bench/limits.toml")?;
    toml::from_str(&text).context("reading tests/bench/limits.toml")
}

/// Prints the figures and writes them with their samples to `NAME.json`. True when every limit is
/// met.
fn conclude(name: &str, figures: &[Figure], samples: &impl Serialize) -> Result<bool> {
    #[derive(Serialize)]
    struct Results<'a, T> {
        figures: &'a [Figure],
        #[serde(flatten)]
        samples: &'a T,
    }
    figures.iter().for_each(Figure::print);
    let file = folder()?.join(name).with_extension("json");
    let text = serde_json::to_string_pretty(&Results { figures, samples }).context("results")?;
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    println!("every sample is in {}", file.display());
    Ok(figures.iter().all(|figure| figure.met))
}

/// One measured figure beside its limit.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    unit: &'static str,
    value: f64,
    #[serde(flatten)]
    limit: Limit,
    met: bool,
}

/// What a figure may be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Limit {
    /// As large as this.
    #[serde(rename = "limit")]
    Most(f64),
    /// No smaller than this.
    Least(f64),
    /// Anything: it is only told.
    None,
}

impl Figure {
    /// One that may be as large as its limit.
    fn new(name: &'static str, unit: &'static str, value: f64, limit: f64) -> Figure {
        Figure {
            name,
            unit,
            value,
            limit: Limit::Most(limit),
            met: value <= limit,
        }
    }

    /// One that must be as large as its limit.
    fn least(name: &'static str, unit: &'static str, value: f64, limit: f64) -> Figure {
        Figure {
            limit: Limit::Least(limit),
            met: value >= limit,
            ..Figure::told(name, unit, value)
        }
    }

    /// One without a limit.
    fn told(name: &'static str, unit: &'static str, value: f64) -> Figure {
        Figure {
            name,
            unit,
            value,
            limit: Limit::None,
            met: true,
        }
    }

    fn print(&self) {
        let Figure {
            name,
            unit,
            value,
            limit,
            met,
        } = self;
        let verdict = if *met { "met" } else { "MISSED" };
        print!("{name:<44} {value:>10.2} {unit:<6}");
        match limit {
            Limit::Most(limit) => println!(" limit {limit:>9.2}  {verdict}"),
            Limit::Least(limit) => println!(" least {limit:>9.2}  {verdict}"),
            Limit::None => println!(),
        }
    }
}

/// The folder of programs and results of benchmarks.
fn folder() -> Result<PathBuf> {
    let folder = repo::target().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// The middle of some values, zero of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (
        sorted.len() % 2,
        sorted.get(middle.saturating_sub(1)..=middle),
    ) {
        (0, Some([low, high])) => f64::midpoint(*low, *high),
        _ => sorted.get(middle).copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        for (values, middle) in [
            (&[][..], 0.0),
            (&[3.0][..], 3.0),
            (&[4.0, 1.0][..], 2.5),
            (&[9.0, 1.0, 2.0][..], 2.0),
        ] {
            assert!((median(values) - middle).abs() < 1e-9, "{values:?}");
        }
    }
}
