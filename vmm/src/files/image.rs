//! A kernel image, in a file or in the monitor itself, and the one question that only its whole
//! text answers.

use std::io;
use std::os::unix::fs::FileExt;

use api::spec::KernelFormat;
use arch::boot::{self, Kernel, KernelError, Payload, ReadAt};
use memchr::memmem::Finder;

use super::OpenFile;
use crate::config::Config;

/// A kernel image.
#[derive(Debug)]
pub enum Image {
    /// The user's.
    File(OpenFile),
    /// The built-in guest's.
    Memory(&'static [u8]),
}

impl ReadAt for Image {
    fn size(&self) -> u64 {
        match self {
            Self::File(open) => open.len,
            Self::Memory(bytes) => bytes.size(),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(open) => open.file.read_exact_at(buf, offset),
            Self::Memory(bytes) => bytes.read_exact_at(buf, offset),
        }
    }
}

/// Parses the kernel of a machine, which must be what the user says it is.
///
/// # Errors
/// What is wrong with the image.
pub fn open_kernel(config: &Config, image: &Image) -> Result<Kernel, KernelError> {
    match config
        .kernel
        .as_ref()
        .map_or(KernelFormat::Auto, |kernel| kernel.format)
    {
        KernelFormat::Auto => Kernel::open(image),
        KernelFormat::Elf => Kernel::open_as(image, boot::KernelFormat::Elf),
        KernelFormat::BzImage => Kernel::open_as(image, boot::KernelFormat::BzImage),
    }
}

/// A message that every Linux kernel with ACPI has had in its text since 2.6, and that none
/// without has.
const ACPI_MARK: &[u8] = b"ACPI: Interpreter enabled";

/// How much of an image is in memory at a time.
const CHUNK: usize = 256 << 10;

/// Whether the kernel reads ACPI tables, told by a message in its text. Kernels that aren't
/// Linux count as not reading them. Reads the whole image: 2 ms for 10 MB in the page cache.
///
/// # Errors
/// When the image can't be read.
pub fn reads_acpi(kernel: &Kernel, image: &Image) -> io::Result<bool> {
    match kernel.payload() {
        Payload::Unpacked(bytes) => Ok(Finder::new(ACPI_MARK).find(bytes).is_some()),
        Payload::File => contains(image, ACPI_MARK),
    }
}

/// Whether `needle` is anywhere in `image`; chunks overlap by what a match could straddle.
fn contains(image: &dyn ReadAt, needle: &[u8]) -> io::Result<bool> {
    let finder = Finder::new(needle);
    let overlap = needle.len().saturating_sub(1) as u64;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < image.size() {
        let left = image.size() - at;
        let take = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let (chunk, _) = buffer.split_at_mut(take);
        image.read_exact_at(chunk, at)?;
        if finder.find(chunk).is_some() {
            return Ok(true);
        }
        if take as u64 == left {
            return Ok(false);
        }
        at += take as u64 - overlap;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mark_across_chunks() {
        for at in [
            0,
            100,
            CHUNK - ACPI_MARK.len(),
            CHUNK - 7,
            CHUNK,
            3 * CHUNK - 1,
        ] {
            let mut text = vec![b'A'; 4 * CHUNK];
            text[at..at + ACPI_MARK.len()].copy_from_slice(ACPI_MARK);
            assert!(contains(&text, ACPI_MARK).unwrap(), "{at}");
            text.truncate(at + ACPI_MARK.len());
            assert!(contains(&text, ACPI_MARK).unwrap(), "{at}, at the end");
            text.pop();
            assert!(!contains(&text, ACPI_MARK).unwrap(), "{at}, cut");
        }
        assert!(!contains(&Vec::new(), ACPI_MARK).unwrap());
    }
}
