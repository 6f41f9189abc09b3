//! The sweep of all registers of all devices.

use devices::bus::BusDevice;
use devices::legacy::i8042::I8042;
use devices::legacy::ioapic::IoApic;
use devices::legacy::pm::Pm;
use devices::legacy::pvpanic::{PanicAction, Pvpanic};
use devices::legacy::serial::Serial;
use devices::legacy::watchdog::{WatchdogAction, watchdog};
use devices::line::power_line;
use devices::pci::{ConfigPorts, Ecam, Header, PciRoot};
use devices::{Bus, IrqLine, PowerEvent};
use hostile::sweep::{self, START, bus};
use hostile::{Transport, rows};
use std::io::Write;
use std::sync::{Arc, Mutex};

fn shared<D: BusDevice + 'static>(device: D, len: u64) -> (Arc<Mutex<D>>, Bus) {
    let device = Arc::new(Mutex::new(device));
    let bus = bus(Arc::clone(&device) as _, len);
    (device, bus)
}

fn read(bus: &Bus, offset: u64) -> u8 {
    let mut data = [0];
    bus.read(START + offset, &mut data);
    data[0]
}

fn write(bus: &Bus, offset: u64, value: u8) {
    bus.write(START + offset, &[value]);
}

#[test]
fn every_register_of_every_virtio_device() {
    let mut accesses = 0;
    for subject in rows::subjects() {
        for transport in [Transport::Mmio, Transport::Pci] {
            let swept = sweep::virtio(subject, transport);
            let name = transport.name();
            accesses += swept.unwrap_or_else(|wrong| panic!("{subject:?} over {name}: {wrong:?}"));
        }
    }
    println!("hostile sweep of virtio devices: {accesses} accesses");
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut output = self.0.lock().unwrap();
        // A guest may print for ever.
        output.clear();
        output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn serial_port() {
    let output = Output::default();
    let port = Serial::new(IrqLine::new().unwrap(), Box::new(output.clone())).unwrap();
    let (_, bus) = shared(port, 8);
    println!("hostile sweep of serial: {}", sweep::legacy(&bus, 0..8));
    // Eight bits, no divisor latch, no loop back: a byte comes out.
    write(&bus, 3, 3);
    write(&bus, 4, 0);
    assert_eq!(read(&bus, 5) & 0x20, 0x20, "room to send");
    write(&bus, 0, b'x');
    assert_eq!(*output.0.lock().unwrap(), b"x");
}

#[test]
fn keyboard_controller() {
    let (power, events) = power_line().unwrap();
    let (_, bus) = shared(I8042::new(power), 5);
    println!("hostile sweep of i8042: {}", sweep::legacy(&bus, 0..5));
    while events.take().is_some() {}
    assert_eq!(read(&bus, 4) & 2, 0);
    write(&bus, 4, 0xfe);
    assert_eq!(events.take(), Some(PowerEvent::Reset));
}

#[test]
fn power_registers() {
    let (power, events) = power_line().unwrap();
    let (_, bus) = shared(Pm::new(IrqLine::new().unwrap(), power), 8);
    println!("hostile sweep of pm: {}", sweep::legacy(&bus, 0..8));
    while events.take().is_some() {}
    write(&bus, 0, 0x34);
    assert_eq!(events.take(), Some(PowerEvent::PowerOff));
}

#[test]
fn interrupt_controller() {
    let messages = Arc::new(Mutex::new(None));
    let told = Arc::clone(&messages);
    let sink = Box::new(move |pin, message| *told.lock().unwrap() = Some((pin, message)));
    let (_, bus) = shared(IoApic::new(24, sink), 0x1000);
    println!(
        "hostile sweep of ioapic: {}",
        sweep::legacy(&bus, 0..0x1000)
    );
    bus.write(START, &[0x11, 0, 0, 0]);
    bus.write(START + 0x10, &[0, 0, 1, 0]);
    bus.write(START, &[0x10, 0, 0, 0]);
    bus.write(START + 0x10, &[0x41, 0, 0, 0]);
    let (pin, message) = messages.lock().unwrap().take().unwrap();
    assert_eq!((pin, message.map(|message| message.data)), (0, Some(0x41)));
}

#[test]
fn watchdog_ports() {
    let (power, _events) = power_line().unwrap();
    let (registers, _timer) = watchdog(WatchdogAction::Report, power).unwrap();
    let (_, bus) = shared(registers, 3);
    println!("hostile sweep of watchdog: {}", sweep::legacy(&bus, 0..3));
    write(&bus, 2, 0);
    write(&bus, 0, 0);
}

#[test]
fn panic_port() {
    let (power, events) = power_line().unwrap();
    let (_, bus) = shared(Pvpanic::new(PanicAction::End, power), 1);
    println!("hostile sweep of pvpanic: {}", sweep::legacy(&bus, 0..1));
    while events.take().is_some() {}
    assert_eq!(read(&bus, 0), 3);
    write(&bus, 0, 1);
    assert_eq!(events.take(), Some(PowerEvent::Panicked));
}

/// A root bus with a header that belongs to nothing at device 3.
fn root() -> Arc<PciRoot> {
    let mut root = PciRoot::new();
    let id = devices::pci::FunctionId {
        vendor: 0x1af4,
        device: 0x1044,
        revision: 1,
        class: 0xff,
        subsystem: (0, 0),
    };
    root.insert(3, Arc::new(Mutex::new(Header::new(&id))))
        .unwrap();
    Arc::new(root)
}

#[test]
fn pci_configuration_ports() {
    let (_, bus) = shared(ConfigPorts::new(root()), 8);
    let mut accesses = 0;
    for address in [
        0,
        0x8000_0000_u32,
        0x8000_1800,
        0x8000_18fc,
        0x8000_f800,
        u32::MAX,
    ] {
        bus.write(START, &address.to_le_bytes());
        accesses += sweep::legacy(&bus, 0..8);
    }
    for register in 0..64_u32 {
        bus.write(START, &(0x8000_1800 | register << 2).to_le_bytes());
        accesses += sweep::legacy(&bus, 4..8);
    }
    println!("hostile sweep of the PCI ports: {accesses}");
    bus.write(START, &0x8000_1800_u32.to_le_bytes());
    let mut id = [0; 4];
    bus.read(START + 4, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x1044_1af4);
}

#[test]
fn pci_configuration_window() {
    let (_, bus) = shared(Ecam::new(root()), 1 << 20);
    // The host bridge, nothing, a function's second half of functions, the last.
    let mut accesses = 0;
    for function in [0, 1, 3 << 3, (3 << 3) + 1, 255_u64] {
        accesses += sweep::legacy(&bus, function << 12..(function << 12) + 0x200);
        accesses += sweep::legacy(&bus, (function << 12) + 0xff0..(function + 1) << 12);
    }
    println!("hostile sweep of the PCI window: {accesses}");
    let mut id = [0; 4];
    bus.read(START + (3 << 15), &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x1044_1af4);
}
