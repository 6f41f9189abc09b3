//! What a vCPU came back with, as values that lend the place for the answer.

/// One return of [`super::Vcpu::run`]. The reads lend the bytes that the guest waits for.
#[derive(Debug)]
pub enum Exit<'a> {
    /// `in`, or `rep ins`: `data` holds whole elements of `width` bytes.
    PortRead {
        /// The port.
        port: u16,
        /// Bytes of an element: 1, 2 or 4.
        width: usize,
        /// To be filled before the next run.
        data: &'a mut [u8],
    },
    /// `out`, or `rep outs`: `data` holds whole elements of `width` bytes.
    PortWrite {
        /// The port.
        port: u16,
        /// Bytes of an element: 1, 2 or 4.
        width: usize,
        /// What was written.
        data: &'a [u8],
    },
    /// A load outside RAM.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// 1 to 8 bytes, to be filled before the next run.
        data: &'a mut [u8],
    },
    /// A store outside RAM.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
    /// The local APIC saw the end of a level-triggered interrupt.
    EndOfInterrupt {
        /// Its vector.
        vector: u8,
    },
    /// The CPU shut down: a triple fault.
    Shutdown,
    /// Nothing to answer: something that KVM or an assist completed.
    Interrupted,
    /// Nothing to answer: a signal, as a [`super::Kicker`] sends it.
    Kicked,
    /// KVM cannot go on with this guest; the machine ends.
    Unhandled(Unhandled),
}

/// Why KVM cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unhandled {
    /// An instruction that KVM can't emulate and nothing here completes.
    #[error("KVM cannot emulate the instruction at {rip:#x}{}", hex(bytes))]
    Instruction {
        /// Where it is.
        rip: u64,
        /// What it is, as far as it can be read.
        bytes: Vec<u8>,
    },
    /// KVM_EXIT_INTERNAL_ERROR of another kind.
    #[error("internal error {suberror} of KVM at {rip:#x}")]
    Internal {
        /// KVM's number of it.
        suberror: u32,
        /// Where the CPU is.
        rip: u64,
    },
    /// The CPU refused the guest's state.
    #[error("the CPU refused to enter the guest, hardware reason {reason:#x}")]
    FailEntry {
        /// The hardware's reason.
        reason: u64,
    },
    /// An exit that Coracle never asked for.
    #[error("unexpected exit of KVM: {0}")]
    Unexpected(String),
}

/// The bytes as the end of a sentence; nothing where there are none.
fn hex(bytes: &[u8]) -> String {
    let text: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if text.is_empty() {
        return String::new();
    }
    format!(": {}", text.join(" "))
}
