//! Virtio devices, their queues and their transport.
//!
//! A device is split in two. vCPU threads touch only its transport (registers, under a short
//! lock); the device with its queues is owned by a [`slot::DeviceSlot`] on an I/O loop. Between
//! them are a mailbox, the doorbells and the interrupt line, all eventfds.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub mod balloon;
pub mod blk;
pub mod chain;
pub mod config_space;
pub mod console;
pub mod features;
pub mod interrupt;
pub mod net;
pub mod queue;
pub mod rng;
pub mod slot;
pub mod transport;
pub mod vsock;

pub use chain::{Chain, Span};
pub use config_space::ConfigSpace;
pub use interrupt::{Interrupt, Signal};
pub use queue::{QueueBroken, Virtqueue};
pub use slot::{DeviceSlot, SlotGone, SlotHandle, Watches};
pub use transport::mmio::MmioTransport;
pub use transport::pci::PciTransport;

use crate::disk::Disk;
use crate::inspect::Report;
use crate::limit::Limits;
use crate::line::{Doorbell, IrqLine};
use crate::ram::GuestRam;
use crate::state::BadState;
use transport::core::Core;

/// What a device is, before any driver talks to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The virtio device ID (virtio 1.2, 5).
    pub device_id: u32,
    /// The largest size of each queue, powers of two.
    pub queue_sizes: Vec<u16>,
    /// The device's own feature bits; those of rings and transport are added.
    pub features: u64,
}

/// What a device gets when its driver is ready.
#[derive(Debug)]
pub struct StartContext {
    /// The features that the driver accepted.
    pub features: u64,
    /// The queues, by number; none where the driver set none up.
    pub queues: Vec<Option<Virtqueue>>,
    /// Guest memory.
    pub ram: GuestRam,
    /// For changes of the configuration; queues interrupt by themselves.
    pub interrupt: Interrupt,
}

impl StartContext {
    /// Queue number `queue`, which the device cannot do without.
    ///
    /// # Errors
    /// When the driver left it out.
    pub fn take_queue(&mut self, queue: usize) -> Result<Virtqueue, StartError> {
        let taken = self.queues.get_mut(queue).and_then(Option::take);
        taken.ok_or(StartError::MissingQueue(queue))
    }
}

/// A device that cannot work with what the driver set up.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StartError {
    /// A queue that the device cannot do without.
    #[error("the driver left out queue {0}")]
    MissingQueue(usize),
}

/// Whether a device has worked off what there was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// All that could be done is done.
    Idle,
    /// The share of this turn is used up and there is more: call again after the others.
    More,
}

/// What the host asks of a running device.
pub enum DeviceCommand {
    /// The terminal behind a console has a new size.
    Resize {
        /// The width in characters.
        columns: u16,
        /// The height in characters.
        rows: u16,
    },
    /// How much a device may do in a time.
    Limit(Limits),
    /// The disk behind a block device is another one from now on.
    ReplaceDisk(Box<dyn Disk>),
    /// The disk behind a block device may have another size.
    Rescan,
    /// Something about the balloon.
    Balloon(BalloonCommand),
    /// Something about the network.
    Net(NetCommand),
    /// All connections of a socket device end, and its guest is told.
    ResetTransport,
}

impl fmt::Debug for DeviceCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resize { columns, rows } => write!(f, "Resize({columns}x{rows})"),
            Self::Limit(limits) => f.debug_tuple("Limit").field(limits).finish(),
            Self::ReplaceDisk(disk) => f
                .debug_tuple("ReplaceDisk")
                .field(&disk.geometry())
                .finish(),
            Self::Rescan => f.write_str("Rescan"),
            Self::ResetTransport => f.write_str("ResetTransport"),
            Self::Balloon(command) => f.debug_tuple("Balloon").field(command).finish(),
            Self::Net(command) => f.debug_tuple("Net").field(command).finish(),
        }
    }
}

/// What the host asks of a balloon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BalloonCommand {
    /// Nothing, which is refused while no driver of the guest's is there.
    NeedDriver,
    /// The guest is to give up this many bytes in all.
    Target {
        /// The bytes, a multiple of 4096.
        bytes: u64,
    },
    /// How often the guest is asked for its statistics; zero for never.
    StatisticsEvery(Duration),
    /// The guest is to tell of its free pages, once.
    StartHinting {
        /// Whether the pages may be used again by the guest as soon as it told of all of them.
        acknowledge_on_stop: bool,
    },
    /// The guest may use all hinted pages again.
    StopHinting,
}

/// What the host asks of a network device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetCommand {
    /// The link goes up or down, and the guest is told.
    Carrier {
        /// Whether it is up.
        up: bool,
    },
    /// How much the guest may receive and send in a time; what is left out stays as it is.
    Limits {
        /// The limits of what it receives.
        receive: Option<Limits>,
        /// The limits of what it sends.
        transmit: Option<Limits>,
    },
}

/// A command that a device did not carry out. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The device has nothing of that kind.
    #[error("the device cannot do that")]
    NotSupported,
    /// The driver did not accept the feature that it takes, or there is no driver.
    #[error("the guest's driver does not support it")]
    NoDriver,
    /// A value that the device cannot take.
    #[error("{0}")]
    Invalid(String),
    /// The host failed.
    #[error("the host cannot do it")]
    Host(#[source] io::Error),
    /// The device's loop has ended.
    #[error(transparent)]
    Gone(#[from] SlotGone),
}

/// A driver's write to the configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConfigWrite {
    /// The offset in the configuration space.
    pub offset: usize,
    /// The bytes written, 1 to 8.
    pub len: usize,
    /// The value, little-endian in the space.
    pub value: u64,
}

/// A device model. It lives on one I/O loop; no other thread ever calls it.
pub trait VirtioDevice: Send {
    /// What the device is; the same all its life.
    fn identity(&self) -> Identity;

    /// The configuration fields. vCPU threads read them while the device runs.
    fn config_space(&self) -> Arc<ConfigSpace>;

    /// The device is put on a loop, once: `watches` tells it which descriptors to watch for it.
    fn attach(&mut self, watches: Watches) {
        drop(watches);
    }

    /// The driver is ready (DRIVER_OK). Every queue is reported ready once afterwards.
    ///
    /// # Errors
    /// When the device cannot work so; the driver is told to reset it.
    fn start(&mut self, context: StartContext) -> Result<(), StartError>;

    /// A queue may have new requests. Does a bounded amount of work.
    fn queue_ready(&mut self, queue: usize) -> Progress;

    /// A file descriptor that the device watches is ready.
    fn event(&mut self, token: u32) {
        let _ = token;
    }

    /// The driver wrote a field of the configuration that it may write; the space holds the
    /// value, or that of a later write.
    fn config_written(&mut self, written: ConfigWrite) {
        let _ = written;
    }

    /// The host wants something; also called while no driver runs the device.
    ///
    /// # Errors
    /// When the device does not do it; then nothing has changed.
    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let _ = command;
        Err(CommandError::NotSupported)
    }

    /// The driver takes a queue back: when this returns, nothing that came from it writes guest
    /// memory any more.
    fn settle(&mut self) {}

    /// The machine is paused: the queues give nothing out until [`resume`](Self::resume). Brings
    /// to its end what was taken from them and is in the host's hands, as far as that can be done
    /// now: whether all of it is. If not, the device is asked again after each of its events.
    fn pause(&mut self) -> bool {
        true
    }

    /// The machine goes on. Every queue is reported ready once afterwards.
    fn resume(&mut self) {}

    /// The state of the device at rest, as far as neither its queues nor its configuration have
    /// it.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Puts a fresh device into a saved state. If it was started when it was saved, so it is now,
    /// with its queues where they stood and held as in a [`pause`](Self::pause); the interrupt
    /// sends nothing yet.
    ///
    /// # Errors
    /// When the device cannot have this state.
    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        match state.len() {
            0 => Ok(()),
            more => Err(BadState::Long(more)),
        }
    }

    /// The driver resets the device: lets go of queues and guest memory. Afterwards it may be
    /// started afresh.
    fn stop(&mut self);

    /// What the device is and did.
    fn inspect(&self) -> Report;
}

/// The parts of a connected device.
pub struct Connected<T = MmioTransport> {
    /// The registers, for the memory bus.
    pub transport: T,
    /// The device, for an I/O loop.
    pub slot: DeviceSlot,
    /// Reaches the device from any thread.
    pub handle: SlotHandle,
    /// One for each queue, to be bound to where the transport's driver notifies the queue.
    /// Unbound ones work too, more slowly.
    pub doorbells: Vec<Doorbell>,
}

impl<T: fmt::Debug> fmt::Debug for Connected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// Puts a device behind virtio-mmio registers. `name` is for log lines. The doorbells are for
/// writes of the queue's number to offset [`transport::mmio::QUEUE_NOTIFY`].
///
/// # Errors
/// When the process has no file descriptor left.
pub fn connect(
    name: String,
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    line: IrqLine,
) -> io::Result<Connected> {
    let interrupt = Interrupt::new(name, line);
    connect_with(device, ram, interrupt, MmioTransport::new)
}

/// Puts a device on the PCI bus. `name` is for log lines. The doorbells are for any write to
/// [`transport::pci::notify_address`].
///
/// # Errors
/// When the process has no file descriptor left.
pub fn connect_pci(
    name: String,
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    attachment: transport::pci::Attachment,
) -> io::Result<Connected<PciTransport>> {
    let queues = device.identity().queue_sizes.len();
    let wiring = transport::pci::Wiring::new(name, queues, attachment);
    let interrupt = wiring.interrupt.clone();
    connect_with(device, ram, interrupt, |core, config, doorbells| {
        PciTransport::new(core, config, doorbells, wiring)
    })
}

fn connect_with<T>(
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    interrupt: Interrupt,
    transport: impl FnOnce(Core, Arc<ConfigSpace>, Vec<Doorbell>) -> T,
) -> io::Result<Connected<T>> {
    let identity = device.identity();
    let doorbells = (0..identity.queue_sizes.len())
        .map(|_| Doorbell::new())
        .collect::<io::Result<Vec<_>>>()?;
    let again = |bells: &[Doorbell]| bells.iter().map(Doorbell::try_clone).collect();
    let own: io::Result<Vec<_>> = again(&doorbells);
    let transport_bells: io::Result<Vec<_>> = again(&doorbells);
    let config = device.config_space();
    let (slot, handle) = DeviceSlot::new(device, ram.clone(), interrupt.clone(), own?)?;
    let core = Core::new(identity, ram, interrupt, handle.clone());
    Ok(Connected {
        transport: transport(core, config, transport_bells?),
        slot,
        handle,
        doorbells,
    })
}
