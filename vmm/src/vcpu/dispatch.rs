//! From an exit to a device and back: no KVM in here, so it is tested without /dev/kvm.

use std::sync::{Arc, Mutex, PoisonError};

use devices::Bus;
use devices::legacy::IoApic;

use crate::kvm::Exit;
use crate::kvm::exit::Unhandled;

/// Where exits go. Frozen before the first vCPU runs, so look-ups need no lock.
#[derive(Debug)]
pub(crate) struct Buses {
    pub(crate) ports: Bus,
    pub(crate) mmio: Bus,
    /// Beside its place on the bus, for the ends of level-triggered interrupts.
    pub(crate) ioapic: Arc<Mutex<IoApic>>,
}

/// What the vCPU's loop does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Enter the guest again.
    Continue,
    /// The guest's CPU shut itself down.
    TripleFault,
    /// This guest can't go on.
    Fatal(Unhandled),
}

pub(crate) fn dispatch(exit: Exit<'_>, buses: &Buses) -> Flow {
    match exit {
        Exit::PortRead { port, width, data } => {
            for element in data.chunks_mut(width) {
                buses.ports.read(port.into(), element);
            }
        }
        Exit::PortWrite { port, width, data } => {
            for element in data.chunks(width) {
                buses.ports.write(port.into(), element);
            }
        }
        Exit::MmioRead { address, data } => buses.mmio.read(address, data),
        Exit::MmioWrite { address, data } => buses.mmio.write(address, data),
        Exit::EndOfInterrupt { vector } => buses
            .ioapic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .end_of_interrupt(vector),
        Exit::Interrupted | Exit::Kicked => {}
        Exit::Shutdown => return Flow::TripleFault,
        Exit::Unhandled(why) => return Flow::Fatal(why),
    }
    Flow::Continue
}

#[cfg(test)]
mod tests {
    use devices::{AddressRange, BadAccess, BusBuilder, BusDevice, Width};

    use super::*;

    /// Remembers writes; answers reads with a running number.
    #[derive(Debug, Default)]
    struct Recorder {
        reads: u64,
        writes: Vec<(u64, Width, u64)>,
    }

    impl BusDevice for Recorder {
        fn read(&mut self, _: u64, _: Width) -> Result<u64, BadAccess> {
            self.reads += 1;
            Ok(self.reads)
        }

        fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
            self.writes.push((offset, width, value));
            Ok(())
        }
    }

    fn buses(device: &Arc<Mutex<Recorder>>) -> Buses {
        let range = AddressRange {
            start: 0x100,
            len: 0x10,
        };
        let bus = |name| {
            let mut builder = BusBuilder::new(name);
            builder
                .attach("recorder", range, Arc::clone(device) as _)
                .unwrap();
            builder.freeze()
        };
        let ioapic = Arc::new(Mutex::new(IoApic::new(24, Box::new(|_, _| ()))));
        Buses {
            ports: bus("port"),
            mmio: bus("mmio"),
            ioapic,
        }
    }

    #[test]
    fn string_port_accesses_are_one_access_an_element() {
        let device = Arc::default();
        let buses = buses(&device);
        let exit = Exit::PortWrite {
            port: 0x101,
            width: 2,
            data: &[1, 0, 2, 0],
        };
        assert_eq!(dispatch(exit, &buses), Flow::Continue);
        assert_eq!(
            device.lock().unwrap().writes,
            [(1, Width::Word, 1), (1, Width::Word, 2)]
        );

        let mut data = [0; 3];
        dispatch(
            Exit::PortRead {
                port: 0x100,
                width: 1,
                data: &mut data,
            },
            &buses,
        );
        assert_eq!(data, [1, 2, 3]);
    }

    #[test]
    fn mmio_reads_are_answered_and_strays_read_as_ones() {
        let device = Arc::default();
        let buses = buses(&device);
        let mut data = [0; 4];
        dispatch(
            Exit::MmioRead {
                address: 0x104,
                data: &mut data,
            },
            &buses,
        );
        assert_eq!(data, [1, 0, 0, 0]);
        dispatch(
            Exit::MmioRead {
                address: 0x1000,
                data: &mut data,
            },
            &buses,
        );
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn ends_are_values() {
        let buses = buses(&Arc::default());
        assert_eq!(dispatch(Exit::Shutdown, &buses), Flow::TripleFault);
        let why = Unhandled::Internal {
            suberror: 3,
            rip: 0,
        };
        assert_eq!(
            dispatch(Exit::Unhandled(why.clone()), &buses),
            Flow::Fatal(why)
        );
        assert_eq!(dispatch(Exit::Interrupted, &buses), Flow::Continue);
    }
}
