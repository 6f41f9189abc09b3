//! The types of the table: rows, their steps, and what they are played against.

use devices::Width;
use devices::virtio::{SlotHandle, VirtioDevice};
use std::any::Any;
use std::fmt;

use crate::access::{Region, Transport};

/// Where rings and buffers of a row are: a place of the machine that plays it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    /// So many bytes into the row's own memory of [`MEMORY_BYTES`].
    Memory(u64),
    /// So many bytes after (before) the seam of two neighbouring pieces of memory. It is the end
    /// of the row's own memory, and memory follows.
    Seam(i64),
    /// So many bytes after (before) the first address that is no memory.
    Hole(i64),
    /// In the device's own registers.
    Window(u64),
    /// This very guest-physical address.
    Raw(u64),
}

impl At {
    /// The place `by` bytes further on.
    #[must_use]
    pub fn plus(self, by: u64) -> At {
        let signed = i64::try_from(by).expect("small");
        match self {
            At::Memory(at) => At::Memory(at + by),
            At::Seam(at) => At::Seam(at + signed),
            At::Hole(at) => At::Hole(at + signed),
            At::Window(at) => At::Window(at + by),
            At::Raw(at) => At::Raw(at.wrapping_add(by)),
        }
    }
}

/// The bytes of a row's memory; offsets from zero. [`Ring`](Step::Ring)s lie from
/// [`FIRST_RING`] on, [`RING_BYTES`] each; from [`BUFFERS`] on everything is the row's. All of it
/// is zero when a row begins, and so are 4 KiB after it.
pub const MEMORY_BYTES: u64 = 0x10_0000;
/// See [`MEMORY_BYTES`].
pub const FIRST_RING: u64 = 0x1_0000;
/// See [`MEMORY_BYTES`].
pub const RING_BYTES: u64 = 0x3000;
/// See [`MEMORY_BYTES`].
pub const BUFFERS: u64 = 0x8_0000;
/// Entries of a [`Ring`](Step::Ring).
pub const RING_SIZE: u16 = 16;

/// A register that every transport has, by its meaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Register {
    /// Which 32 features the next shows.
    DeviceFeatureSelect,
    /// Features offered.
    DeviceFeatures,
    /// Which 32 features the next takes.
    DriverFeatureSelect,
    /// Features accepted.
    DriverFeatures,
    /// The device status; written and read.
    Status,
    /// Differs after a change of the configuration.
    ConfigGeneration,
    /// Which queue the following ones mean.
    QueueSelect,
    /// Read: the largest size (until [`QueueSize`](Self::QueueSize) is written, with pci).
    QueueMax,
    /// Written: the size.
    QueueSize,
    /// Whether the queue is the device's: `QueueReady` with mmio, `queue_enable` with pci.
    QueueEnable,
    /// Halves of the descriptor table's address.
    DescriptorsLow,
    /// See [`DescriptorsLow`](Self::DescriptorsLow).
    DescriptorsHigh,
    /// Halves of the available ring's address.
    AvailableLow,
    /// See [`AvailableLow`](Self::AvailableLow).
    AvailableHigh,
    /// Halves of the used ring's address.
    UsedLow,
    /// See [`UsedLow`](Self::UsedLow).
    UsedHigh,
}

/// A step: something that the driver does, or wants to see. A row ends at the first one that it
/// does not see.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes zero to the status and waits until it reads zero.
    Reset,
    /// Writes the status.
    Status(u32),
    /// The status is exactly this, the device's own bits included.
    ExpectStatus(u32),
    /// Waits until the device says that it needs a reset.
    ExpectNeedsReset,
    /// Writes both pages of accepted features.
    Features(u64),
    /// The features offered, where `mask` has bits.
    ExpectOffered {
        /// Bits that count.
        mask: u64,
        /// What they are.
        value: u64,
    },
    /// Selects a queue and writes its registers, without handing it over.
    Queue {
        /// Its number.
        queue: u16,
        /// What is written as its size.
        size: u32,
        /// Its descriptor table.
        descriptors: At,
        /// Its available ring.
        available: At,
        /// Its used ring.
        used: At,
    },
    /// Selects a queue and hands it over.
    Enable(u16),
    /// Selects a queue: whether it is handed over.
    ExpectEnabled(u16, bool),
    /// Zeroes the queue's usual place, sets it up there with [`RING_SIZE`] entries and hands it
    /// over.
    Ring(u16),
    /// A good start: reset, these features, all queues of the subject as [`Ring`](Self::Ring)s,
    /// DRIVER_OK; FEATURES_OK and DRIVER_OK are seen to stay.
    Start(u64),

    /// Writes a register.
    Write(Register, u32),
    /// Reads a register.
    Expect(Register, u32),
    /// Writes anywhere in the device's registers, at any width.
    RawWrite(Region, u64, Width, u64),
    /// Reads anywhere in the device's registers and compares the bits of `mask`.
    RawExpect {
        /// Which registers.
        region: Region,
        /// The offset.
        offset: u64,
        /// The width.
        width: Width,
        /// Bits that count.
        mask: u64,
        /// What they are.
        value: u64,
    },
    /// Writes configuration bytes.
    WriteConfig(u64, Width, u64),
    /// Reads configuration bytes.
    ExpectConfig(u64, Width, u64),

    /// Puts bytes into memory.
    Memory(At, Vec<u8>),
    /// Sets so many bytes of memory.
    Fill(At, u64, u8),
    /// Memory holds these bytes.
    ExpectMemory(At, Vec<u8>),
    /// Writes a descriptor of a queue's table.
    Descriptor {
        /// The queue, which has been set up.
        queue: u16,
        /// Which descriptor.
        index: u16,
        /// The buffer.
        at: At,
        /// Its length.
        len: u32,
        /// [`NEXT`](devices::testing::ring::NEXT) and the others.
        flags: u16,
        /// The next one.
        next: u16,
    },
    /// Writes a descriptor of a table anywhere.
    Indirect {
        /// The table.
        table: At,
        /// Which descriptor.
        index: u16,
        /// The buffer.
        at: At,
        /// Its length.
        len: u32,
        /// See [`Descriptor`](Self::Descriptor).
        flags: u16,
        /// The next one.
        next: u16,
    },
    /// Puts a head into the available ring and moves the index on.
    Publish(u16, u16),
    /// Puts a head into an entry of the available ring: queue, entry, head.
    AvailableEntry(u16, u16, u16),
    /// Writes the available index of a queue; [`Publish`](Self::Publish) goes on from there.
    AvailableIndex(u16, u16),
    /// Writes the available flags of a queue.
    AvailableFlags(u16, u16),
    /// Writes the used event index of a queue.
    UsedEvent(u16, u16),
    /// Rings the doorbell of that number, which may not exist.
    Kick(u32),
    /// Gives the device time to do all that it wants to.
    Settle,
    /// Waits for these to come back on a queue, in this order, and nothing else: head and bytes
    /// written of each. None: the device has time and gives nothing back.
    ExpectUsed(u16, Vec<(u16, u32)>),
    /// Waits for so many to come back on a queue since the last look at it, whatever they are.
    ExpectUsedCount(u16, u16),
    /// The reasons for an interrupt, which are taken away: 1 used buffers, 2 configuration or
    /// status.
    ExpectReasons(u32),
    /// Whether an interrupt arrived since the last time. Looked at in this process only.
    ExpectInterrupt(bool),

    /// What the host does in between, in words and as code. A row with such a step is for this
    /// process only.
    Host(&'static str, fn(&mut Host)),
    /// The device must come back: [`Start`](Self::Start) with the subject's features, then its
    /// good request. A row that fails from here on has wedged its device.
    Revive,
}

/// The host's side of a device.
pub struct Host {
    /// The way to the device.
    pub handle: SlotHandle,
    /// What the subject put there.
    pub backend: Box<dyn Any>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// A device that rows are played against. One is made for each row.
pub struct Fixture {
    /// The device.
    pub device: Box<dyn VirtioDevice>,
    /// Whatever the host's side needs: `()` where it needs nothing.
    pub backend: Box<dyn Any>,
}

impl Fixture {
    /// A device whose host does nothing.
    #[must_use]
    pub fn alone(device: impl VirtioDevice + 'static) -> Fixture {
        Fixture {
            device: Box::new(device),
            backend: Box::new(()),
        }
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").finish_non_exhaustive()
    }
}

/// A kind of device with what a row takes for granted about it.
pub struct Subject {
    /// Its name: "block".
    pub name: &'static str,
    /// How many queues [`Step::Start`] sets up: all that the device has.
    pub queues: u16,
    /// Features that [`Step::Revive`] accepts; the device offers at least these.
    pub features: u64,
    /// Makes one.
    pub make: fn() -> Fixture,
    /// A request that must succeed once the device has started, on rings that were not used.
    pub good: fn() -> Vec<Step>,
    /// Arguments that give the program such a device as the first of its machine, and no other.
    /// None: not on a machine. `{disk}` stands for a file of
    /// [`disk_image`](crate::rows::disk_image).
    pub boot: Option<&'static [&'static str]>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// One case. It begins with a device that was just reset, and memory of zeroes.
#[derive(Clone, Debug)]
pub struct Row {
    /// "ring-017": the name of its list and a number that stays.
    pub id: String,
    /// What it is played against.
    pub subject: &'static Subject,
    /// The section of virtio 1.2 that says what is right.
    pub spec: &'static str,
    /// What the driver does, and what must come of it.
    pub about: String,
    /// The only transport that has it, if it is not all.
    pub only: Option<Transport>,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Row {
    /// A row of all transports.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        subject: &'static Subject,
        spec: &'static str,
        about: impl Into<String>,
        steps: Vec<Step>,
    ) -> Row {
        Row {
            id: id.into(),
            subject,
            spec,
            about: about.into(),
            only: None,
            steps,
        }
    }

    /// The same, for one transport.
    #[must_use]
    pub fn only(mut self, transport: Transport) -> Row {
        self.only = Some(transport);
        self
    }
}
