//! What the fuzz targets share: images that watch how they are read, and what must always hold.

pub mod device;
pub mod image;
pub mod state;

use std::cell::Cell;

use arch::boot::{BootPlan, Kernel, MemoryKind, Payload, ReadAt};
use arch::layout;
use cap::Cap;

/// The allocator of every target: it can be told to stop.
#[global_allocator]
pub static HEAP: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// Runs `job`; an allocation that takes it beyond `bytes` more than before ends the process.
pub fn bounded<T>(bytes: usize, job: impl FnOnce() -> T) -> T {
    HEAP.set_limit(HEAP.allocated().saturating_add(bytes))
        .unwrap();
    let result = job();
    HEAP.set_limit(usize::MAX).unwrap();
    result
}

/// An image that counts what is read of it and refuses to be read outside of itself.
#[derive(Debug)]
pub struct Watched<'a> {
    bytes: &'a [u8],
    read: Cell<u64>,
}

impl<'a> Watched<'a> {
    /// Watches `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            read: Cell::new(0),
        }
    }

    /// No byte is read more often than there are headers that may name it.
    pub fn check(&self) {
        let most = 4096 + 4 * self.bytes.len() as u64 + (1 << 20);
        assert!(
            self.read.get() <= most,
            "{} bytes read of {}",
            self.read.get(),
            self.bytes.len()
        );
    }
}

impl ReadAt for Watched<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.read.set(self.read.get() + buf.len() as u64);
        let from = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.bytes[from..from + buf.len()]);
        Ok(())
    }
}

/// What holds for every kernel that was accepted: sound segments, entries inside of them.
pub fn check_kernel(kernel: &Kernel, file_len: usize) {
    let size = match kernel.payload() {
        Payload::File => file_len as u64,
        Payload::Unpacked(bytes) => bytes.len() as u64,
    };
    let mut end = 0;
    for segment in kernel.segments() {
        assert!(segment.address >= end && segment.memory_bytes > 0);
        assert!(segment.file_bytes <= segment.memory_bytes);
        assert!(segment.offset.checked_add(segment.file_bytes).unwrap() <= size);
        end = segment.address.checked_add(segment.memory_bytes).unwrap();
    }
    let entries = [kernel.entry64(), kernel.pvh_entry()];
    assert!(entries.iter().any(Option::is_some));
    for entry in entries.into_iter().flatten() {
        let inside =
            |s: &&arch::boot::Segment| s.address <= entry && entry - s.address < s.file_bytes;
        assert!(kernel.segments().iter().find(inside).is_some());
    }
}

/// What holds for every plan: all in RAM, nothing twice, the map ascending and as large as memory.
pub fn check_plan(plan: &BootPlan, kernel: &Kernel, memory: u64) {
    let mut end = 0;
    let mut ram = 0;
    for range in &plan.memory_map {
        assert!(range.start >= end && range.len > 0);
        end = range.start + range.len;
        assert!(end <= layout::HOLE_START || range.start >= layout::HOLE_END);
        if range.kind == MemoryKind::Ram {
            ram += range.len;
        }
    }
    assert_eq!(ram + layout::HIGH_RAM - layout::EBDA, memory);
    let mut used: Vec<_> = plan
        .placements
        .iter()
        .map(|placement| (placement.address, placement.source.len(), placement.name))
        .collect();
    used.sort_unstable();
    let mut end = 0;
    for (address, len, name) in used {
        assert!(address >= end, "{name} overlaps what is before it");
        end = address.checked_add(len).unwrap();
        let inside = plan.memory_map.iter().any(|range| {
            let within = range.start <= address && end <= range.start + range.len;
            within && range.kind == MemoryKind::Ram
        });
        assert!(inside, "{name} is outside of RAM");
    }
    // No segment's zeros may be under another placement either.
    for segment in kernel.segments() {
        for placement in plan
            .placements
            .iter()
            .filter(|placement| placement.name != "kernel")
        {
            let apart = placement.address >= segment.end()
                || segment.address >= placement.address + placement.source.len();
            assert!(apart, "{} is inside of the kernel", placement.name);
        }
    }
}
