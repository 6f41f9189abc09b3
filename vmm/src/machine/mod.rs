//! One machine: built from its blueprint, run to its end.
//!
//! [`build`] turns addresses into descriptors and threads, [`catalog`] is the one match from a
//! device of the blueprint to its constructor, `control` owns what then runs.

mod build;
mod catalog;
mod console;
mod pci;

pub use crate::control::{ControlError, Description, Front, Preparation, Prepared};
pub use crate::memory::{KernelBytes, MemoryError};
pub use console::HostConsole;
pub use mmds::Metadata;

use std::fs::File;

use devices::GuestRam;
use devices::net::Link;
use devices::tty::TtyError;

use build::Started;

use crate::blueprint::Blueprint;
use crate::kvm::assist::{AssistError, Needs};
use crate::kvm::state::RestoreError;
use crate::kvm::{Kvm, KvmError};
use crate::snapshot::devices::DeviceNotRestored;
use crate::snapshot::{LoadError, Snapshot};

/// Everything that a machine is made of, opened.
#[derive(Debug)]
pub struct Setup {
    /// The host's KVM.
    pub kvm: Kvm,
    /// What that KVM leaves undone.
    pub needs: Needs,
    /// What to build.
    pub blueprint: Blueprint,
    /// What it begins with.
    pub origin: Origin,
    /// The user's disks, in the order of the blueprint.
    pub disks: Vec<File>,
    /// The host's ends of its networks, in the order of the blueprint.
    pub links: Vec<Box<dyn Link>>,
    /// The built-in guest's system image.
    pub system: Option<&'static [u8]>,
    /// What the guest can read of its metadata service, where it has one.
    pub metadata: Metadata,
    /// The console's host side.
    pub console: HostConsole,
}

/// What a machine begins with.
#[derive(Debug)]
pub enum Origin {
    /// A kernel, from its first instruction on.
    Boot {
        /// Where its bytes come from.
        kernel: KernelBytes,
        /// The initrd.
        initrd: Option<File>,
    },
    /// What was saved of a machine. It stands still until it is told to go on.
    Snapshot(Box<Snapshot>),
}

/// How a guest came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It switched the machine off.
    PowerOff,
    /// It reset the machine.
    Reset(ResetCause),
    /// It was ended from outside: the deadline of a stop, a second signal, the quit key.
    Killed,
}

/// Why a guest reset its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetCause {
    /// A reboot: through the i8042, the reset register or ACPI.
    Asked,
    /// Its kernel panicked.
    Panic,
    /// It did not feed its watchdog.
    Watchdog,
    /// Its CPU shut down for want of a handler: a triple fault.
    TripleFault,
}

/// What the host refused while a machine was built or run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A KVM ioctl.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The assists of a weak host.
    #[error(transparent)]
    Assist(#[from] AssistError),
    /// What was saved can't be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A device can't be as it was saved.
    #[error(transparent)]
    Device(#[from] DeviceNotRestored),
    /// A vCPU, or the machine around it, can't be as it was saved.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The console's backend.
    #[error(transparent)]
    Console(#[from] TtyError),
    /// A disk that another machine writes, or that can't be used.
    #[error(transparent)]
    Disk(#[from] devices::disk::OpenError),
    /// A copy-on-write disk that can't be used, or one of its bases.
    #[error(transparent)]
    Overlay(#[from] devices::disk::overlay::OverlayError),
    /// A qcow2 image that can't be used.
    #[error(transparent)]
    Qcow2(#[from] devices::disk::qcow2::Qcow2Error),
    /// The socket of a console's port.
    #[error(transparent)]
    PortSocket(#[from] devices::virtio::console::SocketError),
    /// The socket of the socket device.
    #[error(transparent)]
    Vsock(#[from] devices::virtio::vsock::SocketError),
    /// Descriptors or threads.
    #[error("{attempt} failed")]
    Host {
        /// What was attempted.
        attempt: &'static str,
        /// The host's reason.
        #[source]
        cause: std::io::Error,
    },
    /// The I/O thread.
    #[error("the I/O thread failed")]
    Loop(#[from] devices::event::LoopError),
    /// The running machine.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// A machine whose vCPUs run.
#[derive(Debug)]
pub struct Machine(Started);

/// Builds a machine and lets its vCPUs go.
///
/// # Errors
/// [`MachineError`] says what the host refused; nothing is left behind then.
pub fn start(setup: Setup) -> Result<Machine, MachineError> {
    build::start(setup).map(Machine)
}

impl Machine {
    /// Lets clients have a say in it. Who has asked for its start is answered.
    pub fn serve(&mut self, mut front: Front) {
        front.started(self.0.state());
        self.0.serve(front);
    }

    /// Lets one that comes from a snapshot go on. Until then it stands still.
    pub fn resume(&mut self) {
        self.0.resume();
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`MachineError`] says why the host cannot go on with it.
    pub fn run(self) -> Result<Ended, MachineError> {
        self.0.running.run()
    }
}

/// What an end really was: a kernel that panicked may only say so by how it resets.
fn judged(ended: Ended, ram: &GuestRam) -> Ended {
    match ended {
        Ended::Reset(ResetCause::Asked) if panicked(ram) => Ended::Reset(ResetCause::Panic),
        other => other,
    }
}

/// Guest-physical address of the reset flag in the BIOS data area. Linux writes it at each reset.
const RESET_FLAG: u64 = 0x472;

/// The flag's value for a warm boot, which the default command line reserves for panics.
const WARM_BOOT: u16 = 0x1234;

fn panicked(ram: &GuestRam) -> bool {
    ram.read::<u16>(RESET_FLAG)
        .is_ok_and(|flag| flag == WARM_BOOT)
}

#[cfg(test)]
mod tests {
    use arch::layout;
    use proto::power;

    #[test]
    fn the_guests_init_knows_the_power_registers() {
        assert_eq!(power::SLEEP_CONTROL_PORT, layout::PM_SLEEP_CONTROL);
        assert_eq!(power::RESET_PORT, layout::PM_RESET);
        assert_eq!(power::RESET, layout::PM_RESET_VALUE);
    }
}
