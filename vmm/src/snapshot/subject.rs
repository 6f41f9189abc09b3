//! A machine that can be saved, as the control thread has it, and its saving under way.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::Duration;

use api::spec::MachineSpec;
use devices::GuestRam;

use super::devices::Devices;
use super::error::SaveError;
use super::save::{Capture, Stillness, Target};
use crate::blueprint::Blueprint;
use crate::kvm::state::VcpuStateV1;
use crate::kvm::{Kvm, Vm};

/// What a machine is saved from.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) kvm: Kvm,
    pub(crate) vm: Vm,
    pub(crate) ram: GuestRam,
    pub(crate) blueprint: Blueprint,
    /// The root disk of the built-in guest, where it is that.
    pub(crate) system: Option<&'static [u8]>,
    pub(crate) devices: Devices,
}

impl Subject {
    /// Begins to save the machine, which stands still for as long as `stillness` lasts. What is
    /// small is gathered now, the memory is written by a thread of its own. `spec` describes the
    /// machine as it is, `vcpus` reads its vCPUs.
    ///
    /// # Errors
    /// [`SaveError`] when not all of it can be had.
    pub(crate) fn save(
        &self,
        spec: &MachineSpec,
        vcpus: impl FnOnce(Vec<u32>) -> Result<Vec<VcpuStateV1>, SaveError>,
        stillness: &Stillness,
        to: Target,
    ) -> Result<Saving, SaveError> {
        let mut capture = Capture::of(&self.blueprint, spec, self.system, &self.devices)?;
        let vcpus = vcpus(self.kvm.saved_msrs()?)?;
        capture.add_cpus(&self.vm.save()?, &vcpus);
        let (ram, stillness) = (self.ram.clone(), stillness.clone());
        let (sender, done) = channel();
        let write = move || {
            // Nobody listens when the machine has come to its end.
            let _ = sender.send(capture.write(&ram, &to, &stillness));
        };
        let thread = Builder::new().name("snapshot-writer".into()).spawn(write);
        thread.map(|_| Saving(done)).map_err(SaveError::Thread)
    }
}

/// A machine that is being written.
#[derive(Debug)]
pub(crate) struct Saving(Receiver<Result<(), SaveError>>);

impl Saving {
    /// How it has ended, if it does so in that time.
    pub(crate) fn within(&self, patience: Duration) -> Option<Result<(), SaveError>> {
        match self.0.recv_timeout(patience) {
            Ok(done) => Some(done),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(SaveError::Moved)),
        }
    }
}
