//! Where every inode and every block of an EROFS image goes, before any byte is written.

use super::super::tree::{Content, Node, NodeId, Tree};
use super::{ErofsError, Fields, Options, SUPER_BYTES, SUPER_OFFSET, compact_fields};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
/// Bytes of an inode slot; an inode's number is its offset in slots.
const SLOT: u64 = 32;

/// One inode with its place.
pub(super) struct Placed<'a> {
    pub(super) node: &'a Node,
    /// Index into the tree's nodes.
    index: usize,
    /// The 32-bit inode number that `stat` shows.
    pub(super) number: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    /// Offset of the inode in the image.
    pub(super) offset: u64,
    /// Whether the rest after the full blocks follows the inode.
    pub(super) inline: bool,
    /// First block of the data in blocks; 0 when there is none.
    pub(super) first_block: u32,
    /// Blocks of data, the inline rest not counted.
    block_count: u32,
}

impl Placed<'_> {
    /// Bytes that sit in blocks of their own.
    fn block_bytes(&self) -> usize {
        let bytes = if self.inline {
            self.size / BLOCK * BLOCK
        } else {
            self.size
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// What follows the inode.
    pub(super) fn tail<'a>(&self, tree: &'a Tree, layout: &'a Layout<'_>) -> &'a [u8] {
        if !self.inline {
            return &[];
        }
        layout
            .data(tree, self.index)
            .get(self.block_bytes()..)
            .unwrap_or_default()
    }

    /// What goes into blocks.
    pub(super) fn blocks<'a>(&self, tree: &'a Tree, layout: &'a Layout<'_>) -> &'a [u8] {
        layout
            .data(tree, self.index)
            .get(..self.block_bytes())
            .unwrap_or_default()
    }
}

/// The places of everything.
pub(super) struct Layout<'a> {
    /// In the order of their offsets.
    pub(super) inodes: Vec<Placed<'a>>,
    pub(super) root_nid: u16,
    pub(super) block_count: u32,
    pub(super) total_bytes: u64,
    /// The bytes of each directory by node index; empty for other nodes.
    directories: Vec<Vec<u8>>,
}

impl<'a> Layout<'a> {
    pub(super) fn of(tree: &'a Tree, options: &Options) -> Result<Self, ErofsError> {
        let order = walk(tree);
        let mut inodes = Vec::with_capacity(order.len());
        let mut nids = vec![0; tree.nodes().len()];
        let mut end = (SUPER_OFFSET + SUPER_BYTES) as u64;
        for (number, visit) in (1..).zip(&order) {
            let Some(node) = tree.get(visit.id) else {
                continue;
            };
            let mut placed = measure(node, visit.id, number, tree);
            let bytes = if compact_fields(&placed, options).is_some() {
                32
            } else {
                64
            };
            end = place(&mut placed, end, bytes);
            if let Some(nid) = nids.get_mut(visit.id.index()) {
                *nid = placed.offset / SLOT;
            }
            inodes.push(placed);
        }
        let total_bytes = place_blocks(&mut inodes, end)?;
        let mut directories = vec![Vec::new(); tree.nodes().len()];
        for visit in &order {
            let Some(node) = tree.get(visit.id) else {
                continue;
            };
            if node.content == Content::Directory
                && let Some(bytes) = directories.get_mut(visit.id.index())
            {
                *bytes = directory(node, visit, tree, &nids);
            }
        }
        let block_count = u32::try_from(total_bytes / BLOCK)
            .map_err(|_| ErofsError::TooLarge { bytes: total_bytes })?;
        let root_nid = nids
            .first()
            .and_then(|&nid| u16::try_from(nid).ok())
            .unwrap_or(0);
        Ok(Self {
            inodes,
            root_nid,
            block_count,
            total_bytes,
            directories,
        })
    }

    fn data<'b>(&'b self, tree: &'b Tree, index: usize) -> &'b [u8] {
        match tree.nodes().get(index).map(|node| &node.content) {
            Some(Content::File(bytes) | Content::Symlink(bytes)) => bytes,
            Some(Content::Directory) => self.directories.get(index).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }
}

/// A node in the order of the image, with the directory that holds it.
struct Visit {
    id: NodeId,
    parent: NodeId,
}

/// Breadth first: the root comes first (its number has 16 bits only), and the inodes of one
/// directory are neighbours, which is what a listing reads.
fn walk(tree: &Tree) -> Vec<Visit> {
    let mut seen = vec![false; tree.nodes().len()];
    let mut order = vec![Visit {
        id: tree.root(),
        parent: tree.root(),
    }];
    let mut next = 0;
    while let Some(id) = order.get(next).map(|visit| visit.id) {
        next += 1;
        let Some(node) = tree.get(id) else { continue };
        for &child in node.children.values() {
            // A hard-linked file has one inode, at its first name.
            if let Some(seen) = seen.get_mut(child.index())
                && !std::mem::replace(seen, true)
            {
                order.push(Visit {
                    id: child,
                    parent: id,
                });
            }
        }
    }
    order
}

/// Everything about an inode but its place.
fn measure<'a>(node: &'a Node, id: NodeId, number: u32, tree: &Tree) -> Placed<'a> {
    let (size, links) = match &node.content {
        Content::File(bytes) | Content::Symlink(bytes) => (bytes.len() as u64, node.links),
        Content::Directory => {
            let below = node.children.values().filter(|&&child| {
                tree.get(child)
                    .is_some_and(|node| node.content == Content::Directory)
            });
            let below = u32::try_from(below.count()).unwrap_or(u32::MAX - 2);
            (directory_bytes(node), 2 + below)
        }
        _ => (0, node.links),
    };
    Placed {
        node,
        index: id.index(),
        number,
        links,
        size,
        offset: 0,
        inline: false,
        first_block: 0,
        block_count: 0,
    }
}

/// Puts an inode of `bytes` at or after `end`; returns the end of it and its inline data.
fn place(placed: &mut Placed<'_>, end: u64, bytes: u64) -> u64 {
    let rest = placed.size % BLOCK;
    placed.inline = rest != 0 && bytes + rest <= BLOCK;
    let whole = bytes + if placed.inline { rest } else { 0 };
    placed.offset = end.next_multiple_of(SLOT);
    if placed.offset % BLOCK + whole > BLOCK {
        placed.offset = placed.offset.next_multiple_of(BLOCK);
    }
    placed.offset + whole
}

/// Puts the data after the inodes; returns the size of the image.
fn place_blocks(inodes: &mut [Placed<'_>], end: u64) -> Result<u64, ErofsError> {
    let mut block = end.div_ceil(BLOCK);
    for placed in inodes {
        let count = if placed.inline {
            placed.size / BLOCK
        } else {
            placed.size.div_ceil(BLOCK)
        };
        let too_large = |_| ErofsError::TooLarge {
            bytes: (block + count).saturating_mul(BLOCK),
        };
        placed.block_count = u32::try_from(count).map_err(too_large)?;
        if count > 0 {
            placed.first_block = u32::try_from(block).map_err(too_large)?;
        }
        block += u64::from(placed.block_count);
    }
    Ok(block * BLOCK)
}

/// Bytes of `erofs_dirent`: inode number, offset of the name, type, reserved.
const ENTRY_BYTES: usize = 12;
const DIRECTORY_BLOCK: usize = 4096;

/// The names of a directory with `.` and `..` in their places, cut into blocks: entries first,
/// then the names, no entry across a block.
fn packed<'a>(node: &'a Node) -> Vec<Vec<&'a [u8]>> {
    let mut names: Vec<&'a [u8]> = node.children.keys().map(Vec::as_slice).collect();
    names.extend([b".".as_slice(), b"..".as_slice()]);
    names.sort_unstable();
    let mut blocks: Vec<Vec<&'a [u8]>> = Vec::new();
    let mut used = DIRECTORY_BLOCK;
    for name in names {
        used += ENTRY_BYTES + name.len();
        match blocks.last_mut() {
            Some(block) if used <= DIRECTORY_BLOCK => block.push(name),
            _ => {
                used = ENTRY_BYTES + name.len();
                blocks.push(vec![name]);
            }
        }
    }
    blocks
}

fn directory_bytes(node: &Node) -> u64 {
    let blocks = packed(node);
    let last = blocks.last().map_or(0, |block| {
        block.iter().map(|name| ENTRY_BYTES + name.len()).sum()
    });
    (blocks.len().saturating_sub(1) * DIRECTORY_BLOCK + last) as u64
}

/// The bytes of a directory, its last block not padded.
fn directory(node: &Node, visit: &Visit, tree: &Tree, nids: &[u64]) -> Vec<u8> {
    let mut out = Fields::default();
    for names in packed(node) {
        out.0
            .resize(out.0.len().next_multiple_of(DIRECTORY_BLOCK), 0);
        let mut name_at = names.len() * ENTRY_BYTES;
        for name in &names {
            let target = match *name {
                b"." => visit.id,
                b".." => visit.parent,
                name => node.children.get(name).copied().unwrap_or(visit.id),
            };
            let nid = nids.get(target.index()).copied().unwrap_or(0);
            // Less than a block, as `packed` made it.
            let offset = u16::try_from(name_at).unwrap_or(u16::MAX);
            out.u64(nid)
                .u16(offset)
                .bytes(&[kind_code(tree, target), 0]);
            name_at += name.len();
        }
        for name in names {
            out.bytes(name);
        }
    }
    out.0
}

/// The type of a directory entry (`EROFS_FT_…`).
fn kind_code(tree: &Tree, id: NodeId) -> u8 {
    match tree.get(id).map(|node| &node.content) {
        Some(Content::File(_)) => 1,
        Some(Content::Directory) => 2,
        Some(Content::CharDevice(_)) => 3,
        Some(Content::BlockDevice(_)) => 4,
        Some(Content::Fifo) => 5,
        Some(Content::Socket) => 6,
        Some(Content::Symlink(_)) => 7,
        None => 0,
    }
}
