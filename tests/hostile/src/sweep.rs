//! Every register of a device, at every width and offset, with every kind of value: nothing
//! panics, nothing spins, and the device works afterwards.

use devices::bus::{Bus, BusBuilder, BusDevice};
use devices::{AddressRange, Width};
use std::sync::{Arc, Mutex};

use crate::access::{Region, Transport};
use crate::bench::Bench;
use crate::play::Wrong;
use crate::script;
use crate::step::Subject;

const WIDTHS: [Width; 4] = [Width::Byte, Width::Word, Width::Dword, Width::Qword];
/// What is written everywhere.
const PATTERNS: [u64; 6] = [
    0,
    1,
    2,
    0x5a5a_5a5a_5a5a_5a5a,
    1 << 63 | 0x8000_8080,
    u64::MAX,
];
/// How many offsets are swept between two looks at whether the device works.
const STRETCH: usize = 512;

/// What is swept of a transport: a region and its length.
fn regions(transport: Transport) -> &'static [(Region, u64)] {
    match transport {
        Transport::Mmio => &[(Region::Window, 0x1000)],
        Transport::Pci => &[(Region::Window, 0x8000), (Region::PciConfig, 0x1000)],
    }
}

/// Sweeps a virtio device over a transport, as it comes out of reset and while it runs: how many
/// accesses were made.
///
/// # Errors
/// When the device does not come to rest or not back.
pub fn virtio(subject: &'static Subject, transport: Transport) -> Result<u64, Wrong> {
    let mut accesses = 0;
    for running in [false, true] {
        let mut bench = Bench::new(transport, (subject.make)());
        for (region, len) in regions(transport) {
            for (number, offset) in (0..*len).enumerate() {
                if number % STRETCH == 0 {
                    script::revive(&mut bench, subject)?;
                    if !running {
                        script::reset(&mut bench);
                    }
                }
                accesses += everything_at(&mut bench, *region, *len, offset);
                crate::play::settle(&mut bench)?;
            }
        }
        script::revive(&mut bench, subject)?;
    }
    Ok(accesses)
}

fn everything_at(bench: &mut Bench, region: Region, len: u64, offset: u64) -> u64 {
    let mut accesses = 0;
    for width in WIDTHS {
        // The bus splits nothing: what is not wholly in the window does not come here, and of
        // the configuration space only what lies within four bytes.
        let split = region == Region::PciConfig && offset % 4 + width.bytes() > 4;
        if offset + width.bytes() > len || split {
            continue;
        }
        bench.read(region, offset, width);
        for pattern in PATTERNS {
            let value = pattern & (u64::MAX >> (64 - 8 * width.bytes()));
            bench.write(region, offset, width, value);
            bench.read(region, offset, width);
            accesses += 2;
        }
    }
    accesses
}

/// A bus with one device on it, from [`START`] on.
#[must_use]
pub fn bus(device: Arc<Mutex<dyn BusDevice>>, len: u64) -> Bus {
    let mut bus = BusBuilder::new("swept");
    let at = AddressRange { start: START, len };
    bus.attach("device", at, device).expect("an empty bus");
    bus.freeze()
}

/// Where the device of [`bus`] is.
pub const START: u64 = 0x100;

/// Sweeps the offsets `range` of a device on a [`bus`], from before its first address to beyond
/// its last, and at lengths that no device has: how many accesses were made.
pub fn legacy(bus: &Bus, range: std::ops::Range<u64>) -> u64 {
    let mut accesses = 0;
    let mut data = [0; 16];
    for at in START + range.start - 8..START + range.end + 8 {
        for len in [1, 2, 4, 8, 3, 5, 16, 0] {
            let Some(data) = data.get_mut(..len) else {
                continue;
            };
            bus.read(at, data);
            for pattern in PATTERNS {
                let pattern = pattern.to_le_bytes();
                data.iter_mut()
                    .zip(pattern.iter().cycle())
                    .for_each(|(to, from)| *to = *from);
                bus.write(at, data);
                bus.read(at, data);
                accesses += 2;
            }
        }
    }
    accesses
}
