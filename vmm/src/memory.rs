//! Guest memory: private anonymous pages, or huge pages, mapped once and filled from the plan.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::sync::Arc;

use arch::boot::{Placement, Source};
use devices::GuestRam;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion,
};

/// Guest memory that can't be had or filled.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// mmap(2) refused.
    #[error("mapping {bytes} bytes of guest memory failed{}", huge(*hugepages))]
    Map {
        /// Bytes of the region.
        bytes: u64,
        /// Whether huge pages were asked for.
        hugepages: bool,
        /// The host's reason.
        #[source]
        cause: MmapRegionError,
    },
    /// Two regions overlap: a fault of the plan.
    #[error("the plan's memory regions overlap")]
    Overlap,
    /// A file ended early or could not be read while it was loaded.
    #[error("loading {name}, {bytes} bytes to {address:#x}, failed: the file changed or ended")]
    Load {
        /// What was loaded.
        name: &'static str,
        /// Where to.
        address: u64,
        /// How much.
        bytes: u64,
        /// The host's reason.
        #[source]
        cause: std::io::Error,
    },
    /// A placement outside RAM: a fault of the plan.
    #[error("{name} at {address:#x} lies outside the guest's memory")]
    Outside {
        /// What was placed.
        name: &'static str,
        /// Where.
        address: u64,
    },
}

fn huge(hugepages: bool) -> &'static str {
    if hugepages {
        ": are enough huge pages reserved? see /proc/sys/vm/nr_hugepages"
    } else {
        ""
    }
}

/// Maps the guest's memory, all zeros.
///
/// # Errors
/// [`MemoryError::Map`] with the host's reason.
pub(crate) fn map(ranges: &[(u64, u64)], hugepages: bool) -> Result<GuestRam, MemoryError> {
    let mut regions = Vec::with_capacity(ranges.len());
    for &(start, bytes) in ranges {
        let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // Reserved at once where huge pages are asked for: a shortage shows here and not as a
        // SIGBUS while the guest runs.
        flags |= if hugepages {
            // This size and not the host's default, which may be 1 GiB.
            libc::MAP_HUGETLB | libc::MAP_HUGE_2MB
        } else {
            libc::MAP_NORESERVE
        };
        let region = region(start, bytes, None, flags);
        regions.push(region.map_err(|cause| MemoryError::Map {
            bytes,
            hugepages,
            cause,
        })?);
    }
    whole(regions)
}

/// Maps the guest's memory as `file` holds it, one range after the other. What the guest changes
/// stays in this process.
///
/// # Errors
/// [`MemoryError::Map`] with the host's reason.
pub(crate) fn map_file(ranges: &[(u64, u64)], file: &Arc<File>) -> Result<GuestRam, MemoryError> {
    let mut regions = Vec::with_capacity(ranges.len());
    let mut at = 0;
    for &(start, bytes) in ranges {
        let place = FileOffset::from_arc(Arc::clone(file), at);
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        let region = region(start, bytes, Some(place), flags);
        regions.push(region.map_err(|cause| MemoryError::Map {
            bytes,
            hugepages: false,
            cause,
        })?);
        at += bytes;
    }
    whole(regions)
}

fn region(
    start: u64,
    bytes: u64,
    file: Option<FileOffset>,
    flags: i32,
) -> Result<GuestRegionMmap, MmapRegionError> {
    let size = usize::try_from(bytes).expect("invariant: 64-bit host");
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let region = MmapRegion::build(file, size, rights, flags)?;
    Ok(GuestRegionMmap::new(region, GuestAddress(start))
        .expect("invariant: the plan's ranges end below 2^64"))
}

fn whole(regions: Vec<GuestRegionMmap>) -> Result<GuestRam, MemoryError> {
    let memory = GuestMemoryMmap::from_regions(regions).map_err(|_| MemoryError::Overlap)?;
    Ok(GuestRam::from(Arc::new(memory)))
}

/// Where the bytes of a kernel come from.
#[derive(Debug)]
pub enum KernelBytes {
    /// An ELF file, read straight into guest memory.
    File(File),
    /// An image that is part of this program.
    Embedded(&'static [u8]),
    /// A payload that was unpacked on the host.
    Unpacked(Vec<u8>),
}

/// Copies everything that the plan places into the guest's memory.
///
/// # Errors
/// [`MemoryError`] names what could not be placed.
pub(crate) fn fill<'a>(
    ram: &GuestRam,
    placements: impl IntoIterator<Item = &'a Placement>,
    kernel: &mut KernelBytes,
    initrd: Option<&File>,
) -> Result<(), MemoryError> {
    for placement in placements {
        match &placement.source {
            Source::Bytes(bytes) => write(ram, placement, bytes)?,
            Source::Kernel { offset, len } => match kernel {
                KernelBytes::File(file) => read(ram, placement, file, *offset, *len)?,
                KernelBytes::Embedded(image) => {
                    write(ram, placement, part(image, *offset, *len, placement)?)?;
                }
                KernelBytes::Unpacked(image) => {
                    write(ram, placement, part(image, *offset, *len, placement)?)?;
                }
            },
            Source::Initrd { len } => {
                let file = initrd.expect("invariant: a plan places an initrd only if there is one");
                read(ram, placement, file, 0, *len)?;
            }
        }
    }
    Ok(())
}

fn part<'a>(
    image: &'a [u8],
    offset: u64,
    len: u64,
    placement: &Placement,
) -> Result<&'a [u8], MemoryError> {
    let range = usize::try_from(offset)
        .ok()
        .zip(usize::try_from(offset + len).ok());
    range
        .and_then(|(start, end)| image.get(start..end))
        .ok_or(MemoryError::Outside {
            name: placement.name,
            address: placement.address,
        })
}

fn write(ram: &GuestRam, placement: &Placement, bytes: &[u8]) -> Result<(), MemoryError> {
    let outside = MemoryError::Outside {
        name: placement.name,
        address: placement.address,
    };
    ram.write_bytes(placement.address, bytes)
        .map_err(|_| outside)
}

fn read(
    ram: &GuestRam,
    placement: &Placement,
    mut file: &File,
    offset: u64,
    len: u64,
) -> Result<(), MemoryError> {
    let (name, address) = (placement.name, placement.address);
    let load = |cause| MemoryError::Load {
        name,
        address,
        bytes: len,
        cause,
    };
    file.seek(SeekFrom::Start(offset)).map_err(load)?;
    let count = usize::try_from(len).expect("invariant: 64-bit host");
    if !ram.contains(address, len) {
        return Err(MemoryError::Outside { name, address });
    }
    // The kernel writes straight into guest memory: no copy in between.
    ram.memory()
        .read_exact_volatile_from(GuestAddress(address), &mut file, count)
        .map_err(|cause| {
            load(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                cause.to_string(),
            ))
        })
}
