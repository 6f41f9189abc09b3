//! The plain loop: one thread, one read or write after another, no ring and no guest. It runs
//! alone, and once more while another thread keeps a CPU busy as a guest's vCPU does: on hosts
//! whose CPUs share a core that alone costs a tenth, which is not the monitor's.

use anyhow::{Context, Result};
use harness::bare::ops::BlockLoad;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What tables call it.
pub(super) const NAME: &str = "plain loop";

/// The same beside a busy CPU.
pub(super) const BESIDE: &str = "loop, a CPU busy";

/// Both: requests a second alone, and beside a busy CPU.
pub(super) fn both(file: &Path, load: &BlockLoad) -> Result<[f64; 2]> {
    let alone = run(file, load)?;
    let over = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let beside = run(file, load);
        over.store(true, Ordering::Relaxed);
        beside
    })?;
    Ok([alone, beside])
}

/// Requests a second. The buffers are as many as the guest has, used in turn.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a fraction of a second"
)]
fn run(file: &Path, load: &BlockLoad) -> Result<f64> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .with_context(|| file.display().to_string())?;
    let block = usize::try_from(load.block)?;
    let mut buffers = vec![vec![0x5a; block]; usize::try_from(load.depth)?];
    let blocks = load.span / load.block;
    let (mut next, mut seed, mut done) = (0, 0x9e37_79b9_7f4a_7c15_u64, 0_u64);
    let started = Instant::now();
    'time: loop {
        for buffer in &mut buffers {
            let at = if load.random {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed % blocks
            } else {
                next = (next + 1) % blocks;
                next
            };
            if load.write {
                file.write_all_at(buffer, at * load.block)?;
            } else {
                file.read_exact_at(buffer, at * load.block)?;
            }
            done += 1;
        }
        if started.elapsed() >= load.time {
            break 'time;
        }
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}
