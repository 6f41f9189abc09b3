//! One request of a driver: the buffers of a descriptor chain, checked and copied out of the ring.

use zerocopy::{FromBytes, IntoBytes};

use crate::ram::GuestRam;

/// A buffer in guest memory. All of it is memory; it may run from one region into the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// The guest-physical address.
    pub at: u64,
    /// The length in bytes, never zero in a [`Chain`].
    pub len: u32,
}

/// The readable part of a chain ended before its header did.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the request is shorter than its header of {header_bytes} bytes")]
pub struct ChainTooShort {
    /// The length of the header.
    pub header_bytes: usize,
}

/// Where a request wants its status: the last byte that the device may write.
#[derive(Debug)]
pub struct StatusByte(u64);

impl StatusByte {
    /// Sets the status.
    pub fn set(self, ram: &GuestRam, status: u8) {
        // The byte was found to be memory when the chain was taken.
        let _ = ram.write_bytes(self.0, &[status]);
    }
}

/// A descriptor chain that the driver handed over. It goes back with
/// [`complete`](super::queue::Virtqueue::complete), once; one that is dropped stays lost to the
/// driver until it resets the device.
#[must_use = "a chain that is not completed never returns to its driver"]
#[derive(Debug)]
pub struct Chain {
    pub(super) head: u16,
    pub(super) spans: Vec<Span>,
    // The first readable span that is not consumed, and the first writable span, which all
    // readable ones precede (2.7.4.2).
    read_at: usize,
    split: usize,
    // The first writable span that is not filled.
    write_at: usize,
    pub(super) writable_bytes: u32,
}

impl Chain {
    /// `spans[..split]` are for the device to read, the rest for it to write.
    pub(super) fn new(head: u16, spans: Vec<Span>, split: usize, writable_bytes: u32) -> Self {
        Self {
            head,
            spans,
            read_at: 0,
            split,
            write_at: split,
            writable_bytes,
        }
    }

    /// What is left to read.
    pub fn readable(&self) -> &[Span] {
        self.spans.get(self.read_at..self.split).unwrap_or_default()
    }

    /// What is left to write.
    pub fn writable(&self) -> &[Span] {
        self.spans.get(self.write_at..).unwrap_or_default()
    }

    /// The number of bytes left to read.
    pub fn readable_bytes(&self) -> u64 {
        total(self.readable())
    }

    /// The number of bytes left to write.
    pub fn writable_bytes(&self) -> u64 {
        total(self.writable())
    }

    /// Takes a structure from the front of the readable part, wherever its bytes are scattered.
    ///
    /// # Errors
    /// When less than the structure is left; nothing is consumed then.
    pub fn take_header<T: FromBytes + IntoBytes>(
        &mut self,
        ram: &GuestRam,
    ) -> Result<T, ChainTooShort> {
        let header_bytes = size_of::<T>();
        if self.readable_bytes() < header_bytes as u64 {
            return Err(ChainTooShort { header_bytes });
        }
        let mut header = T::new_zeroed();
        self.read(ram, header.as_mut_bytes());
        Ok(header)
    }

    /// Takes the last writable byte away for the status.
    pub fn split_status(&mut self) -> Option<StatusByte> {
        if self.writable().is_empty() {
            return None;
        }
        let last = self.spans.last_mut()?;
        last.len = last.len.saturating_sub(1);
        let (at, left) = (last.at.wrapping_add(last.len.into()), last.len);
        if left == 0 {
            self.spans.pop();
        }
        Some(StatusByte(at))
    }

    /// Copies from the front of the readable part into `data` and consumes it: how many bytes.
    pub fn read(&mut self, ram: &GuestRam, data: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let end = self.split;
            let Some(part) = front(&mut self.spans, &mut self.read_at, end, rest.len()) else {
                break;
            };
            let len = usize::try_from(part.len).unwrap_or(rest.len());
            // Memory is never taken away under a device, so this cannot fail.
            let copied = rest
                .get_mut(..len)
                .is_some_and(|to| ram.read_bytes(part.at, to).is_ok());
            if !copied {
                break;
            }
            done = done.saturating_add(len);
        }
        done
    }

    /// Copies `data` to the front of the writable part and consumes it: how many bytes.
    pub fn write(&mut self, ram: &GuestRam, data: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let end = self.spans.len();
            let Some(part) = front(&mut self.spans, &mut self.write_at, end, rest.len()) else {
                break;
            };
            let len = usize::try_from(part.len).unwrap_or(rest.len());
            let copied = rest
                .get(..len)
                .is_some_and(|from| ram.write_bytes(part.at, from).is_ok());
            if !copied {
                break;
            }
            done = done.saturating_add(len);
        }
        done
    }
}

fn total(spans: &[Span]) -> u64 {
    // A chain holds at most 2^32 - 1 bytes.
    spans.iter().map(|span| u64::from(span.len)).sum()
}

/// Cuts at most `max` bytes off the span at `*index`, which moves on once that span is used up.
fn front(spans: &mut [Span], index: &mut usize, end: usize, max: usize) -> Option<Span> {
    let span = spans.get_mut(..end)?.get_mut(*index)?;
    let len = u32::try_from(max).unwrap_or(u32::MAX).min(span.len);
    let part = Span { at: span.at, len };
    span.at = span.at.wrapping_add(len.into());
    span.len = span.len.wrapping_sub(len);
    if span.len == 0 {
        *index = index.saturating_add(1);
    }
    Some(part)
}
