//! A delta moves to another base.

use std::path::{Path, PathBuf};

use super::PIECE_BYTES;
use super::create::{base_ref, real};
use crate::disk::overlay::base::{Base, copy_padded};
use crate::disk::overlay::delta::Delta;
use crate::disk::overlay::error::OverlayError;
use crate::disk::overlay::files::{
    Terms, io_error, load, locked_header, open, open_base, open_delta,
};
use crate::disk::overlay::header::{BaseFormat, Header};

/// Where a delta moves.
#[derive(Clone, Debug)]
pub struct Rebase {
    /// The new base.
    pub base: PathBuf,
    /// Its format.
    pub format: BaseFormat,
    /// Take the user's word that its content is that of the old one, which need not exist.
    pub unchecked: bool,
}

/// What a rebase did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rebased {
    /// Clusters that were copied from the old base because the new one differs there.
    pub copied: u64,
}

/// Moves a delta to another base; what it reads as does not change. Interrupted anywhere, it has
/// the old base or the new one.
///
/// # Errors
/// When the delta or a base cannot be used, or the host cannot write.
pub fn rebase(path: &Path, to: &Rebase) -> Result<Rebased, OverlayError> {
    let path = &real(path)?;
    if to.unchecked {
        return unchecked(path, to);
    }
    let terms = Terms {
        read_only: false,
        any_base: false,
    };
    let mut delta = open_delta(path, terms)?;
    let mut new = open_base(&to.base, to.format, 2)?;
    let header = moved(
        &delta.header().clone(),
        to,
        base_ref(&to.base, to.format, &new)?,
    )?;
    let copied = copy_differences(&mut delta, &mut *new.base)
        .and_then(|copied| delta.flush().map(|()| copied))
        .map_err(|error| io_error(path, "copy from the old base into", error))?;
    put_header(path, &mut delta, header)?;
    Ok(Rebased { copied })
}

fn unchecked(path: &Path, to: &Rebase) -> Result<Rebased, OverlayError> {
    let file = open(path, true)?;
    let header = locked_header(&file, path, false)?;
    if header.committing {
        let path = path.to_owned();
        return Err(OverlayError::Committing { path });
    }
    let new = open_base(&to.base, to.format, 2)?;
    let moved = moved(&header, to, base_ref(&to.base, to.format, &new)?)?;
    let mut delta = load(file, path, header, new.base, false)?;
    put_header(path, &mut delta, moved)?;
    Ok(Rebased { copied: 0 })
}

fn put_header(
    path: &Path,
    delta: &mut Delta<std::fs::File>,
    header: Header,
) -> Result<(), OverlayError> {
    delta
        .replace_header(header)
        .map_err(|error| io_error(path, "write the header of", error))
}

fn moved(
    header: &Header,
    to: &Rebase,
    base: crate::disk::overlay::header::BaseRef,
) -> Result<Header, OverlayError> {
    if base.bytes > header.capacity {
        return Err(OverlayError::Small {
            path: to.base.clone(),
            base: base.bytes,
            capacity: header.capacity,
            hint: "choose a base that is not larger",
        });
    }
    Ok(Header {
        base,
        ..header.clone()
    })
}

/// Copies what the delta lacks and the bases differ in.
fn copy_differences(delta: &mut Delta<std::fs::File>, new: &mut dyn Base) -> std::io::Result<u64> {
    let layout = delta.layout();
    let step = (PIECE_BYTES / layout.cluster_bytes.max(1)).max(1);
    let bytes = usize::try_from(step.saturating_mul(layout.cluster_bytes)).unwrap_or_default();
    let (mut old_piece, mut new_piece) = (vec![0; bytes], vec![0; bytes]);
    let cluster_bytes = delta_cluster(&layout);
    let (mut at, mut copied) = (0, 0_u64);
    while at < layout.clusters {
        let (present, count) = delta.map().run(at, layout.clusters.saturating_sub(at));
        if present {
            at = at.saturating_add(count);
            continue;
        }
        let count = count.min(step);
        let start = layout.start_of(at);
        copy_padded(delta.base_mut(), start, &mut old_piece)?;
        copy_padded(new, start, &mut new_piece)?;
        let pairs = old_piece
            .chunks(cluster_bytes)
            .zip(new_piece.chunks(cluster_bytes));
        let pairs = (at..at.saturating_add(count)).zip(pairs);
        for (cluster, _) in pairs.filter(|(_, (old, new))| old != new) {
            delta.adopt(cluster)?;
            copied = copied.saturating_add(1);
        }
        at = at.saturating_add(count);
    }
    Ok(copied)
}

fn delta_cluster(layout: &crate::disk::overlay::layout::Layout) -> usize {
    usize::try_from(layout.cluster_bytes).unwrap_or(1).max(1)
}
