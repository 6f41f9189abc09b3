//! Bounded reading of a kernel image: what is asked for is checked against the length first.

use super::{KernelError, ReadAt};

/// Checks that `len` bytes at `offset` are inside the image.
pub(super) fn check(
    image: &dyn ReadAt,
    offset: u64,
    len: u64,
    what: &'static str,
) -> Result<(), KernelError> {
    let size = image.size();
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        end => Err(KernelError::Truncated {
            what,
            end: end.unwrap_or(u64::MAX),
            size,
        }),
    }
}

/// Fills `buf` from `offset` on.
pub(super) fn fill(
    image: &dyn ReadAt,
    buf: &mut [u8],
    offset: u64,
    what: &'static str,
) -> Result<(), KernelError> {
    let len = buf.len() as u64;
    check(image, offset, len, what)?;
    image
        .read_exact_at(buf, offset)
        .map_err(|source| KernelError::Read {
            offset,
            len,
            source,
        })
}

/// Reads `len` bytes at `offset`; nothing is allocated before `len` is known to be there.
pub(super) fn bytes(
    image: &dyn ReadAt,
    offset: u64,
    len: u64,
    what: &'static str,
) -> Result<Vec<u8>, KernelError> {
    check(image, offset, len, what)?;
    let Ok(length) = usize::try_from(len) else {
        return Err(KernelError::Truncated {
            what,
            end: u64::MAX,
            size: image.size(),
        });
    };
    let mut buf = vec![0; length];
    fill(image, &mut buf, offset, what)?;
    Ok(buf)
}
