//! The one match from a device of the blueprint to its constructor.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use api::spec::{
    ConsolePortSpec, DiskCache, DiskFormat, PanicAction, PortBackend, SourceMac, WatchdogAction,
};
use devices::bus::{AddressRange, BusBuilder, BusDevice, Place};
use devices::disk::{Disk, MemoryDisk, OverlayDisk, Qcow2Disk, RawDisk};
use devices::event::Loop;
use devices::legacy::IoApic;
use devices::legacy::Pm;
use devices::legacy::{self, I8042, Pvpanic};
use devices::legacy::{Serial, SerialInput, WatchdogPause};
use devices::line::{Msi, Reporter};
use devices::log::RateLimit;
use devices::net::Link;
use devices::pci::PciRoot;
use devices::state::Persist;
use devices::tty::{Terminal, UserRequest};
use devices::virtio::balloon::{self, Balloon};
use devices::virtio::blk::Block;
use devices::virtio::console::{
    self, Console, ConsoleSource, PortSetup, Ports, SocketPort, TerminalPort,
};
use devices::virtio::interrupt::Fault;
use devices::virtio::net::{self, Net};
use devices::virtio::rng::Rng;
use devices::virtio::transport::mmio::QUEUE_NOTIFY;
use devices::virtio::transport::pci::WINDOW_BYTES;
use devices::virtio::vsock::{SocketFile, Vsock};
use devices::virtio::{DeviceSlot, SlotHandle, VirtioDevice, connect, connect_pci};
use devices::{Doorbell, GuestRam, IrqLine, PowerLine};
use mmds::{Metadata, MetadataLink, Service};

use super::MachineError;
use super::pci::{self, SharedRoutes};
use crate::blueprint::{
    Blueprint, DeviceBlueprint, DeviceKind, DiskBlueprint, DiskSource, PciBlueprint, Window,
};
use crate::config::{MmdsConfig, NetConfig};
use crate::kvm::{Routes, Vm};
use crate::snapshot::devices::Devices;
use crate::vcpu::Buses;

/// The attempt, when the host has no descriptors left for a virtio device.
const CONNECT: &str = "creating a virtio device's descriptors";

/// The attempt, when the host has no descriptors or random bytes for the metadata service.
const METADATA: &str = "creating the metadata service";

/// A doorbell that KVM could ring by itself, and where the driver writes.
#[derive(Debug)]
pub(super) struct BellAt {
    pub(super) bell: Doorbell,
    pub(super) address: u64,
    pub(super) queue: u32,
}

/// What single devices take with them.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) disks: Vec<Option<File>>,
    pub(super) links: Vec<Option<Box<dyn Link>>>,
    pub(super) system: Option<&'static [u8]>,
    pub(super) metadata: Metadata,
    pub(super) requests: Reporter<UserRequest>,
    pub(super) power: PowerLine,
    pub(super) faults: Reporter<Fault>,
}

/// What devices are built with, and what is built so far.
pub(super) struct Catalog<'a> {
    vm: &'a Vm,
    ram: &'a GuestRam,
    io: &'a mut Loop,
    terminal: &'a mut Terminal,
    parts: Parts,
    ports: BusBuilder,
    mmio: BusBuilder,
    routes: SharedRoutes,
    pci: Option<PciRoot>,
    ioapic: Option<Arc<Mutex<IoApic>>>,
    pm: Option<Arc<Mutex<Pm>>>,
    serial_button: Option<Arc<Mutex<Serial>>>,
    /// The built-in guest's init greets once it has the console open.
    hold_console_input: bool,
    console: Option<SlotHandle>,
    /// The metadata service, which is one on all networks that have it.
    service: Option<Service>,
    handles: Vec<(String, SlotHandle)>,
    watchdog: Option<WatchdogPause>,
    bells: Vec<BellAt>,
    devices: Devices,
}

/// The devices that others must reach.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) pm: Arc<Mutex<Pm>>,
    /// Where the built-in guest, which has no ACPI, hears of the power button.
    pub(super) serial_button: Option<Arc<Mutex<Serial>>>,
    pub(super) console: Option<SlotHandle>,
    /// Every virtio device by its name.
    pub(super) handles: Vec<(String, SlotHandle)>,
    pub(super) watchdog: Option<WatchdogPause>,
    pub(super) bells: Vec<BellAt>,
    /// Everything that a snapshot holds.
    pub(super) devices: Devices,
}

impl<'a> Catalog<'a> {
    pub(super) fn new(
        vm: &'a Vm,
        ram: &'a GuestRam,
        io: &'a mut Loop,
        terminal: &'a mut Terminal,
        parts: Parts,
        gsis: usize,
    ) -> Self {
        Self {
            vm,
            ram,
            io,
            terminal,
            parts,
            ports: BusBuilder::new("port"),
            mmio: BusBuilder::new("mmio"),
            routes: SharedRoutes::new(Routes::new(vm.clone(), gsis)),
            pci: None,
            ioapic: None,
            pm: None,
            serial_button: None,
            hold_console_input: false,
            console: None,
            service: None,
            handles: Vec::new(),
            watchdog: None,
            bells: Vec::new(),
            devices: Devices::default(),
        }
    }

    /// The buses, frozen, and what else must be reached.
    pub(super) fn finish(mut self) -> (Arc<Buses>, Built) {
        if let Some(root) = self.pci.take() {
            let ports = pci::attach_spaces(root, &mut self.ports, &mut self.mmio);
            self.devices.add("pci", ports);
        }
        let buses = Buses {
            ports: self.ports.freeze(),
            mmio: self.mmio.freeze(),
            ioapic: self
                .ioapic
                .expect("invariant: every blueprint has an IOAPIC"),
        };
        let built = Built {
            pm: self
                .pm
                .expect("invariant: every blueprint has the power registers"),
            serial_button: self.serial_button,
            console: self.console,
            handles: self.handles,
            watchdog: self.watchdog,
            bells: self.bells,
            devices: self.devices,
        };
        (Arc::new(buses), built)
    }

    /// Builds every device of the blueprint, in its order.
    pub(super) fn build(&mut self, blueprint: &Blueprint) -> Result<(), MachineError> {
        self.hold_console_input = blueprint.kernel.path.is_none();
        blueprint
            .devices
            .iter()
            .try_for_each(|device| self.add(device))?;
        if blueprint.kernel.path.is_some() {
            // Another guest would take the press for input.
            self.serial_button = None;
        }
        Ok(())
    }

    fn add(&mut self, device: &DeviceBlueprint) -> Result<(), MachineError> {
        match &device.kind {
            DeviceKind::Serial { console } => self.serial(device, *console),
            DeviceKind::I8042 => {
                // It has no state.
                let i8042 = I8042::new(self.parts.power.clone());
                self.attach("i8042", device.at, Arc::new(Mutex::new(i8042)));
                Ok(())
            }
            DeviceKind::PowerManagement => {
                let pm = Arc::new(Mutex::new(Pm::new(
                    self.line(device)?,
                    self.parts.power.clone(),
                )));
                self.pm = Some(Arc::clone(&pm));
                self.keep("pm", device, pm);
                Ok(())
            }
            DeviceKind::IoApic { pins } => {
                let ioapic = Arc::new(Mutex::new(self.ioapic(*pins)));
                self.ioapic = Some(Arc::clone(&ioapic));
                self.keep("ioapic", device, ioapic);
                Ok(())
            }
            DeviceKind::PciBus => {
                self.pci = Some(PciRoot::new());
                Ok(())
            }
            DeviceKind::Pvpanic(action) => {
                let action = match action {
                    PanicAction::End => legacy::PanicAction::End,
                    PanicAction::Report => legacy::PanicAction::Report,
                };
                let port = Pvpanic::new(action, self.parts.power.clone());
                self.keep("pvpanic", device, Arc::new(Mutex::new(port)));
                Ok(())
            }
            DeviceKind::Watchdog(action) => self.watchdog(device, *action),
            DeviceKind::VirtioConsole => self.console(device),
            DeviceKind::ConsolePorts(ports) => self.console_ports(device, ports),
            DeviceKind::VirtioRng(limits) => {
                let rng = Rng::limited(*limits).map_err(host("creating the entropy's timer"))?;
                self.virtio("rng", device, Box::new(rng)).map(drop)
            }
            DeviceKind::VirtioBalloon(settings) => self.balloon(device, *settings),
            DeviceKind::VirtioVsock(config) => {
                let file = SocketFile::listen(&config.path)?;
                let vsock = Vsock::new(config.cid, file);
                let vsock = vsock.map_err(host("creating the socket device's descriptors"))?;
                self.virtio("vsock", device, Box::new(vsock)).map(drop)
            }
            DeviceKind::VirtioNet(index, config) => self.net(device, *index, config),
            DeviceKind::VirtioBlock(disk) => {
                let block = self.block(disk)?;
                self.virtio("block", device, Box::new(block)).map(drop)
            }
        }
    }

    fn serial(&mut self, device: &DeviceBlueprint, console: bool) -> Result<(), MachineError> {
        let line = self.line(device)?;
        let out = Box::new(self.terminal.output());
        let serial = Serial::new(line, out).map_err(host("creating the serial port"))?;
        let serial = Arc::new(Mutex::new(serial));
        if console && let Some(input) = self.terminal.take_input(self.parts.requests.clone()) {
            let input = SerialInput::new(input, Arc::clone(&serial))
                .map_err(host("connecting the console's input"))?;
            self.io.add(Box::new(input));
        }
        if !console {
            self.serial_button = Some(Arc::clone(&serial));
        }
        self.keep("serial", device, serial);
        Ok(())
    }

    fn ioapic(&self, pins: u8) -> IoApic {
        let (routes, limit) = (self.routes.clone(), RateLimit::new());
        let route = move |pin: u32, message: Option<Msi>| routes.set(pin, message, &limit);
        IoApic::new(pins, Box::new(route))
    }

    fn console(&mut self, device: &DeviceBlueprint) -> Result<(), MachineError> {
        let input = self.terminal.take_input(self.parts.requests.clone());
        let input = input.map(|input| Box::new(input) as Box<dyn ConsoleSource>);
        let size = self
            .terminal
            .window_size()
            .map_or((0, 0), |size| (size.columns, size.rows));
        let mut console = Console::new(Box::new(self.terminal.output()), input, size);
        if self.hold_console_input {
            console = console.held_until_output();
        }
        let handle = self.virtio("console", device, Box::new(console))?;
        self.console = Some(handle);
        Ok(())
    }

    fn console_ports(
        &mut self,
        device: &DeviceBlueprint,
        specs: &[ConsolePortSpec],
    ) -> Result<(), MachineError> {
        let setup = |spec: &ConsolePortSpec| -> Result<PortSetup, MachineError> {
            let terminal = match &spec.backend {
                PortBackend::Socket(path) => Err(SocketPort::listen(path)?),
                PortBackend::File(path) => Ok(Terminal::file(path)?),
                PortBackend::Pty => Ok(Terminal::pty()?),
            };
            let backend: Box<dyn console::PortBackend> = match terminal {
                Err(socket) => Box::new(socket),
                Ok(terminal) => {
                    if let Some(path) = terminal.pty_path() {
                        // Whoever started the machine has to know, as of the console.
                        log::warn!("console port {} on {}", spec.name, path.display());
                    }
                    let port = TerminalPort::new(terminal);
                    Box::new(port.map_err(host("creating a console port's descriptors"))?)
                }
            };
            Ok(PortSetup {
                name: spec.name.clone(),
                console: spec.console,
                backend,
            })
        };
        let ports = specs.iter().map(setup).collect::<Result<_, _>>()?;
        let ports = Ports::new(ports).map_err(host("creating the console ports"))?;
        self.virtio("ports", device, Box::new(ports)).map(drop)
    }

    fn watchdog(
        &mut self,
        device: &DeviceBlueprint,
        action: WatchdogAction,
    ) -> Result<(), MachineError> {
        let action = match action {
            WatchdogAction::Reset => legacy::WatchdogAction::Reset,
            WatchdogAction::PowerOff => legacy::WatchdogAction::PowerOff,
            WatchdogAction::Report => legacy::WatchdogAction::Report,
        };
        let (registers, timer) = legacy::watchdog(action, self.parts.power.clone())
            .map_err(host("creating the watchdog's timer"))?;
        self.io.add(Box::new(timer));
        self.watchdog = Some(registers.pauses());
        self.keep("watchdog", device, Arc::new(Mutex::new(registers)));
        Ok(())
    }

    fn balloon(
        &mut self,
        device: &DeviceBlueprint,
        settings: balloon::Settings,
    ) -> Result<(), MachineError> {
        let balloon = Balloon::new(settings).map_err(host("creating the balloon's timer"))?;
        self.virtio("balloon", device, Box::new(balloon)).map(drop)
    }

    fn block(&mut self, disk: &DiskBlueprint) -> Result<Block, MachineError> {
        const OPENED: &str = "invariant: the blueprint was made from the opened files";
        let model: Box<dyn Disk> = match &disk.source {
            DiskSource::BuiltIn => Box::new(MemoryDisk::new(self.parts.system.expect(OPENED))),
            DiskSource::User {
                index,
                path,
                format,
            } => {
                let file = self
                    .parts
                    .disks
                    .get_mut(*index)
                    .and_then(Option::take)
                    .expect(OPENED);
                match format {
                    DiskFormat::Raw => Box::new(RawDisk::from_file(file, path, disk.access())?),
                    DiskFormat::Qcow2 => Box::new(Qcow2Disk::from_file(file, path)?),
                    DiskFormat::Cow => {
                        Box::new(OverlayDisk::from_file(file, path, disk.read_only)?)
                    }
                }
            }
        };
        let id = disk.id.as_ref().map_or("", |id| id.as_str());
        let block = Block::new(model, id)
            .with_queues(disk.queues)
            .limited(disk.limits)
            .map_err(host("creating a disk's timer"))?;
        Ok(match disk.cache {
            DiskCache::Writeback => block,
            DiskCache::Writethrough => block.writing_through(),
        })
    }

    fn net(
        &mut self,
        device: &DeviceBlueprint,
        index: usize,
        config: &NetConfig,
    ) -> Result<(), MachineError> {
        let link = self.parts.links.get_mut(index).and_then(Option::take);
        let link = link.expect("invariant: a machine is set up with the links of its blueprint");
        let settings = net::Settings {
            mac: config.mac.0,
            source: match config.source {
                SourceMac::Own => net::SourceMac::Own,
                SourceMac::Any => net::SourceMac::Any,
            },
            receive: config.rx,
            transmit: config.tx,
        };
        let link = match &config.mmds {
            Some(mmds) => self.with_metadata(link, mmds).map_err(host(METADATA))?,
            None => link,
        };
        let model = Net::new(link, &settings).map_err(host("creating a network device"))?;
        self.virtio("net", device, Box::new(model)).map(drop)
    }

    /// A network with the metadata service in front of it.
    fn with_metadata(
        &mut self,
        link: Box<dyn Link>,
        config: &MmdsConfig,
    ) -> std::io::Result<Box<dyn Link>> {
        let service = match &self.service {
            Some(service) => service.clone(),
            None => {
                let metadata = self.parts.metadata.clone();
                Service::new(metadata, config.settings, Instant::now())?
            }
        };
        self.service = Some(service.clone());
        let link = MetadataLink::new(link, service, config.address)?;
        Ok(Box::new(link))
    }

    fn virtio(
        &mut self,
        name: &'static str,
        device: &DeviceBlueprint,
        model: Box<dyn VirtioDevice>,
    ) -> Result<SlotHandle, MachineError> {
        let (slot, handle) = match device.at {
            Window::Pci(at) => self.function(name, device, at, model)?,
            Window::Mmio { .. } | Window::Ports { .. } => self.window(name, device, model)?,
        };
        slot.report_faults(self.parts.faults.clone());
        self.io.add(Box::new(slot));
        let named = (device.name.clone(), handle.clone());
        self.handles.push(named);
        Ok(handle)
    }

    /// Puts a virtio device behind virtio-mmio.
    fn window(
        &mut self,
        name: &'static str,
        device: &DeviceBlueprint,
        model: Box<dyn VirtioDevice>,
    ) -> Result<(DeviceSlot, SlotHandle), MachineError> {
        let line = self.line(device)?;
        let connected =
            connect(device.name.clone(), model, self.ram.clone(), line).map_err(host(CONNECT))?;
        if let Window::Mmio { start, .. } = device.at {
            let bells = (0..).zip(connected.doorbells);
            self.bells.extend(bells.map(|(queue, bell)| BellAt {
                bell,
                address: start + QUEUE_NOTIFY,
                queue,
            }));
        }
        self.keep(name, device, Arc::new(Mutex::new(connected.transport)));
        Ok((connected.slot, connected.handle))
    }

    /// Puts a virtio device on the PCI bus.
    fn function(
        &mut self,
        name: &'static str,
        device: &DeviceBlueprint,
        at: PciBlueprint,
        model: Box<dyn VirtioDevice>,
    ) -> Result<(DeviceSlot, SlotHandle), MachineError> {
        let place = Place::nowhere();
        let attachment = pci::attachment(self.vm, &self.routes, at, place.clone())?;
        let connected = connect_pci(device.name.clone(), model, self.ram.clone(), attachment)
            .map_err(host(CONNECT))?;
        let function = Arc::new(Mutex::new(connected.transport));
        self.devices.add(&device.name, Arc::clone(&function) as _);
        let root = self.pci.as_mut();
        let root = root.expect("invariant: a blueprint's PCI bus comes before its functions");
        pci::insert(root, at.device, Arc::clone(&function) as _);
        let len = WINDOW_BYTES.into();
        self.mmio.attach_movable(name, place, len, function);
        Ok((connected.slot, connected.handle))
    }

    /// A new interrupt line, bound to the device's GSI.
    fn line(&self, device: &DeviceBlueprint) -> Result<IrqLine, MachineError> {
        let line = IrqLine::new().map_err(host("creating an interrupt line"))?;
        if let Some(gsi) = device.line {
            self.vm.bind_line(&line, gsi)?;
        }
        Ok(line)
    }

    /// Attaches a device that has a state.
    fn keep<D>(&mut self, name: &'static str, device: &DeviceBlueprint, part: Arc<Mutex<D>>)
    where
        D: BusDevice + Persist + 'static,
    {
        self.devices.add(&device.name, Arc::clone(&part) as _);
        self.attach(name, device.at, part);
    }

    fn attach(&mut self, name: &'static str, at: Window, device: Arc<Mutex<dyn BusDevice>>) {
        let (bus, range) = match at {
            Window::Ports { start, len } => {
                let range = AddressRange {
                    start: start.into(),
                    len: len.into(),
                };
                (&mut self.ports, range)
            }
            Window::Mmio { start, len } => (&mut self.mmio, AddressRange { start, len }),
            Window::Pci(_) => unreachable!("invariant: functions are attached where they may move"),
        };
        bus.attach(name, range, device)
            .expect("invariant: a blueprint's windows don't overlap");
    }
}

pub(super) fn host(attempt: &'static str) -> impl FnOnce(std::io::Error) -> MachineError {
    move |cause| MachineError::Host { attempt, cause }
}
