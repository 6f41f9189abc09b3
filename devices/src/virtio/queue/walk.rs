//! The way along a chain: every descriptor is copied and checked.

use virtio_queue::desc::split::Descriptor;

use super::{DESCRIPTOR_BYTES, QueueBroken};
use crate::ram::GuestRam;
use crate::virtio::chain::{Chain, Span};

/// A chain that is being copied.
pub(super) struct Walk<'a> {
    pub(super) ram: &'a GuestRam,
    pub(super) table: u64,
    pub(super) table_size: u16,
    pub(super) queue_size: u16,
    pub(super) indirect_allowed: bool,
    pub(super) spans: Vec<Span>,
    pub(super) split: Option<usize>,
    pub(super) readable_bytes: u32,
    pub(super) writable_bytes: u32,
}

impl Walk<'_> {
    pub(super) fn run(mut self, head: u16) -> Result<Chain, QueueBroken> {
        let mut index = head;
        let mut count = 0_u16;
        loop {
            let descriptor = self.descriptor(index)?;
            if descriptor.refers_to_indirect_table() {
                self.enter_table(&descriptor)?;
                index = 0;
                continue;
            }
            if count == self.queue_size {
                let size = self.queue_size;
                return Err(QueueBroken::TooLong { size });
            }
            count = count.saturating_add(1);
            self.add(&descriptor)?;
            if !descriptor.has_next() {
                break;
            }
            index = descriptor.next();
        }
        let split = self.split.unwrap_or(self.spans.len());
        Ok(Chain::new(head, self.spans, split, self.writable_bytes))
    }

    fn descriptor(&self, index: u16) -> Result<Descriptor, QueueBroken> {
        let size = self.table_size;
        if index >= size {
            return Err(QueueBroken::NoDescriptor { index, size });
        }
        // The table lies wholly in memory, so neither the sum nor the read can fail.
        let at = u64::from(index) * u64::from(DESCRIPTOR_BYTES);
        let at = self.table.wrapping_add(at);
        self.ram.read(at).map_err(|_| QueueBroken::Ring)
    }

    /// Goes on in the table that a descriptor points to; its write flag means nothing there
    /// (2.7.5.3.2).
    fn enter_table(&mut self, descriptor: &Descriptor) -> Result<(), QueueBroken> {
        if !self.indirect_allowed || descriptor.has_next() {
            return Err(QueueBroken::Indirect);
        }
        let (at, len) = (descriptor.addr().0, descriptor.len());
        let entries = len / DESCRIPTOR_BYTES;
        let table_size = u16::try_from(entries).unwrap_or(u16::MAX);
        if entries == 0 || !len.is_multiple_of(DESCRIPTOR_BYTES) || entries > self.queue_size.into()
        {
            return Err(QueueBroken::IndirectSize { len });
        }
        if !self.ram.contains(at, len.into()) {
            return Err(QueueBroken::NotInRam { at, len });
        }
        // A table within the table is refused.
        self.indirect_allowed = false;
        self.table = at;
        self.table_size = table_size;
        Ok(())
    }

    fn add(&mut self, descriptor: &Descriptor) -> Result<(), QueueBroken> {
        let (at, len) = (descriptor.addr().0, descriptor.len());
        let bytes = if descriptor.is_write_only() {
            self.split.get_or_insert(self.spans.len());
            &mut self.writable_bytes
        } else if self.split.is_some() {
            return Err(QueueBroken::Order);
        } else {
            &mut self.readable_bytes
        };
        *bytes = bytes.checked_add(len).ok_or(QueueBroken::TooManyBytes)?;
        self.readable_bytes
            .checked_add(self.writable_bytes)
            .ok_or(QueueBroken::TooManyBytes)?;
        if len == 0 {
            return Ok(());
        }
        if !self.ram.contains(at, len.into()) {
            return Err(QueueBroken::NotInRam { at, len });
        }
        self.spans.push(Span { at, len });
        Ok(())
    }
}
