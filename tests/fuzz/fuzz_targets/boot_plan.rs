//! Any kernel with any machine: whatever is planned is in RAM and nothing overlaps.
#![no_main]

use arbitrary::Arbitrary;
use arch::boot::{BootShape, Kernel, Protocol, plan};
use coracle_fuzz::image::{Elf, Place};
use coracle_fuzz::{Watched, bounded, check_kernel, check_plan};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    kernel: Elf,
    memory: (u16, i8),
    exact_memory: Option<u64>,
    initrd: Option<Place>,
    cmdline: &'a str,
    protocol: u8,
    rsdp: Option<u64>,
}

fuzz_target!(|input: Input<'_>| {
    let image = input.kernel.build();
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
