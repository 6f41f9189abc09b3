//! Both ends of the cases about what a drive keeps. As PID 1 of a guest it does what `lab.do=`
//! says; otherwise it starts those guests: `lab-disk space KIND OPTIONS ARGUMENT…` or
//! `lab-disk kills KIND OPTIONS POINTS SEED`, where `-` stands for no options.

use anyhow::{Context, Result, bail};
use lab::disk::{guest, kills, space};
use rustix::system::{RebootCommand, reboot};

fn main() -> Result<()> {
    if std::process::id() == 1 {
        if let Err(error) = guest::run() {
            println!("lab-disk: wrong: {error:#}");
        }
        return reboot(RebootCommand::Restart).context("rebooting");
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["space", kind, options, more @ ..] => space::run(kind, given(options), more),
        ["kills", kind, options, points, seed] => {
            let points = points.parse().context("a number of points")?;
            kills::run(
                kind,
                given(options),
                points,
                seed.parse().context("a seed")?,
            )
        }
        other => bail!("no such work: {other:?}"),
    }
}

fn given(options: &str) -> &str {
    if options == "-" { "" } else { options }
}
