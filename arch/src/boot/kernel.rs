//! A parsed kernel: its format, segments and entries.

use linux_loader::bootparam::setup_header;
use linux_loader::elf::ELFMAG;

use super::{KernelError, ReadAt, bzimage, elf, read};

/// Format of a kernel file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFormat {
    /// An ELF for x86-64, such as Linux's vmlinux.
    Elf,
    /// Linux's packed image for x86.
    BzImage,
}

impl std::fmt::Display for KernelFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Elf => "an ELF",
            Self::BzImage => "a bzImage",
        })
    }
}

/// How the payload of a bzImage is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not packed.
    None,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// LZMA in the old `.lzma` container.
    Lzma,
    /// xz, with or without a branch filter.
    Xz,
    /// LZ4's legacy frame.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "unpacked",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// Where the bytes of the segments are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In the kernel file.
    File,
    /// Here: the ELF that was packed in a bzImage.
    Unpacked(Vec<u8>),
}

/// A part of the kernel to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of its program header.
    pub index: usize,
    /// Guest-physical address of the first byte.
    pub address: u64,
    /// Length in memory, in bytes; what the file does not fill is zero.
    pub memory_bytes: u64,
    /// First byte in the file or in the unpacked payload.
    pub offset: u64,
    /// Length in the file, in bytes; at most `memory_bytes`.
    pub file_bytes: u64,
}

impl Segment {
    /// First address behind the segment.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_bytes)
    }

    /// Whether `address` is one of the bytes that the file holds.
    #[must_use]
    pub(super) fn holds(&self, address: u64) -> bool {
        address
            .checked_sub(self.address)
            .is_some_and(|into| into < self.file_bytes)
    }
}

/// A kernel that was parsed and found to be sound.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(super) format: KernelFormat,
    pub(super) compression: Compression,
    pub(super) payload: Payload,
    pub(super) segments: Vec<Segment>,
    pub(super) entry64: Option<u64>,
    pub(super) pvh_entry: Option<u64>,
    pub(super) setup: Option<setup_header>,
}

impl Kernel {
    /// Parses an image, whose format is found by its magic numbers.
    ///
    /// # Errors
    /// What is wrong with the image, or what the host says when it cannot be read.
    pub fn open(image: &dyn ReadAt) -> Result<Self, KernelError> {
        match detect(image)? {
            KernelFormat::Elf => elf::open(image),
            KernelFormat::BzImage => bzimage::open(image),
        }
    }

    /// Like [`Kernel::open`] for an image that is claimed to have a format.
    ///
    /// # Errors
    /// Those of [`Kernel::open`], and [`KernelError::OtherFormat`].
    pub fn open_as(image: &dyn ReadAt, claimed: KernelFormat) -> Result<Self, KernelError> {
        let found = detect(image)?;
        if found != claimed {
            return Err(KernelError::OtherFormat { claimed, found });
        }
        Self::open(image)
    }

    /// Format of the file.
    #[must_use]
    pub fn format(&self) -> KernelFormat {
        self.format
    }

    /// How the payload was packed; [`Compression::None`] for an ELF.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Where the bytes of the segments are.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The payload itself: an unpacked one is large and is moved, not copied.
    #[must_use]
    pub fn into_payload(self) -> Payload {
        self.payload
    }

    /// Segments by ascending address; they do not overlap.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Physical address of the 64-bit entry.
    #[must_use]
    pub fn entry64(&self) -> Option<u64> {
        self.entry64
    }

    /// Physical address of the PVH entry.
    #[must_use]
    pub fn pvh_entry(&self) -> Option<u64> {
        self.pvh_entry
    }
}

/// Bytes that tell the formats apart: up to the end of a bzImage's magic number.
const PROBE: usize = bzimage::MAGIC_OFFSET + bzimage::MAGIC.len();

/// Magic numbers of files that people mistake for kernels.
const STRANGERS: [(&[u8], &str, &str); 8] = [
    (
        b"\x1f\x8b",
        "a gzip file",
        "unpack it with gunzip, or give the bzImage as it was installed",
    ),
    (
        b"\xfd7zXZ\0",
        "an xz file",
        "unpack it with unxz, or give the bzImage as it was installed",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "a zstd file",
        "unpack it with unzstd, or give the bzImage itself",
    ),
    (
        b"\x02\x21\x4c\x18",
        "an lz4 file",
        "unpack it with lz4 -d, or give the bzImage itself",
    ),
    (
        b"MZ",
        "an EFI program without Linux's setup header",
        "give the bzImage that is inside of it",
    ),
    (b"070701", "a cpio archive", "give it as the initrd"),
    (b"#!", "a script", "give an ELF vmlinux or a bzImage"),
    (
        b"!<arch>\n",
        "a package or library",
        "extract vmlinuz from it",
    ),
];

fn detect(image: &dyn ReadAt) -> Result<KernelFormat, KernelError> {
    let size = image.size();
    if size == 0 {
        return Err(KernelError::Empty);
    }
    let mut probe = [0; PROBE];
    let len = usize::try_from(size).map_or(PROBE, |size| size.min(PROBE));
    if let Some(head) = probe.get_mut(..len) {
        read::fill(image, head, 0, "the magic number")?;
    }
    if probe.starts_with(ELFMAG) {
        return Ok(KernelFormat::Elf);
    }
    if probe.ends_with(&bzimage::MAGIC) {
        return Ok(KernelFormat::BzImage);
    }
    for (magic, found, remedy) in STRANGERS {
        if probe.starts_with(magic) {
            return Err(KernelError::Unknown { found, remedy });
        }
    }
    if len < PROBE {
        let what = "a kernel's first header";
        return Err(KernelError::Truncated {
            what,
            end: PROBE as u64,
            size,
        });
    }
    Err(KernelError::Unknown {
        found: "neither an ELF nor a bzImage (no magic number of theirs)",
        remedy: "give the vmlinux or bzImage of an x86-64 kernel",
    })
}
