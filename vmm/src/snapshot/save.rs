//! Saving: everything of a machine that stands still is gathered, then written.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::spec::MachineSpec;
use devices::GuestRam;
use devices::new_file::{NewFile, random_id};

use super::devices::Devices;
use super::error::SaveError;
use super::format::Builder;
use super::memory;
use super::state::MachineStateV1;
use crate::blueprint::Blueprint;
use crate::kvm::state::{VcpuStateV1, VmStateV1};

/// Who wrote a file.
const WRITER: &str = concat!("coracle ", env!("CARGO_PKG_VERSION"));

/// The files of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// That of the machine's state.
    pub state: PathBuf,
    /// That of its memory.
    pub memory: PathBuf,
}

/// The time for which a machine stands still. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stillness(Arc<AtomicBool>);

impl Stillness {
    /// Ends it. To be called before anything moves.
    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it has come to its end: if not, nothing has moved since it began.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// All of a machine but its memory, at one moment.
#[derive(Debug)]
pub(crate) struct Capture {
    machine: MachineStateV1,
    sections: Builder,
}

impl Capture {
    /// The devices of a machine that stands still. `spec` describes it as it is now, `system` is
    /// the root disk of the built-in guest, where it is that.
    ///
    /// # Errors
    /// When a device does not stand still.
    pub(crate) fn of(
        blueprint: &Blueprint,
        spec: &MachineSpec,
        system: Option<&[u8]>,
        devices: &Devices,
    ) -> Result<Self, SaveError> {
        let mut sections = Builder::default();
        devices.save(&mut sections)?;
        let machine = MachineStateV1::of(blueprint, spec, system);
        Ok(Self { machine, sections })
    }

    /// Adds what KVM keeps of it. After the devices: what one of them has raised is in the
    /// interrupt controllers by now.
    pub(crate) fn add_cpus(&mut self, vm: &VmStateV1, vcpus: &[VcpuStateV1]) {
        self.sections.add("", vm);
        for vcpu in vcpus {
            self.sections.add(&vcpu.id.to_string(), vcpu);
        }
    }

    /// Writes it with the memory `ram`, which nobody may change meanwhile. The files get their
    /// names when they are on the disk, the memory's first.
    ///
    /// # Errors
    /// [`SaveError`]: no file is there that was not there before.
    pub(crate) fn write(
        mut self,
        ram: &GuestRam,
        to: &Target,
        stillness: &Stillness,
    ) -> Result<(), SaveError> {
        let id = random_id().map_err(SaveError::write(&to.memory))?;
        let memory = NewFile::begin(&to.memory).map_err(SaveError::of(&to.memory))?;
        let state = NewFile::begin(&to.state).map_err(SaveError::of(&to.state))?;
        let sums = memory::write(ram, memory.file(), id);
        // Looked at once all of the memory is read.
        if stillness.has_ended() {
            return Err(SaveError::Moved);
        }
        self.machine.memory_sums = sums.map_err(SaveError::write(&to.memory))?;
        self.machine.memory_id = id;
        self.sections.add("", &self.machine);
        let written = state.file().write_all(&self.sections.finish(WRITER));
        written.map_err(SaveError::write(&to.state))?;
        memory.replace().map_err(SaveError::of(&to.memory))?;
        state.replace().map_err(SaveError::of(&to.state))
    }
}
