//! The devices that rows are played against.

use devices::testing::SharedDisk;
use devices::virtio::blk::Block;
use devices::virtio::rng::Rng;

use super::{F_EVENT_IDX, F_INDIRECT, F_VERSION_1, buffer, disk_image, request};
use crate::step::{Fixture, Step, Subject};

/// Entropy: one queue of buffers to write.
pub static RNG: Subject = Subject {
    name: "rng",
    queues: 1,
    features: F_VERSION_1,
    make: || Fixture::alone(Rng::new()),
    good: || {
        let mut steps = request(0, 0, &[(buffer(0), 64, true)]);
        steps.push(Step::ExpectUsed(0, vec![(0, 64)]));
        steps
    },
    boot: Some(&[]),
};

/// The identifier of [`BLOCK`]'s disk.
pub const DISK_ID: &str = "hostile-disk-of-20-b";

/// A disk of [`disk_image`], with one queue.
pub static BLOCK: Subject = Subject {
    name: "block",
    queues: 1,
    features: F_VERSION_1 | F_INDIRECT | F_EVENT_IDX,
    make: || {
        let disk = SharedDisk::new(disk_image());
        Fixture {
            device: Box::new(Block::new(Box::new(disk.clone()), DISK_ID)),
            backend: Box::new(disk),
        }
    },
    good: read_sector_3,
    boot: Some(&["--no-rng", "--disk", "{disk},id=hostile-disk-of-20-b"]),
};

/// The same disk, for rows that change it: what a machine's disk holds is not theirs to spoil.
pub static BLOCK_WRITTEN: Subject = Subject {
    name: "block-written",
    queues: 1,
    features: F_VERSION_1 | F_INDIRECT | F_EVENT_IDX,
    make: BLOCK.make,
    good: || {
        let (header, status) = (buffer(0xf000), buffer(0xf100));
        let data = buffer(0xf200);
        let pieces = [(header, 16, false), (data, 512, false), (status, 1, true)];
        let mut steps = vec![
            Step::Memory(header, block_header(1, 3)),
            Step::Memory(status, vec![0xee]),
            Step::Fill(data, 512, 4),
        ];
        steps.extend(request(0, 3, &pieces));
        steps.push(Step::ExpectUsed(0, vec![(3, 1)]));
        steps.push(Step::ExpectMemory(status, vec![0]));
        steps.push(Step::Fill(data, 512, 0));
        steps.extend(read_sector_3());
        steps
    },
    boot: None,
};

/// The same disk with four queues, for scripts.
pub static BLOCK_QUEUES: Subject = Subject {
    name: "block-queues",
    queues: 4,
    features: BLOCK_WRITTEN.features | 1 << 12,
    make: || {
        let disk = SharedDisk::new(disk_image());
        Fixture::alone(Block::new(Box::new(disk), DISK_ID).with_queues(4))
    },
    ..BLOCK_WRITTEN
};

/// The same disk, read-only.
pub static BLOCK_READ_ONLY: Subject = Subject {
    name: "block-ro",
    queues: 1,
    features: F_VERSION_1,
    make: || {
        let disk = SharedDisk::new(disk_image()).read_only();
        Fixture {
            device: Box::new(Block::new(Box::new(disk.clone()), DISK_ID)),
            backend: Box::new(disk),
        }
    },
    good: read_sector_3,
    boot: Some(&["--no-rng", "--disk", "{disk},ro,id=hostile-disk-of-20-b"]),
};

/// Reads a sector and compares it.
fn read_sector_3() -> Vec<Step> {
    let header = buffer(0xf000);
    let (data, status) = (header.plus(0x200), header.plus(0x100));
    let mut steps = vec![
        Step::Memory(header, block_header(0, 3)),
        Step::Memory(status, vec![0xee]),
    ];
    let pieces = [(header, 16, false), (data, 512, true), (status, 1, true)];
    steps.extend(request(0, 0, &pieces));
    steps.push(Step::ExpectUsed(0, vec![(0, 513)]));
    steps.push(Step::ExpectMemory(status, vec![0]));
    steps.push(Step::ExpectMemory(data, vec![4; 512]));
    steps
}

/// The header of a block request (virtio 1.2, 5.2.6).
#[must_use]
pub fn block_header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes
}
