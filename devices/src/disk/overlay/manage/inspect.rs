//! Looks at deltas: what they say of themselves, and whether it is sound.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::disk::overlay::error::OverlayError;
use crate::disk::overlay::files::{
    MOST_DELTAS, compare, io_error, open, open_base, parse_header, read_start,
};
use crate::disk::overlay::header::{BaseFormat, COPIES, Header};
use crate::disk::overlay::layout::Layout;
use crate::disk::overlay::map::Survey;
use crate::disk::overlay::store::Store;
use crate::disk::raw::lock;

/// What is known of a delta without its base.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its header.
    pub header: Header,
    /// How many clusters its disk has.
    pub clusters: u64,
    /// How many of them are the delta's own, as far as they were flushed.
    pub own_clusters: u64,
    /// What its file takes on the host, in bytes.
    pub allocated_bytes: u64,
    /// Whether a virtual machine or a command has it at this moment.
    pub in_use: bool,
}

/// What is wrong with a delta or one below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// Whether the disk still reads as it should.
    pub harmless: bool,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// How many deltas were looked at.
    pub deltas: u64,
    /// How many checksums were computed.
    pub checksums: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Verified {
    /// Whether the disk can be used and reads as it should.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.iter().all(|problem| problem.harmless)
    }
}

/// Looks at a delta, though a machine has it.
///
/// # Errors
/// When it is none, or damaged.
pub fn info(path: &Path) -> Result<Info, OverlayError> {
    let file = open(path, false)?;
    let (header, layout) = parse_header(&file, path)?;
    let in_use = lock(&file, true).is_err();
    let survey = survey(&file, path, &header, layout)?;
    let map = survey.map();
    let metadata = file.metadata().map_err(|e| io_error(path, "look at", e))?;
    Ok(Info {
        clusters: layout.clusters,
        own_clusters: map.count(),
        allocated_bytes: metadata.blocks().saturating_mul(512),
        header,
        in_use,
    })
}

fn survey(
    file: &File,
    path: &Path,
    header: &Header,
    layout: Layout,
) -> Result<Survey, OverlayError> {
    Survey::read(
        layout.clusters,
        layout.map_blocks,
        &header.id,
        |block, pair| file.read_at(layout.slot(block, 0), pair),
    )
    .map_err(|error| io_error(path, "read the map of", error))
}

/// Checks every checksum of a delta and of all below it, and that their bases are what they were.
///
/// # Errors
/// When the file cannot be looked at; what is wrong with its content is in the result.
pub fn verify(path: &Path) -> Result<Verified, OverlayError> {
    let mut result = Verified::default();
    let mut next = path.to_owned();
    for _ in 0..MOST_DELTAS {
        let base = match one(&next, &mut result) {
            Ok(Some(base)) => base,
            Ok(None) => return Ok(result),
            Err(error @ (OverlayError::Io { .. } | OverlayError::Locked { .. })) => {
                return Err(error);
            }
            Err(error) if result.deltas == 0 => return Err(error),
            Err(error) => {
                result.problems.push(problem(&next, &error));
                return Ok(result);
            }
        };
        next = base;
    }
    let error = OverlayError::Deep { path: next.clone() };
    result.problems.push(problem(&next, &error));
    Ok(result)
}

/// One delta; the one below it, if its base is one.
fn one(path: &Path, result: &mut Verified) -> Result<Option<PathBuf>, OverlayError> {
    let file = open(path, false)?;
    crate::disk::overlay::files::lock_file(&file, path, true)?;
    let start = read_start(&file).map_err(|error| io_error(path, "read", error))?;
    let (header, layout) = parse_header(&file, path)?;
    result.deltas = result.deltas.saturating_add(1);
    let add = |result: &mut Verified, what: String, harmless| {
        let path = path.to_owned();
        result.problems.push(Problem {
            path,
            what,
            harmless,
        });
    };
    let survey = survey(&file, path, &header, layout)?;
    let sums = survey.checksums().saturating_add(COPIES as u64);
    result.checksums = result.checksums.saturating_add(sums);
    if Header::good_copies(&start) < COPIES {
        add(
            result,
            "one of the two copies of the header is damaged".to_owned(),
            true,
        );
    }
    for damaged in survey.damaged() {
        let what = format!("map block {} is damaged: {}", damaged.block, damaged.what);
        add(result, what, false);
    }
    for (block, _) in survey.map().torn() {
        let what = format!("the last write of map block {block} was cut short");
        add(result, what, true);
    }
    for block in survey.stale() {
        let what = format!("the older copy of map block {block} is broken");
        add(result, what, true);
    }
    if header.committing {
        add(
            result,
            "a commit was interrupted; repeat it".to_owned(),
            false,
        );
        return Ok(None);
    }
    let base = &header.base;
    match open_base(&base.path, base.format, 1) {
        Ok(open) => {
            let changed = compare(path, base, &open).err();
            result
                .problems
                .extend(changed.map(|error| problem(path, &error)));
        }
        // Its own turn comes next, with all that is wrong with it.
        Err(_) if base.format == BaseFormat::Cow && base.path.exists() => {}
        Err(error) => {
            result.problems.push(problem(&base.path, &error));
            return Ok(None);
        }
    }
    Ok((base.format == BaseFormat::Cow).then(|| base.path.clone()))
}

fn problem(path: &Path, error: &OverlayError) -> Problem {
    let text = error.to_string();
    let what = text
        .split_once(": ")
        .map_or(text.as_str(), |(_, what)| what);
    Problem {
        path: path.to_owned(),
        what: what.to_owned(),
        harmless: false,
    }
}
