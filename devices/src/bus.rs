//! Ports and memory windows: which device answers at which address.
//!
//! A bus is filled once and then frozen, so that looking up a device takes no lock; only the
//! device itself is locked while it answers. A device that the guest can move has its address in
//! a [`Place`], which is read without a lock too.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::RateLimit;

/// How many bytes an access moves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Dword,
    /// Eight bytes.
    Qword,
}

impl Width {
    /// The width of an access of `len` bytes; none for the lengths in between.
    pub fn of(len: usize) -> Option<Self> {
        match len {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }
}

/// An access that a device has no answer for: nothing there, or not at this width. The bus
/// reads it as all ones, ignores it as a write, and logs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadAccess;

/// Something that answers to addresses. Offsets count from the start of its range, and the bus
/// hands over only accesses that lie wholly within it.
pub trait BusDevice: Send {
    /// Answers a read; of the value, only the bytes of `width` are used.
    ///
    /// # Errors
    /// [`BadAccess`] when nothing answers there.
    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BadAccess>;

    /// Takes a write; bytes of `value` beyond `width` are zero.
    ///
    /// # Errors
    /// [`BadAccess`] when nothing answers there.
    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess>;
}

/// A range of ports or of guest-physical addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressRange {
    /// The first address.
    pub start: u64,
    /// The number of addresses.
    pub len: u64,
}

impl AddressRange {
    /// The first address behind the range, which does not run over the end of all addresses.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// The offset at which `len` bytes from `at` on lie in the range; none if they do not.
    fn offset_of(self, at: u64, len: u64) -> Option<u64> {
        let offset = at.checked_sub(self.start)?;
        (offset.checked_add(len)? <= self.len).then_some(offset)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start, self.len)
    }
}

/// A device that cannot be attached where it was to go.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Overlap {
    /// Another device has some of these addresses.
    #[error("{bus}: {name} at {at} overlaps {other} at {other_at}")]
    With {
        /// The bus.
        bus: &'static str,
        /// The device to attach.
        name: &'static str,
        /// Its range.
        at: AddressRange,
        /// The device that is there already.
        other: &'static str,
        /// That one's range.
        other_at: AddressRange,
    },
    /// The range is empty or runs over the end of the address space.
    #[error("{bus}: {name} at {at} is not a range of addresses")]
    NoRange {
        /// The bus.
        bus: &'static str,
        /// The device to attach.
        name: &'static str,
        /// Its range.
        at: AddressRange,
    },
}

struct Entry {
    name: &'static str,
    at: AddressRange,
    device: Arc<Mutex<dyn BusDevice>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.at)
    }
}

/// Where a device that can be moved answers at the moment; clones are the same place.
#[derive(Clone, Debug)]
pub struct Place(Arc<AtomicU64>);

impl Place {
    /// What stands for no address: nothing can begin there.
    const NOWHERE: u64 = u64::MAX;

    /// A place for a device that answers nowhere yet.
    pub fn nowhere() -> Self {
        Self(Arc::new(AtomicU64::new(Self::NOWHERE)))
    }

    /// Moves the device. An access that is under way still finds it at the old address.
    pub fn set(&self, start: Option<u64>) {
        self.0
            .store(start.unwrap_or(Self::NOWHERE), Ordering::Release);
    }

    /// Where the device answers.
    pub fn get(&self) -> Option<u64> {
        let start = self.0.load(Ordering::Acquire);
        (start != Self::NOWHERE).then_some(start)
    }
}

/// A device that the guest can move.
struct Movable {
    name: &'static str,
    place: Place,
    len: u64,
    device: Arc<Mutex<dyn BusDevice>>,
}

impl fmt::Debug for Movable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:x?}", self.name, self.place.get())
    }
}

/// A bus that is being filled.
#[derive(Debug)]
pub struct BusBuilder {
    name: &'static str,
    entries: Vec<Entry>,
    movable: Vec<Movable>,
}

impl BusBuilder {
    /// An empty bus; `name` is for log lines ("ports", "memory").
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            entries: Vec::new(),
            movable: Vec::new(),
        }
    }

    /// Puts a device of `len` addresses wherever `place` says, which changes while the bus is in
    /// use. Where another device answers too, that one does if it cannot be moved, else the one
    /// that was attached first.
    pub fn attach_movable(
        &mut self,
        name: &'static str,
        place: Place,
        len: u64,
        device: Arc<Mutex<dyn BusDevice>>,
    ) {
        self.movable.push(Movable {
            name,
            place,
            len,
            device,
        });
    }

    /// Puts `device` at `at`. A device may be attached in several places.
    ///
    /// # Errors
    /// [`Overlap`] when another device is there or `at` is not a range.
    pub fn attach(
        &mut self,
        name: &'static str,
        at: AddressRange,
        device: Arc<Mutex<dyn BusDevice>>,
    ) -> Result<(), Overlap> {
        let bus = self.name;
        let end = at.start.checked_add(at.len).filter(|_| at.len > 0);
        let end = end.ok_or(Overlap::NoRange { bus, name, at })?;
        let place = self
            .entries
            .partition_point(|entry| entry.at.start < at.start);
        let before = place
            .checked_sub(1)
            .and_then(|before| self.entries.get(before));
        let clash = before
            .filter(|entry| entry.at.offset_of(at.start, 1).is_some())
            .or_else(|| self.entries.get(place).filter(|entry| entry.at.start < end));
        if let Some(entry) = clash {
            let (other, other_at) = (entry.name, entry.at);
            return Err(Overlap::With {
                bus,
                name,
                at,
                other,
                other_at,
            });
        }
        self.entries.insert(place, Entry { name, at, device });
        Ok(())
    }

    /// Ends the filling.
    pub fn freeze(self) -> Bus {
        Bus {
            name: self.name,
            entries: self.entries.into_boxed_slice(),
            movable: self.movable.into_boxed_slice(),
            unclaimed: AtomicU64::new(0),
            limit: RateLimit::new(),
        }
    }
}

/// A bus with its devices, shared by all vCPU threads.
#[derive(Debug)]
pub struct Bus {
    name: &'static str,
    entries: Box<[Entry]>,
    movable: Box<[Movable]>,
    unclaimed: AtomicU64,
    limit: RateLimit,
}

impl Bus {
    /// Reads `data.len()` bytes at `at`: all ones where nothing answers.
    pub fn read(&self, at: u64, data: &mut [u8]) {
        let answer = self
            .find(at, data.len())
            .and_then(|(device, offset, width)| {
                let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
                device.read(offset, width).ok()
            });
        if answer.is_none() {
            self.note_unclaimed("read", at, data.len());
        }
        let bytes = answer.unwrap_or(u64::MAX).to_le_bytes();
        let (short, rest) = data.split_at_mut(data.len().min(bytes.len()));
        short
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, byte)| *to = byte);
        rest.fill(0xff);
    }

    /// Writes `data` at `at`: ignored where nothing answers.
    pub fn write(&self, at: u64, data: &[u8]) {
        let done = self
            .find(at, data.len())
            .and_then(|(device, offset, width)| {
                let mut bytes = [0; 8];
                bytes
                    .iter_mut()
                    .zip(data)
                    .for_each(|(to, byte)| *to = *byte);
                let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
                device.write(offset, width, u64::from_le_bytes(bytes)).ok()
            });
        if done.is_none() {
            self.note_unclaimed("write", at, data.len());
        }
    }

    /// How many accesses found no answer.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }

    /// Names and ranges of the devices: those that stay, by address, then those that can move.
    pub fn devices(&self) -> impl Iterator<Item = (&'static str, AddressRange)> {
        let fixed = self.entries.iter().map(|entry| (entry.name, entry.at));
        let movable = self.movable.iter().filter_map(|one| {
            let (start, len) = (one.place.get()?, one.len);
            Some((one.name, AddressRange { start, len }))
        });
        fixed.chain(movable)
    }

    fn find(&self, at: u64, len: usize) -> Option<(&Mutex<dyn BusDevice>, u64, Width)> {
        let width = Width::of(len)?;
        let after = self.entries.partition_point(|entry| entry.at.start <= at);
        let fixed = after
            .checked_sub(1)
            .and_then(|before| self.entries.get(before));
        let fixed = fixed.and_then(|entry| {
            let offset = entry.at.offset_of(at, width.bytes())?;
            Some((&*entry.device, offset, width))
        });
        fixed.or_else(|| self.find_movable(at, width))
    }

    fn find_movable(&self, at: u64, width: Width) -> Option<(&Mutex<dyn BusDevice>, u64, Width)> {
        self.movable.iter().find_map(|one| {
            let (start, len) = (one.place.get()?, one.len);
            let offset = AddressRange { start, len }.offset_of(at, width.bytes())?;
            Some((&*one.device, offset, width))
        })
    }

    fn note_unclaimed(&self, what: &str, at: u64, len: usize) {
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
        let bus = self.name;
        // No warning: every kernel looks for a PC's interrupt controllers, timers and clocks.
        self.limit.debug(format_args!(
            "{bus}: guest {what} of {len} bytes at {at:#x}: no answer"
        ));
    }
}

#[cfg(test)]
mod tests;
