//! The errors and outcomes of the assists: plain data.

/// What became of an exit that was handed to the assists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Completed: run the vCPU again.
    Resume,
    /// The exit has another cause; the caller treats it as on any host.
    NotMine,
    /// The host's KVM does not know this instruction, and neither do the assists: the guest
    /// cannot go on. The message for the user names the bytes.
    Unknown {
        /// Where the instruction starts (guest linear address).
        rip: u64,
        /// The bytes there; zero where the guest's memory ends.
        bytes: [u8; 15],
        /// How many of `bytes` could be read.
        len: u8,
    },
}

/// A host call of the assists that failed.
#[derive(Debug, thiserror::Error)]
pub enum AssistError {
    /// An ioctl on the VM or a vCPU.
    #[error("this host's KVM needs help to run Linux, and {action} failed: {source}")]
    Kvm {
        /// What was attempted, as a noun phrase with the ioctl's name.
        action: &'static str,
        /// What KVM answered.
        source: kvm_ioctls::Error,
    },
    /// An MSR that KVM neither reads nor writes.
    #[error("this host's KVM needs help to run Linux, but does not {verb} MSR {index:#x}")]
    Msr {
        /// `read` or `write`.
        verb: &'static str,
        /// The MSR.
        index: u32,
    },
    /// Memory for a test guest.
    #[error("no {bytes} bytes of memory for a guest that tests this host's KVM")]
    Memory {
        /// How much was asked for.
        bytes: usize,
    },
}

impl AssistError {
    /// Names the action of a failed ioctl.
    pub(super) fn kvm(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> AssistError {
        move |source| AssistError::Kvm { action, source }
    }
}
