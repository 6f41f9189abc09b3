//! The root bus and the two ways to its configuration spaces: a pair of ports (configuration
//! mechanism 1, PCI Local Bus 3.0, 3.2.2.3.2) and a window in memory (PCI Express, 7.2.2).
//!
//! There is one bus, number 0, whose device 0 is the host bridge. Functions that are not there
//! read all ones.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::header::{self, FunctionId, Header};
use crate::bus::{BadAccess, BusDevice, Width};
use crate::state;
use crate::state::{BadState, NotSaved, Persist, Section};

/// Devices on a bus.
pub const DEVICES: usize = 32;
/// The bytes of the window in memory: a bus of 32 devices with 8 functions of 4 KiB.
pub const ECAM_BYTES: u64 = 1 << 20;
/// The ports: address and data, four bytes each.
pub const CONFIG_PORTS: u16 = 8;

/// Bit of the address register: the data port reaches configuration space.
const ENABLE: u32 = 1 << 31;
/// The bits of the address register that there are.
const ADDRESS: u32 = ENABLE | 0x00ff_fffc;

/// A host bridge as QEMU's generic one says it is: no driver takes it for another's.
const HOST_BRIDGE: FunctionId = FunctionId {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x0600,
    subsystem: (0x1af4, 0x1100),
};

/// A function's configuration space, offsets from 0 to 4095. The root hands over only accesses
/// of one, two or four bytes that lie within one doubleword.
pub trait PciFunction: Send {
    /// Reads; only the bytes of `width` count.
    fn read_config(&mut self, offset: u16, width: Width) -> u32;

    /// Writes; the bytes of `value` beyond `width` are zero.
    fn write_config(&mut self, offset: u16, width: Width, value: u32);
}

/// A header to which nothing belongs, such as the host bridge's.
impl PciFunction for Header {
    fn read_config(&mut self, offset: u16, width: Width) -> u32 {
        self.read(offset, width)
    }

    fn write_config(&mut self, offset: u16, width: Width, value: u32) {
        self.write(offset, width, value);
    }
}

/// A place on the bus that does not exist or that another device has.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("PCI device {0} is taken or no device of a bus")]
pub struct Taken(pub u8);

/// The root bus. Filled once and then shared; a configuration access locks the one function
/// that it is for.
pub struct PciRoot {
    functions: [Option<Arc<Mutex<dyn PciFunction>>>; DEVICES],
    bridge: Arc<Mutex<Header>>,
}

impl Default for PciRoot {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = self.functions.iter().enumerate();
        let there = there.filter_map(|(device, function)| function.as_ref().map(|_| device));
        f.debug_list().entries(there).finish()
    }
}

impl PciRoot {
    /// A bus with its host bridge and nothing else.
    pub fn new() -> Self {
        let bridge = Arc::new(Mutex::new(Header::new(&HOST_BRIDGE)));
        let mut functions = <[_; DEVICES]>::default();
        if let Some(place) = functions.first_mut() {
            *place = Some(Arc::clone(&bridge) as _);
        }
        Self { functions, bridge }
    }

    /// Puts a function at device number `device`.
    ///
    /// # Errors
    /// [`Taken`] when there is no such place or it is not free.
    pub fn insert(
        &mut self,
        device: u8,
        function: Arc<Mutex<dyn PciFunction>>,
    ) -> Result<(), Taken> {
        match self.functions.get_mut(usize::from(device)) {
            Some(place) if place.is_none() => *place = Some(function),
            _ => return Err(Taken(device)),
        }
        Ok(())
    }

    fn bridge(&self) -> MutexGuard<'_, Header> {
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function at an address as both ways form it: bus, device and function number in
    /// bits 8 and up.
    fn function(&self, address: u32) -> Option<&Mutex<dyn PciFunction>> {
        let [number, bus, ..] = (address >> 8).to_le_bytes();
        let place = self.functions.get(usize::from(number >> 3))?;
        // Single functions only, on the one bus.
        place.as_deref().filter(|_| bus == 0 && number & 7 == 0)
    }

    fn read(&self, address: u32, offset: u16, width: Width) -> Result<u64, BadAccess> {
        check(offset, width)?;
        let value = self.function(address).map_or(u32::MAX, |function| {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            function.read_config(offset, width)
        });
        Ok(value.into())
    }

    fn write(&self, address: u32, offset: u16, width: Width, value: u64) -> Result<(), BadAccess> {
        check(offset, width)?;
        let value = u32::try_from(value).map_err(|_| BadAccess)?;
        if let Some(function) = self.function(address) {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            function.write_config(offset, width, value & header::ones(width));
        }
        Ok(())
    }
}

/// Whether an access lies within one doubleword.
fn check(offset: u16, width: Width) -> Result<(), BadAccess> {
    let within = u64::from(offset % 4) + width.bytes() <= 4;
    within.then_some(()).ok_or(BadAccess)
}

/// The ports 0xCF8 to 0xCFF.
#[derive(Debug)]
pub struct ConfigPorts {
    root: Arc<PciRoot>,
    address: u32,
}

impl ConfigPorts {
    /// Ports to `root`'s configuration spaces.
    pub fn new(root: Arc<PciRoot>) -> Self {
        Self { root, address: 0 }
    }

    /// The offset in configuration space of an access to the data port, which is off unless
    /// the address says that it is on.
    fn offset(&self, port: u64) -> Result<u16, BadAccess> {
        let lane = port.checked_sub(4).ok_or(BadAccess)?;
        let [register, ..] = self.address.to_le_bytes();
        let lane = u16::try_from(lane).map_err(|_| BadAccess)?;
        let on = self.address & ENABLE != 0;
        on.then(|| u16::from(register) | lane).ok_or(BadAccess)
    }
}

impl BusDevice for ConfigPorts {
    /// The address register is there for whole doublewords only.
    fn read(&mut self, port: u64, width: Width) -> Result<u64, BadAccess> {
        match (port, width) {
            (0, Width::Dword) => Ok(self.address.into()),
            _ => self.root.read(self.address, self.offset(port)?, width),
        }
    }

    fn write(&mut self, port: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        match (port, width) {
            (0, Width::Dword) => {
                self.address = u32::try_from(value).map_err(|_| BadAccess)? & ADDRESS;
                Ok(())
            }
            _ => {
                let offset = self.offset(port)?;
                self.root.write(self.address, offset, width, value)
            }
        }
    }
}

state! {
    /// The ports, and the host bridge that comes with every bus.
    pub struct PciStateV1: "pci", 1 {
        /// What is in the address register.
        pub address: u32,
        /// The host bridge's configuration space.
        pub bridge: [u8; header::LEN],
    }
}

impl Persist for ConfigPorts {
    fn save(&self) -> Result<Vec<u8>, NotSaved> {
        let address = self.address;
        let bridge = *self.root.bridge().bytes();
        Ok(PciStateV1 { address, bridge }.to_tagged())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let PciStateV1 { address, bridge } = PciStateV1::from_tagged(state)?;
        BadState::unless(address & !ADDRESS == 0, "a configuration address", address)?;
        self.root.bridge().restore(&bridge)?;
        self.address = address;
        Ok(())
    }
}

/// The window in memory, for bus 0.
#[derive(Debug)]
pub struct Ecam {
    root: Arc<PciRoot>,
}

impl Ecam {
    /// A window to `root`'s configuration spaces.
    pub fn new(root: Arc<PciRoot>) -> Self {
        Self { root }
    }
}

/// Splits an offset in the window: the address as the ports have it, the offset in the space.
fn split(offset: u64) -> Result<(u32, u16), BadAccess> {
    let number = u32::try_from(offset >> 12).map_err(|_| BadAccess)?;
    let offset = u16::try_from(offset & 0xfff).map_err(|_| BadAccess)?;
    Ok((number << 8, offset))
}

impl BusDevice for Ecam {
    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BadAccess> {
        let (address, offset) = split(offset)?;
        self.root.read(address, offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        let (address, offset) = split(offset)?;
        self.root.write(address, offset, width, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers accesses, and answers with its offset.
    #[derive(Debug, Default)]
    struct Probe(Vec<(u16, Width, u32)>);

    impl PciFunction for Probe {
        fn read_config(&mut self, offset: u16, _: Width) -> u32 {
            offset.into()
        }

        fn write_config(&mut self, offset: u16, width: Width, value: u32) {
            self.0.push((offset, width, value));
        }
    }

    fn root() -> (Arc<PciRoot>, Arc<Mutex<Probe>>) {
        let mut root = PciRoot::new();
        let probe = Arc::new(Mutex::new(Probe::default()));
        root.insert(31, Arc::clone(&probe) as _).unwrap();
        assert_eq!(root.insert(31, Arc::clone(&probe) as _), Err(Taken(31)));
        assert_eq!(root.insert(0, Arc::clone(&probe) as _), Err(Taken(0)));
        assert_eq!(root.insert(32, Arc::clone(&probe) as _), Err(Taken(32)));
        (Arc::new(root), probe)
    }

    #[test]
    fn ports_reach_a_function_once_enabled() {
        let (root, probe) = root();
        let mut ports = ConfigPorts::new(root);
        let dword = Width::Dword;
        assert_eq!(ports.read(4, dword), Err(BadAccess), "not enabled");
        // What Linux does to see that the mechanism is there.
        assert_eq!(ports.write(3, Width::Byte, 1), Err(BadAccess));
        ports.write(0, dword, 0x8000_0000).unwrap();
        assert_eq!(ports.read(0, dword), Ok(0x8000_0000));
        assert_eq!(ports.read(4, dword), Ok(0x0008_1b36));
        assert_eq!(ports.read(6, Width::Word), Ok(0x0008));
        assert_eq!(ports.read(0, Width::Byte), Err(BadAccess));
        assert_eq!(ports.read(2, dword), Err(BadAccess));
        assert_eq!(ports.read(7, Width::Word), Err(BadAccess));
        // The reserved and the lowest bits are not there.
        ports.write(0, dword, 0xff00_f8ff).unwrap();
        assert_eq!(ports.read(0, dword), Ok(0x8000_f8fc));
        assert_eq!(ports.read(5, Width::Byte), Ok(0xfd));
        ports.write(6, Width::Word, 0xabcd).unwrap();
        assert_eq!(probe.lock().unwrap().0, [(0xfe, Width::Word, 0xabcd)]);
        for absent in [0x8000_0800_u64, 0x8000_f900, 0x8001_f800, 0x8001_0000] {
            ports.write(0, dword, absent).unwrap();
            assert_eq!(ports.read(4, dword), Ok(0xffff_ffff), "{absent:#x}");
            ports.write(4, dword, 1).unwrap();
        }
        assert_eq!(probe.lock().unwrap().0.len(), 1);
    }

    #[test]
    fn the_address_and_the_bridge_outlive_a_restore() {
        let mut before = ConfigPorts::new(root().0);
        before.write(0, Width::Dword, 0x8000_0004).unwrap();
        before.write(4, Width::Word, 0x0402).unwrap();
        let state = before.save().unwrap();
        let mut after = ConfigPorts::new(root().0);
        after.restore(&state).unwrap();
        assert_eq!(after.save().unwrap(), state);
        assert_eq!(after.read(4, Width::Word), Ok(0x0402));
        crate::testing::persistence::cuts_are_refused(&mut after, &state);
        let mut other = state;
        let last = other.len() - 1;
        other[last] ^= 1;
        assert!(after.restore(&other).is_err(), "another function's");
    }

    #[test]
    fn the_window_reaches_the_same_functions() {
        let (root, probe) = root();
        let mut ecam = Ecam::new(root);
        let last = 31 << 15;
        assert_eq!(ecam.read(0, Width::Dword), Ok(0x0008_1b36));
        assert_eq!(ecam.read(9, Width::Byte), Ok(0), "interface");
        assert_eq!(ecam.read(0xa, Width::Word), Ok(0x0600), "a host bridge");
        assert_eq!(ecam.read(0x100, Width::Dword), Ok(0xffff_ffff));
        assert_eq!(ecam.read(last + 0xffc, Width::Dword), Ok(0xffc));
        assert_eq!(ecam.read(1 << 15, Width::Dword), Ok(0xffff_ffff));
        assert_eq!(ecam.read(last + 0x1000, Width::Word), Ok(0xffff_ffff));
        for (offset, width) in [(2, Width::Dword), (3, Width::Word), (0, Width::Qword)] {
            assert_eq!(ecam.read(last + offset, width), Err(BadAccess));
            assert_eq!(ecam.write(last + offset, width, 0), Err(BadAccess));
        }
        ecam.write(last + 0x13, Width::Byte, 0x77).unwrap();
        ecam.write(ECAM_BYTES - 0x1000, Width::Dword, 1).unwrap();
        assert_eq!(probe.lock().unwrap().0, [(0x13, Width::Byte, 0x77)]);
    }
}
