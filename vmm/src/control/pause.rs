//! Pausing a machine: first its vCPUs stand still at completed exits, then its devices come to
//! rest. What is paused changes no more until it goes on, so that it can be looked at as a whole.
//!
//! ```text
//! Running ──advance──▶ Cpus ──all stand──▶ Devices ──all rest──▶ Paused
//!    ▲                   │                    │                    │
//!    └──────resume───────┴────────────────────┴────────────────────┘
//! ```
//!
//! Nothing here waits: who wants a pause looks again until it is there, and gives it up by
//! resuming. In this order, because a vCPU may wait for a device, and no device for a vCPU.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use api::machine::MachineState;
use devices::legacy::WatchdogPause;
use devices::virtio::slot::Rest;
use devices::virtio::{SlotGone, SlotHandle};

use crate::kvm::state::VcpuStateV1;
use crate::snapshot::{SaveError, Stillness};
use crate::vcpu::VcpuThreads;

/// The vCPUs as a pause sees them.
pub(crate) trait Cpus {
    /// Makes all of them stand still: whether they do.
    fn pause(&self) -> bool;

    /// Lets all of them go on.
    fn resume(&self);

    /// Limits what they use of the host's CPUs, in hundredths of one.
    ///
    /// # Errors
    /// The host's reason; nothing has changed then.
    fn limit(&self, percent: Option<NonZeroU32>) -> io::Result<()>;
    /// Their states, while all of them stand still. `msrs` are those of
    /// [`Kvm::saved_msrs`](crate::kvm::Kvm::saved_msrs).
    fn save(&self, msrs: Vec<u32>) -> Result<Vec<VcpuStateV1>, SaveError>;
}

impl Cpus for VcpuThreads {
    fn pause(&self) -> bool {
        VcpuThreads::pause(self)
    }

    fn resume(&self) {
        VcpuThreads::resume(self);
    }

    fn limit(&self, percent: Option<NonZeroU32>) -> io::Result<()> {
        VcpuThreads::limit(self, percent)
    }

    fn save(&self, msrs: Vec<u32>) -> Result<Vec<VcpuStateV1>, SaveError> {
        VcpuThreads::save(self, msrs)
    }
}

/// The machine's standing still or running, for who changes it.
pub(crate) struct Life<'a> {
    pub(crate) pause: &'a mut Pause,
    pub(crate) cpus: &'a dyn Cpus,
}

impl Life<'_> {
    /// The state of a machine that is started.
    pub(crate) fn state(&self) -> MachineState {
        self.pause.state()
    }

    /// As [`Pause::advance`].
    pub(crate) fn pause(&mut self, patience: Duration) -> Option<Result<(), SlotGone>> {
        self.pause.advance(self.cpus, patience)
    }

    /// As [`Cpus::limit`].
    pub(crate) fn limit(&self, percent: Option<NonZeroU32>) -> io::Result<()> {
        self.cpus.limit(percent)
    }

    /// As [`Pause::resume`].
    pub(crate) fn resume(&mut self) {
        self.pause.resume(self.cpus);
    }
}

/// Where a machine is on its way to a pause.
#[derive(Debug, Default)]
enum Phase {
    #[default]
    Running,
    /// The vCPUs have been told.
    Cpus,
    /// The devices have been told: who has not answered yet.
    Devices(Vec<(usize, Result<Rest, SlotGone>)>),
    Paused,
}

/// A machine's pause, whether there is one or not.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    phase: Phase,
    devices: Vec<(String, SlotHandle)>,
    watchdog: Option<WatchdogPause>,
    /// Ends when the machine goes on.
    stillness: Stillness,
}

/// Whom a pause that does not come about waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited<'a> {
    /// A vCPU, which itself waits for the host.
    Cpus,
    /// A device.
    Device(&'a str),
}

impl fmt::Display for Awaited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus => f.write_str("a vCPU"),
            Self::Device(name) => f.write_str(name),
        }
    }
}

impl Pause {
    /// For a machine with these devices.
    pub(crate) fn new(devices: Vec<(String, SlotHandle)>, watchdog: Option<WatchdogPause>) -> Self {
        Self {
            phase: Phase::Running,
            devices,
            watchdog,
            stillness: Stillness::default(),
        }
    }

    /// The same for a machine that stands still from the beginning.
    pub(crate) fn begun(mut self) -> Self {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.pause();
        }
        self.phase = Phase::Paused;
        self
    }

    /// Lasts until a paused machine goes on.
    pub(crate) fn stillness(&self) -> &Stillness {
        &self.stillness
    }

    /// Whether everything stands still.
    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.phase, Phase::Paused)
    }

    /// The state of the machine for those who ask.
    pub(crate) fn state(&self) -> MachineState {
        match self.is_paused() {
            true => MachineState::Paused,
            false => MachineState::Running,
        }
    }

    /// Whether the machine runs and nobody has asked for a pause.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// Pauses the machine, as far as that can be done now: its end, once it has one. A device's
    /// answer is waited for that long.
    ///
    /// # Errors
    /// When a device's loop has ended: so has the machine.
    pub(crate) fn advance(
        &mut self,
        cpus: &dyn Cpus,
        patience: Duration,
    ) -> Option<Result<(), SlotGone>> {
        loop {
            match &mut self.phase {
                Phase::Running => self.phase = Phase::Cpus,
                Phase::Cpus => {
                    if !cpus.pause() {
                        return None;
                    }
                    // Nobody can feed it now.
                    if let Some(watchdog) = &mut self.watchdog {
                        watchdog.pause();
                    }
                    let told = self.devices.iter().map(|(_, handle)| handle.begin_pause());
                    self.phase = Phase::Devices(told.enumerate().collect());
                }
                Phase::Devices(awaited) => {
                    while let Some((_, rest)) = awaited.last() {
                        let rested = match rest {
                            Ok(rest) => rest.within(patience)?,
                            Err(gone) => Err(*gone),
                        };
                        if let Err(gone) = rested {
                            return Some(Err(gone));
                        }
                        awaited.pop();
                    }
                    self.phase = Phase::Paused;
                }
                Phase::Paused => return Some(Ok(())),
            }
        }
    }

    /// Whom it waits for.
    pub(crate) fn awaits(&self) -> Option<Awaited<'_>> {
        match &self.phase {
            Phase::Running | Phase::Paused => None,
            Phase::Cpus => Some(Awaited::Cpus),
            Phase::Devices(awaited) => {
                let (place, _) = awaited.last()?;
                let (name, _) = self.devices.get(*place)?;
                Some(Awaited::Device(name))
            }
        }
    }

    /// Lets everything go on, wherever it is.
    pub(crate) fn resume(&mut self, cpus: &dyn Cpus) {
        let before = std::mem::take(&mut self.phase);
        // First of all: who reads the machine's memory must not take what it does now for that.
        std::mem::take(&mut self.stillness).end();
        if matches!(before, Phase::Devices(_) | Phase::Paused) {
            for (_, handle) in &self.devices {
                // One that is gone has nothing to go on with.
                let _ = handle.resume();
            }
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.resume();
            }
        }
        if !matches!(before, Phase::Running) {
            cpus.resume();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use devices::IrqLine;
    use devices::disk::MemoryDisk;
    use devices::virtio::blk::Block;
    use devices::virtio::{DeviceSlot, connect};

    use super::*;

    /// vCPUs that stand still when the test lets them.
    #[derive(Default)]
    struct Fake {
        obey: Cell<bool>,
        told: Cell<&'static str>,
    }

    impl Cpus for Fake {
        fn pause(&self) -> bool {
            self.told.set("pause");
            self.obey.get()
        }

        fn resume(&self) {
            self.told.set("resume");
        }

        fn limit(&self, _: Option<NonZeroU32>) -> io::Result<()> {
            self.told.set("limit");
            Ok(())
        }

        fn save(&self, _: Vec<u32>) -> Result<Vec<VcpuStateV1>, SaveError> {
            Ok(Vec::new())
        }
    }

    fn machine() -> (Pause, Vec<DeviceSlot>) {
        let device = |name: &str| {
            let block = Block::new(Box::new(MemoryDisk::new(&[0; 512])), "");
            let ram = devices::testing::small_ram();
            let line = IrqLine::new().unwrap();
            let connected = connect(name.into(), Box::new(block), ram, line).unwrap();
            ((name.to_owned(), connected.handle), connected.slot)
        };
        let (handles, slots) = ["a", "b"].into_iter().map(device).unzip();
        (Pause::new(handles, None), slots)
    }

    #[test]
    fn cpus_stand_before_devices_are_told_and_all_rest_in_the_end() {
        let (mut pause, mut slots) = machine();
        let cpus = Fake::default();
        let now = Duration::ZERO;
        assert!(pause.is_running() && pause.awaits().is_none());
        for _ in 0..3 {
            assert_eq!(pause.advance(&cpus, now), None);
            assert_eq!(pause.awaits(), Some(Awaited::Cpus));
            assert!(!slots.iter_mut().any(DeviceSlot::step), "told too early");
        }
        cpus.obey.set(true);
        assert_eq!(pause.advance(&cpus, now), None);
        assert_eq!(pause.awaits(), Some(Awaited::Device("b")));
        assert!(slots[1].step());
        assert_eq!(pause.advance(&cpus, now), None);
        assert_eq!(pause.awaits(), Some(Awaited::Device("a")));
        assert!(!pause.is_paused() && !pause.is_running());
        assert!(slots[0].step());
        assert_eq!(pause.advance(&cpus, now), Some(Ok(())));
        assert!(pause.is_paused());
        assert_eq!(pause.advance(&cpus, now), Some(Ok(())), "again");
        pause.resume(&cpus);
        assert!(pause.is_running());
        assert_eq!(cpus.told.get(), "resume");
    }

    #[test]
    fn a_pause_can_be_given_up_anywhere() {
        let (mut pause, mut slots) = machine();
        let cpus = Fake::default();
        pause.resume(&cpus);
        assert_eq!(cpus.told.get(), "", "a machine that runs is left alone");
        assert_eq!(pause.advance(&cpus, Duration::ZERO), None);
        pause.resume(&cpus);
        assert_eq!(cpus.told.take(), "resume");
        cpus.obey.set(true);
        assert_eq!(pause.advance(&cpus, Duration::ZERO), None);
        pause.resume(&cpus);
        assert_eq!(cpus.told.take(), "resume");
        assert!(pause.is_running());
        // What was told late, and then to go on, does not count for the next pause.
        for slot in &mut slots {
            slot.step();
        }
        assert_eq!(pause.advance(&cpus, Duration::ZERO), None);
        drop(slots);
        assert_eq!(pause.advance(&cpus, Duration::ZERO), Some(Err(SlotGone)));
    }
}
