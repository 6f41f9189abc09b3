//! The devices of a machine as they are saved and restored: a section each, by their names in the
//! blueprint.
//!
//! A machine is restored in this order: it is built as from its blueprint, its I/O thread runs,
//! its devices are [restored](Devices::restore) and rest as in a pause, then its vCPUs and their
//! interrupt controllers take their states; [`Devices::tell_again`]; and the pause ends. A device
//! that is not restored does not rest, so that either all are restored or none.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::state;
use devices::state::{BadState, NotSaved, Persist};

use super::format::{Builder, FormatError, Sections};

state! {
    /// A device, with its kind and version in front.
    struct DeviceStateV1: "device", 1 {
        state: Vec<u8>,
    }
}

/// A device that could not be saved.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("device {name} cannot be saved: {cause}")]
pub struct DeviceNotSaved {
    /// Its name.
    pub name: String,
    /// Why.
    pub cause: NotSaved,
}

/// A device that could not be restored.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DeviceNotRestored {
    /// The file has no state of it.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It cannot have that state.
    #[error("device {name} cannot be restored")]
    State {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        cause: BadState,
    },
}

/// A device, or its registers, as the bus has them too.
pub type Part = Arc<Mutex<dyn Persist>>;

/// All devices of a machine that have a state, by their names.
#[derive(Default)]
pub struct Devices(Vec<(String, Part)>);

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl Devices {
    /// Adds one.
    pub fn add(&mut self, name: &str, part: Part) {
        self.0.push((name.to_owned(), part));
    }

    /// Adds a section for each to a file. The machine is paused.
    ///
    /// # Errors
    /// When a device is not at rest.
    pub fn save(&self, file: &mut Builder) -> Result<(), DeviceNotSaved> {
        for (name, part) in &self.0 {
            let saved = lock(part).save().map_err(|cause| DeviceNotSaved {
                name: name.clone(),
                cause,
            });
            file.add(name, &DeviceStateV1 { state: saved? });
        }
        Ok(())
    }

    /// Restores all from their sections of a file. They rest then, until the end of a pause.
    ///
    /// # Errors
    /// When one cannot be: the machine is of no use then.
    pub fn restore(&self, file: &mut Sections<'_>) -> Result<(), DeviceNotRestored> {
        for (name, part) in &self.0 {
            let DeviceStateV1 { state } = file.take(name)?;
            let restored = lock(part).restore(&state);
            restored.map_err(|cause| DeviceNotRestored::State {
                name: name.clone(),
                cause,
            })?;
        }
        Ok(())
    }

    /// Tells the guest again of what may have been on its way when it was saved.
    pub fn tell_again(&self) {
        for (_, part) in &self.0 {
            lock(part).tell_again();
        }
    }
}

fn lock<'a>(part: &'a Mutex<dyn Persist + 'static>) -> MutexGuard<'a, dyn Persist + 'static> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use devices::event::Loop;
    use devices::testing::small_ram;
    use devices::virtio::rng::Rng;
    use devices::virtio::{SlotHandle, connect};
    use devices::{GuestRam, IrqLine};

    use super::*;

    /// Entropy devices of these names, whose loop runs on a thread until the guard goes.
    fn machine(ram: &GuestRam, names: &[&str]) -> (Devices, Vec<SlotHandle>, Running) {
        let mut io = Loop::new().unwrap();
        let mut devices = Devices::default();
        let mut handles = Vec::new();
        for name in names {
            let line = IrqLine::new().unwrap();
            let model = Box::new(Rng::new());
            let connected = connect((*name).to_owned(), model, ram.clone(), line).unwrap();
            devices.add(name, Arc::new(Mutex::new(connected.transport)));
            handles.push(connected.handle);
            io.add(Box::new(connected.slot));
        }
        let remote = io.remote();
        let thread = std::thread::spawn(move || io.run().unwrap());
        (devices, handles, Running(Some((remote, thread))))
    }

    struct Running(Option<(devices::event::Remote, std::thread::JoinHandle<()>)>);

    impl Drop for Running {
        fn drop(&mut self) {
            let (remote, thread) = self.0.take().unwrap();
            remote.stop();
            thread.join().unwrap();
        }
    }

    fn pause(handles: &[SlotHandle]) {
        for handle in handles {
            let rest = handle.begin_pause().unwrap();
            assert_eq!(rest.within(Duration::from_secs(60)), Some(Ok(())));
        }
    }

    fn file(devices: &Devices) -> Vec<u8> {
        let mut file = Builder::default();
        devices.save(&mut file).unwrap();
        file.finish("test")
    }

    #[test]
    fn devices_on_a_loop_are_saved_and_restored() {
        let ram = small_ram();
        let (devices, handles, _running) = machine(&ram, &["a", "b"]);
        let mut early = Builder::default();
        let refused = devices.save(&mut early).unwrap_err().to_string();
        assert_eq!(refused, "device a cannot be saved: it is not at rest");
        pause(&handles);
        let saved = file(&devices);
        let (others, _, _running) = machine(&ram, &["a", "b"]);
        let mut sections = Sections::read(&saved).unwrap();
        others.restore(&mut sections).unwrap();
        sections.finish().unwrap();
        others.tell_again();
        assert_eq!(file(&others), saved, "they rest, and are the same");
    }

    #[test]
    fn a_device_without_a_section_and_one_with_another_s_are_named() {
        let ram = small_ram();
        let (devices, handles, _running) = machine(&ram, &["a"]);
        pause(&handles);
        let saved = file(&devices);
        let (others, ..) = machine(&ram, &["b"]);
        let mut sections = Sections::read(&saved).unwrap();
        let refused = others.restore(&mut sections).unwrap_err().to_string();
        assert_eq!(refused, "it has no section device b");
        let mut file = Builder::default();
        let state = vec![0; 7];
        file.add("a", &DeviceStateV1 { state });
        let saved = file.finish("test");
        let refused = devices.restore(&mut Sections::read(&saved).unwrap());
        let refused = refused.unwrap_err().to_string();
        assert_eq!(refused, "device a cannot be restored");
    }
}
