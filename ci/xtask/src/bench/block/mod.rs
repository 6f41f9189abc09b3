//! How fast drives are: loads of the bare guest by turns with a plain loop of reads and writes on
//! the same cached file, which is the limit of any monitor; system calls of a request; idleness.

mod cost;
mod direct;
mod drive;
mod native;
mod vsock;

use super::machines::Machines;
use super::{Figure, conclude, folder, limits, median, startup};
use anyhow::{Context, Result};
use drive::Disk;
use harness::bare;
use harness::bare::ops::BlockLoad;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of the file.
const SPAN: u64 = 512 << 20;
/// Bytes that are written at once as the file is made.
const FILL: u32 = 128 << 10;
/// How long each load runs.
const TIME: Duration = Duration::from_millis(400);

/// One kind of request at one depth.
struct Case {
    name: &'static str,
    write: bool,
    random: bool,
    block: u64,
    depth: u64,
}

const CASES: [Case; 5] = [
    case("random read 4 KiB, depth 1", false, true, 4 << 10, 1),
    case("random read 4 KiB, depth 32", false, true, 4 << 10, 32),
    case(
        "sequential read 128 KiB, depth 8",
        false,
        false,
        128 << 10,
        8,
    ),
    case(
        "sequential write 128 KiB, depth 8",
        true,
        false,
        128 << 10,
        8,
    ),
    case("random write 4 KiB, depth 32", true, true, 4 << 10, 32),
];

const fn case(name: &'static str, write: bool, random: bool, block: u64, depth: u64) -> Case {
    Case {
        name,
        write,
        random,
        block,
        depth,
    }
}

impl Case {
    fn load(&self) -> BlockLoad {
        BlockLoad {
            write: self.write,
            random: self.random,
            block: self.block,
            depth: self.depth,
            span: SPAN,
            time: TIME,
            count: u64::MAX,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockLimits {
    depth_1_thousands: f64,
    random_read: f64,
    sequential: f64,
    random_write: f64,
    overlay: f64,
    calls_per_request: f64,
    idle_cpu_percent: f64,
    idle_wakeups: f64,
    vsock_gbit: f64,
}

/// Thousands of requests a second, one number a round, of one case with each way to do it.
#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    ways: Vec<(&'static str, Vec<f64>)>,
}

impl Row {
    fn median(&self, way: &str) -> Option<f64> {
        let found = self.ways.iter().find(|(name, _)| *name == way);
        found
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(_, samples)| median(samples))
    }

    fn print(&self) {
        print!("{:<34}", self.case);
        for (_, samples) in &self.ways {
            let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let high = samples.iter().copied().fold(0.0, f64::max);
            let spread = format!("{:.1} ({low:.1}-{high:.1})", median(samples));
            print!("{spread:>24}");
        }
        println!();
    }
}

#[derive(Debug, Serialize)]
struct Samples {
    rows: Vec<Row>,
}

/// Measures, prints and writes block.json.
pub(super) fn run(rounds: u32, idle: u64, only: Option<&str>) -> Result<bool> {
    let limits = limits()?.block;
    let coracle = startup::program()?;
    let folder = folder()?;
    let file = cached_file(&folder)?;
    let machines = Machines::new(&coracle, bare::IMAGE)?;
    let disks = drive::disks(&machines, &file)?;
    let rows = measure(&machines, &file, &disks, rounds, only)?;
    println!("thousands of requests a second, median of {rounds} rounds (least-most)");
    print!("{:<34}{:>24}{:>24}", "", native::NAME, native::BESIDE);
    disks.iter().for_each(|disk| print!("{:>24}", disk.name));
    println!();
    rows.iter().for_each(Row::print);
    let mut figures = figures(&rows, &limits);
    // Who asks for some cases compares two programs, and not all that is promised.
    if only.is_none() {
        figures.extend(streams(&machines, rounds, &limits)?);
        figures.extend(direct::figures(&machines, &file)?);
        figures.extend(cost::figures(&machines, &disks, &limits, idle)?);
    }
    let met = conclude("block", &figures, &Samples { rows })?;
    for extension in ["", "base", "cow"] {
        // A program that makes no deltas has left none.
        let _ = std::fs::remove_file(file.with_extension(extension));
    }
    Ok(met)
}

/// A file of other than zeroes, in the page cache. It is written in pieces of the size in which a
/// guest fills the copy-on-write drive: the host reads larger ones back faster.
fn cached_file(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("drive");
    let mut file = File::create(&path).with_context(|| path.display().to_string())?;
    let chunk: Vec<u8> = (0..FILL / 4).flat_map(u32::to_le_bytes).collect();
    for _ in 0..SPAN / u64::from(FILL) {
        file.write_all(&chunk).context("writing the drive")?;
    }
    // Write-back in the middle of a round would be measured too.
    file.sync_all().context("syncing the drive")?;
    Ok(path)
}

fn measure(
    machines: &Machines,
    file: &Path,
    disks: &[Disk],
    rounds: u32,
    only: Option<&str>,
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = CASES
        .iter()
        .map(|case| Row {
            case: case.name,
            ways: [native::NAME, native::BESIDE]
                .into_iter()
                .chain(disks.iter().map(|disk| disk.name))
                .map(|name| (name, Vec::new()))
                .collect(),
        })
        .collect();
    let wanted = |case: &Case| only.is_none_or(|text| case.name.contains(text));
    // The first round fills what is filled once, and is not counted.
    for round in 0..=rounds {
        for (case, row) in CASES.iter().zip(&mut rows).filter(|(case, _)| wanted(case)) {
            let load = case.load();
            let plain = native::both(file, &load)?;
            let guests = disks.iter().map(|disk| machines.block(disk, &load));
            for ((_, samples), rate) in row
                .ways
                .iter_mut()
                .zip(plain.map(Ok).into_iter().chain(guests))
            {
                let rate = rate?;
                if round > 0 {
                    samples.push(rate / 1000.0);
                }
            }
        }
    }
    rows.retain(|row| row.ways.iter().all(|(_, samples)| !samples.is_empty()));
    Ok(rows)
}

/// Streams through the vsock device, both ways.
fn streams(machines: &Machines, rounds: u32, limits: &BlockLimits) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, sends) in [
        ("vsock, host to guest, median", false),
        ("vsock, guest to host, median", true),
    ] {
        if let Err(why) = vsock::offered(machines) {
            println!("SKIPPED {name}: {why:#}");
            continue;
        }
        let samples: Result<Vec<f64>> = (0..rounds).map(|_| vsock::rate(machines, sends)).collect();
        let rate = median(&samples?);
        figures.push(if sends {
            Figure::told(name, "Gbit/s", rate)
        } else {
            Figure::least(name, "Gbit/s", rate, limits.vsock_gbit)
        });
    }
    Ok(figures)
}

/// What is promised of the rates: the better engine beside the loop, the overlay beside raw.
fn figures(rows: &[Row], limits: &BlockLimits) -> Vec<Figure> {
    let mut figures = Vec::new();
    for row in rows {
        let best = drive::ENGINES
            .iter()
            .filter_map(|name| row.median(name))
            .fold(0.0, f64::max);
        let Some(plain) = row.median(native::NAME) else {
            continue;
        };
        let ratio = match row.case {
            "random read 4 KiB, depth 1" => {
                let limit = limits.depth_1_thousands;
                figures.push(Figure::least(row.case, "k/s", best, limit));
                None
            }
            "random read 4 KiB, depth 32" => Some(limits.random_read),
            "random write 4 KiB, depth 32" => Some(limits.random_write),
            _ => Some(limits.sequential),
        };
        if let Some(limit) = ratio {
            figures.push(Figure::least(row.case, "loop", best / plain, limit));
            if let Some(beside) = row.median(native::BESIDE) {
                let ratio = best / beside;
                figures.push(Figure::told("  loop beside a busy CPU", "loop", ratio));
            }
        }
        if let (Some(overlay), Some(raw)) = (row.median(drive::OVERLAY), row.median(drive::RAW)) {
            let ratio = overlay / raw;
            figures.push(Figure::least(
                "  copy-on-write drive",
                "raw",
                ratio,
                limits.overlay,
            ));
        }
    }
    figures
}
