//! Any kernel with any machine: whatever is planned is in RAM and nothing overlaps.
#![no_main]

use arbitrary::Arbitrary;
use arch::boot::{BootShape, Kernel, Protocol, plan};
use coracle_fuzz::{Watched, bounded, check_kernel, check_plan};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    segments: Vec<(Place, u32, u8)>,
    entry: (u8, u8),
    pvh: Option<(u8, u8)>,
    memory: (u16, i8),
    exact_memory: Option<u64>,
    initrd: Option<Place>,
    cmdline: &'a str,
    protocol: u8,
    rsdp: Option<u64>,
}

/// An address or a size that is often near something.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Place {
    Mib(u16, i16),
    Kib(u16, i16),
    Any(u64),
}

impl Place {
    fn value(self) -> u64 {
        match self {
            Self::Mib(unit, off) => (u64::from(unit) << 20).saturating_add_signed(off.into()),
            Self::Kib(unit, off) => (u64::from(unit) << 10).saturating_add_signed(off.into()),
            Self::Any(value) => value,
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let image = image(&input);
    let Ok(kernel) = Kernel::open(&Watched::new(&image)) else {
        return;
    };
    check_kernel(&kernel, image.len());
    let (mib, pages) = input.memory;
    let near = (u64::from(mib) << 20).saturating_add_signed(i64::from(pages) << 12);
    let shape = BootShape {
        memory_bytes: input.exact_memory.unwrap_or(near),
        initrd_bytes: input.initrd.map(Place::value),
        cmdline: input.cmdline,
        protocol: [Protocol::Auto, Protocol::Linux64, Protocol::Pvh]
            [usize::from(input.protocol % 3)],
        rsdp: input.rsdp,
    };
    if let Ok(plan) = bounded((1 << 20) + 4 * image.len(), || plan(&kernel, &shape)) {
        check_plan(&plan, &kernel, shape.memory_bytes);
        if let Some(len) = shape.initrd_bytes {
            let initrd = plan
                .placements
                .iter()
                .find(|placement| placement.name == "initrd");
            assert_eq!(initrd.map(|placement| placement.source.len()), Some(len));
            assert!(initrd.unwrap().address.is_multiple_of(4096));
        }
    }
});

/// An ELF with these segments, entered near their starts.
fn image(input: &Input<'_>) -> Vec<u8> {
    let start = |(which, into): (u8, u8)| {
        let place = input
            .segments
            .get(usize::from(which) % input.segments.len().max(1));
        place.map_or(0, |&(place, ..)| place.value().wrapping_add(into.into()))
    };
    let count = input.segments.len().min(64);
    let mut notes = Vec::new();
    if let Some(pvh) = input.pvh {
        for word in [4u32, 8, 18] {
            notes.extend(word.to_le_bytes());
        }
        notes.extend(b"Xen\0");
        notes.extend(start(pvh).to_le_bytes());
    }
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [start(input.entry), 64, 0] {
        image.extend(word.to_le_bytes());
    }
    image.extend(0u32.to_le_bytes());
    for half in [64, 56, count as u16 + 1, 64, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    let data = (64 + 56 * (count + 1)) as u64;
    let mut header = |kind: u32, offset: u64, address: u64, file: u64, memory: u64| {
        image.extend(kind.to_le_bytes());
        image.extend(7u32.to_le_bytes());
        for word in [offset, address, address, file, memory, 4] {
            image.extend(word.to_le_bytes());
        }
    };
    header(4, data, 0, notes.len() as u64, 0);
    for &(place, memory, file) in input.segments.iter().take(count) {
        header(
            1,
            data,
            place.value(),
            file.into(),
            u64::from(memory) + u64::from(file),
        );
    }
    image.extend(&notes);
    image.resize(data as usize + 256, 0x90);
    image
}
