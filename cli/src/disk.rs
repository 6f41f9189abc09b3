//! `coracle disk`: the work on disk images is done in `devices::disk::overlay`; here it is asked
//! for and told of.

mod report;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use api::spec::{DiskFormat, SizeSpec};
use devices::disk::overlay::{self, BaseFormat, NewDelta, OverlayError, Rebase};

use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::print;

use report::{InfoReport, VerifyReport};

impl From<OverlayError> for Failure {
    fn from(error: OverlayError) -> Self {
        let host = error.is_host();
        let message = chain(&error);
        // These errors say what to do after a semicolon.
        let (problem, remedy) = message.split_once("; ").unwrap_or((&message, ""));
        match host {
            true => Self::host(
                problem,
                "check the disk's file system: free space, its health",
            ),
            false => Self::input(problem, remedy),
        }
    }
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Makes a delta over a base.
pub(crate) fn create_delta(
    path: &Path,
    base: PathBuf,
    format: DiskFormat,
    size: Option<&str>,
    cluster: Option<&str>,
) -> Result<Exit, Failure> {
    let new = NewDelta {
        base,
        format: base_format(format),
        capacity: size.map(|text| bytes("size", text)).transpose()?,
        cluster_bytes: cluster.map(cluster_bytes).transpose()?,
    };
    overlay::create(path, &new)?;
    Ok(Exit::Done)
}

/// Makes a raw image of zeroes.
pub(crate) fn create_raw(path: &Path, size: &str) -> Result<Exit, Failure> {
    overlay::create_raw(path, bytes("size", size)?)?;
    Ok(Exit::Done)
}

/// Tells what a delta is.
pub(crate) fn info(path: &Path, output: Output) -> Result<Exit, Failure> {
    let report = InfoReport::new(path, &overlay::info(path)?);
    print::out(&match output {
        Output::Json => print::json(&report)?,
        Output::Text => report.human(),
    })?;
    Ok(Exit::Done)
}

/// Checks a delta and all that is below it. The exit code tells whether it is sound.
pub(crate) fn verify(path: &Path, output: Output) -> Result<Exit, Failure> {
    let verified = overlay::verify(path)?;
    let report = VerifyReport::new(&verified);
    print::out(&match output {
        Output::Json => print::json(&report)?,
        Output::Text => report.human(path),
    })?;
    if verified.is_sound() {
        return Ok(Exit::Done);
    }
    let message = format!("disk {}: is damaged or has lost its base", path.display());
    let hint = "the report above says where; restore the files from copies, or drop the delta's \
                changes with `coracle disk reset`";
    Err(Failure::input(message, hint))
}

/// Merges a delta into its base, or all that it shows into a new raw image.
pub(crate) fn commit(path: &Path, into: Option<&Path>) -> Result<Exit, Failure> {
    let (committed, what) = match into {
        Some(into) => (overlay::export(path, into)?, "written"),
        None => (overlay::commit(path)?, "merged into the base"),
    };
    print::out(&format!("{} bytes {what}\n", committed.bytes))?;
    Ok(Exit::Done)
}

/// Moves a delta to another base.
pub(crate) fn rebase(
    path: &Path,
    base: PathBuf,
    format: DiskFormat,
    unchecked: bool,
) -> Result<Exit, Failure> {
    let to = Rebase {
        base,
        format: base_format(format),
        unchecked,
    };
    let rebased = overlay::rebase(path, &to)?;
    print::out(&format!(
        "{} clusters copied from the old base\n",
        rebased.copied
    ))?;
    Ok(Exit::Done)
}

/// Drops all that a delta holds.
pub(crate) fn reset(path: &Path) -> Result<Exit, Failure> {
    overlay::reset(path)?;
    Ok(Exit::Done)
}

fn base_format(format: DiskFormat) -> BaseFormat {
    match format {
        DiskFormat::Raw => BaseFormat::Raw,
        DiskFormat::Qcow2 => BaseFormat::Qcow2,
        DiskFormat::Cow => BaseFormat::Cow,
    }
}

fn bytes(field: &str, text: &str) -> Result<u64, Failure> {
    SizeSpec::Text(text.to_owned()).bytes().map_err(|error| {
        Failure::input(
            format!("{field} {text:?}: {error}"),
            format!("write {field} as a number with a unit, such as 512M or 10G"),
        )
    })
}

fn cluster_bytes(text: &str) -> Result<u32, Failure> {
    let bytes = bytes("cluster", text)?;
    let range = overlay::LEAST_CLUSTER_BYTES..=overlay::MOST_CLUSTER_BYTES;
    let good = u32::try_from(bytes).ok();
    good.filter(|bytes| bytes.is_power_of_two() && range.contains(bytes))
        .ok_or_else(|| {
            Failure::input(
                format!("cluster {text:?}: not a power of two from 4K to 1M"),
                "leave it out: the best size follows from the disk's",
            )
        })
}
