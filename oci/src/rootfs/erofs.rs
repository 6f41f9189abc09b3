//! Writes an EROFS image, uncompressed, as a pure function from a tree to bytes.
//!
//! The format is the kernel's (`fs/erofs/erofs_fs.h`, Linux 5.4 and later): a super block at
//! byte 1024, inodes in 32-byte slots numbered by their offset, then the blocks of data. What
//! is shorter than a block, or the rest after full blocks, sits behind its inode (tail packing)
//! when both fit in one block, so that a small file costs no block of its own.

mod layout;

use thiserror::Error;

use self::layout::{BLOCK, Layout, Placed};
use super::tree::{Content, DeviceNumber, Node, Tree};

/// Properties of the whole image.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Identifies the file system; zero means none.
    pub uuid: [u8; 16],
    /// Name of the file system, NUL-padded.
    pub volume_name: [u8; 16],
    /// Time of every file whose own time is the same, in seconds since 1970. Files of this time
    /// have the short form of an inode.
    pub build_time_s: u64,
}

/// Why a tree cannot become an image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ErofsError {
    /// More than 2^32 blocks of 4 KiB.
    #[error("the image would have {bytes} bytes; EROFS with 4 KiB blocks ends at 16 TiB")]
    TooLarge {
        /// Bytes that the image would have had.
        bytes: u64,
    },
    /// A device number that Linux cannot express.
    #[error("device number {major}:{minor} is too large (12 and 20 bits)")]
    BadDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

const MAGIC: u32 = 0xe0f5_e1e2;
const SUPER_OFFSET: usize = 1024;
const SUPER_BYTES: usize = 128;
/// The super block carries a checksum.
const FEATURE_CHECKSUM: u32 = 1;

const LAYOUT_PLAIN: u16 = 0;
const LAYOUT_INLINE: u16 = 2;

/// The image of `tree`; the same tree and options give the same bytes.
///
/// # Errors
/// A tree that the format cannot hold.
pub fn write(tree: &Tree, options: &Options) -> Result<Vec<u8>, ErofsError> {
    let layout = Layout::of(tree, options)?;
    let mut image = vec![0; SUPER_OFFSET + SUPER_BYTES];
    for placed in &layout.inodes {
        pad_to(&mut image, placed.offset);
        image.extend_from_slice(&inode(placed, options)?);
        image.extend_from_slice(placed.tail(tree, &layout));
    }
    for placed in &layout.inodes {
        let blocks = placed.blocks(tree, &layout);
        if !blocks.is_empty() {
            pad_to(&mut image, u64::from(placed.first_block) * BLOCK);
            image.extend_from_slice(blocks);
        }
    }
    pad_to(&mut image, layout.total_bytes);
    let head = super_block(&layout, options, &image);
    if let Some(place) = image.get_mut(SUPER_OFFSET..SUPER_OFFSET + SUPER_BYTES) {
        place.copy_from_slice(&head);
    }
    Ok(image)
}

fn pad_to(image: &mut Vec<u8>, offset: u64) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    image.resize(offset.max(image.len()), 0);
}

/// `erofs_super_block`, with its checksum over the rest of the first block as in `image`.
fn super_block(layout: &Layout, options: &Options, image: &[u8]) -> [u8; SUPER_BYTES] {
    let with = |checksum: u32| {
        let mut out = Fields::default();
        out.u32(MAGIC).u32(checksum).u32(FEATURE_CHECKSUM);
        out.bytes(&[12, 0]); // 2^12 bytes a block, no further super block slots
        out.u16(layout.root_nid)
            .u64(layout.inodes.len() as u64)
            .u64(options.build_time_s);
        out.u32(0).u32(layout.block_count).u32(0).u32(0); // ns, blocks, metadata, xattrs
        out.bytes(&options.uuid).bytes(&options.volume_name);
        let mut bytes = [0; SUPER_BYTES];
        for (to, from) in bytes.iter_mut().zip(&out.0) {
            *to = *from;
        }
        bytes
    };
    let rest = image.get(SUPER_OFFSET + SUPER_BYTES..).unwrap_or_default();
    let block = 4096 - SUPER_OFFSET - SUPER_BYTES;
    let covered = with(0).into_iter().chain(rest.iter().copied().take(block));
    with(crc32c(covered))
}

/// CRC-32C without the final inversion, as the kernel checks it.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// `erofs_inode_compact` (32 bytes) or `erofs_inode_extended` (64 bytes).
fn inode(placed: &Placed<'_>, options: &Options) -> Result<Vec<u8>, ErofsError> {
    let node = placed.node;
    let data = match node.content {
        Content::CharDevice(number) | Content::BlockDevice(number) => device(number)?,
        _ => placed.first_block,
    };
    let form = if placed.inline {
        LAYOUT_INLINE
    } else {
        LAYOUT_PLAIN
    } << 1;
    let mode = kind_bits(node) | (node.meta.mode & 0o7777);
    let mut out = Fields::default();
    match compact_fields(placed, options) {
        Some(short) => {
            out.u16(form)
                .u16(0)
                .u16(mode)
                .u16(short.links)
                .u32(short.size)
                .u32(0);
            out.u32(data)
                .u32(placed.number)
                .u16(short.uid)
                .u16(short.gid)
                .u32(0);
        }
        None => {
            out.u16(form | 1)
                .u16(0)
                .u16(mode)
                .u16(0)
                .u64(placed.size)
                .u32(data);
            out.u32(placed.number).u32(node.meta.uid).u32(node.meta.gid);
            out.u64(node.meta.mtime_s)
                .u32(0)
                .u32(placed.links)
                .bytes(&[0; 16]);
        }
    }
    Ok(out.0)
}

/// What the short form of an inode has only 16 or 32 bits for.
struct Short {
    links: u16,
    size: u32,
    uid: u16,
    gid: u16,
}

/// The short form if everything fits; it takes its time from the super block.
fn compact_fields(placed: &Placed<'_>, options: &Options) -> Option<Short> {
    let meta = &placed.node.meta;
    (meta.mtime_s == options.build_time_s).then_some(())?;
    Some(Short {
        links: u16::try_from(placed.links).ok()?,
        size: u32::try_from(placed.size).ok()?,
        uid: u16::try_from(meta.uid).ok()?,
        gid: u16::try_from(meta.gid).ok()?,
    })
}

/// The kernel's `new_encode_dev`.
fn device(number: DeviceNumber) -> Result<u32, ErofsError> {
    let DeviceNumber { major, minor } = number;
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(ErofsError::BadDevice { major, minor });
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// The file type bits of `st_mode`.
fn kind_bits(node: &Node) -> u16 {
    match node.content {
        Content::Directory => 0o040_000,
        Content::File(_) => 0o100_000,
        Content::Symlink(_) => 0o120_000,
        Content::CharDevice(_) => 0o020_000,
        Content::BlockDevice(_) => 0o060_000,
        Content::Fifo => 0o010_000,
        Content::Socket => 0o140_000,
    }
}

/// Little-endian fields in the order of a structure.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
}

#[cfg(test)]
mod tests;
