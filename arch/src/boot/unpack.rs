//! Unpacks the payload of a bzImage on the host, with bounds on its size and on memory.

use std::io::Read;

use bzip2_rs::DecoderReader;
use flate2::read::GzDecoder;
use lzma_rust2::{LzmaReader, XzReader};
use ruzstd::decoding::StreamingDecoder;

use super::{Compression, KernelError};

/// Most bytes that a payload may expand to.
const UNPACKED_MAX: u64 = 512 << 20;
/// Most memory that a decoder may take for its window, in KiB: Linux packs with up to 128 MiB.
const WINDOW_MAX_KIB: u32 = 160 << 10;
/// The same for Zstandard, in bytes.
const WINDOW_MAX: u64 = 160 << 20;
/// Bytes of the little-endian word behind the payload that holds its unpacked size.
const SIZE_WORD: usize = 4;
/// Most that is reserved before anything was unpacked, as a multiple of the packed size.
const RESERVE_RATIO: usize = 16;
/// Least growth of what was unpacked, in bytes.
const LEAST_GROWTH: usize = 64 << 10;
/// Magic number of LZ4's legacy frame.
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Unpacked size of every block but the last in LZ4's legacy frame.
const LZ4_BLOCK: usize = 8 << 20;

/// First bytes of a payload, and how it is packed.
const MAGICS: [(&[u8], Compression); 7] = [
    (b"\x7fELF", Compression::None),
    (b"\x1f\x8b", Compression::Gzip),
    (b"BZh", Compression::Bzip2),
    (b"\x5d\0\0", Compression::Lzma),
    (b"\xfd7zXZ\0", Compression::Xz),
    (&LZ4_LEGACY, Compression::Lz4),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
];

/// Finds out how `packed` is packed, and unpacks it.
///
/// The last word of `packed` is the unpacked size, modulo 4 GiB: nothing is unpacked beyond it.
pub(super) fn unpack(packed: &[u8]) -> Result<(Compression, Vec<u8>), KernelError> {
    let compression = detect(packed)?;
    if compression == Compression::None {
        return Ok((compression, packed.to_vec()));
    }
    let Some((stream, size)) = packed.split_last_chunk::<SIZE_WORD>() else {
        return Err(unusable(
            compression,
            "it is shorter than its size word".into(),
        ));
    };
    let size = u32::from_le_bytes(*size);
    if u64::from(size) > UNPACKED_MAX {
        return Err(KernelError::TooBig {
            compression,
            size,
            limit: UNPACKED_MAX,
        });
    }
    // gzip's own last word is the size: it belongs to the stream.
    let stream = if compression == Compression::Gzip {
        packed
    } else {
        stream
    };
    let unpacked = decode(compression, stream, size)?;
    let found = unpacked.len() as u64;
    if found < u64::from(size) {
        let reason = format!("it has {found} bytes and its size word says {size}");
        return Err(unusable(compression, reason));
    }
    Ok((compression, unpacked))
}

fn unusable(compression: Compression, reason: String) -> KernelError {
    KernelError::Payload {
        compression,
        reason,
    }
}

fn detect(packed: &[u8]) -> Result<Compression, KernelError> {
    if let Some((_, found)) = MAGICS.iter().find(|(magic, _)| packed.starts_with(magic)) {
        return Ok(*found);
    }
    let mut magic = [0; 6];
    for (to, from) in magic.iter_mut().zip(packed) {
        *to = *from;
    }
    let name = if magic.starts_with(b"\x89LZO") {
        "which is lzo"
    } else {
        "which is unknown"
    };
    Err(KernelError::Compression { magic, name })
}

/// Unpacks `stream` to at most `size` bytes.
fn decode(compression: Compression, stream: &[u8], size: u32) -> Result<Vec<u8>, KernelError> {
    let fail = |error: &dyn std::fmt::Display| unusable(compression, error.to_string());
    let mut out = Output::new(compression, stream.len(), size)?;
    match compression {
        Compression::None => out.fill(stream)?,
        Compression::Gzip => out.fill(GzDecoder::new(stream))?,
        Compression::Bzip2 => out.fill(DecoderReader::new(stream))?,
        Compression::Lzma => {
            let reader = LzmaReader::new_mem_limit(stream, WINDOW_MAX_KIB, None);
            out.fill(reader.map_err(|error| fail(&error))?)?;
        }
        Compression::Xz => out.fill(XzReader::new_mem_limit(stream, false, WINDOW_MAX_KIB))?,
        Compression::Lz4 => lz4(stream, &mut out)?,
        Compression::Zstd => zstd(stream, &mut out)?,
    }
    Ok(out.bytes)
}

/// What was unpacked so far, and how much it may become.
struct Output {
    compression: Compression,
    bytes: Vec<u8>,
    size: usize,
}

impl Output {
    fn new(compression: Compression, packed: usize, size: u32) -> Result<Self, KernelError> {
        let Ok(size) = usize::try_from(size) else {
            return Err(KernelError::TooBig {
                compression,
                size,
                limit: UNPACKED_MAX,
            });
        };
        let mut out = Self {
            compression,
            bytes: Vec::new(),
            size,
        };
        // One byte more than the size, so that the end is found without growing.
        out.reserve((size + 1).min(packed.saturating_mul(RESERVE_RATIO)))?;
        Ok(out)
    }

    fn reserve(&mut self, more: usize) -> Result<(), KernelError> {
        self.bytes.try_reserve_exact(more).map_err(|error| {
            unusable(
                self.compression,
                format!("no host memory for {more} bytes ({error})"),
            )
        })
    }

    /// Unpacks all of `reader`, up to one byte more than there should be.
    fn fill(&mut self, mut reader: impl Read) -> Result<(), KernelError> {
        let limit = self.size + 1;
        while self.bytes.len() < limit {
            let spare = self.bytes.capacity().min(limit) - self.bytes.len();
            if spare == 0 {
                let left = limit - self.bytes.len();
                self.reserve(self.bytes.len().max(LEAST_GROWTH).min(left))?;
                continue;
            }
            let read = reader
                .by_ref()
                .take(spare as u64)
                .read_to_end(&mut self.bytes)
                .map_err(|error| unusable(self.compression, error.to_string()))?;
            if read < spare {
                break;
            }
        }
        self.check()
    }

    fn check(&self) -> Result<(), KernelError> {
        if self.bytes.len() > self.size {
            let reason = format!("it expands beyond the {} bytes of its size word", self.size);
            return Err(unusable(self.compression, reason));
        }
        Ok(())
    }
}

/// Unpacks one frame of Zstandard; the decoder leaves the comparison of checksums to its user.
fn zstd(stream: &[u8], out: &mut Output) -> Result<(), KernelError> {
    let mut reader = StreamingDecoder::new_with_max_window_size(stream, WINDOW_MAX)
        .map_err(|error| unusable(out.compression, error.to_string()))?;
    out.fill(&mut reader)?;
    let stated = reader.decoder.get_checksum_from_data();
    let found = reader.decoder.get_calculated_checksum();
    if stated.is_some() && stated != found {
        return Err(unusable(out.compression, "its checksum is wrong".into()));
    }
    Ok(())
}

/// Unpacks LZ4's legacy frame: blocks with their packed length in front, no checksum, no end mark.
fn lz4(stream: &[u8], out: &mut Output) -> Result<(), KernelError> {
    let mut rest = stream;
    while let Some((word, tail)) = rest.split_first_chunk::<4>() {
        rest = tail;
        // Another frame may follow directly.
        if *word == LZ4_LEGACY {
            continue;
        }
        let len = usize::try_from(u32::from_le_bytes(*word)).unwrap_or(usize::MAX);
        let Some((block, tail)) = rest.split_at_checked(len) else {
            let reason = format!(
                "a block of {len} bytes is longer than the {} left",
                rest.len()
            );
            return Err(unusable(out.compression, reason));
        };
        rest = tail;
        lz4_block(block, out)?;
        out.check()?;
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(unusable(
        out.compression,
        format!("{} bytes are left behind its end", rest.len()),
    ))
}

fn lz4_block(block: &[u8], out: &mut Output) -> Result<(), KernelError> {
    let start = out.bytes.len();
    // A byte expands to at most 255; one more byte than allowed shows that there is too much.
    let room = (out.size - start + 1)
        .min(LZ4_BLOCK)
        .min(block.len().saturating_mul(255));
    out.reserve(room)?;
    out.bytes.resize(start + room, 0);
    let target = out.bytes.get_mut(start..).unwrap_or_default();
    let written = lz4_flex::block::decompress_into(block, target)
        .map_err(|error| unusable(out.compression, error.to_string()))?;
    out.bytes.truncate(start + written);
    Ok(())
}

#[cfg(test)]
mod tests;
