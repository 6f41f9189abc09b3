use proptest::prelude::*;

use super::super::testing::{Elf, LOAD, PVH, Program, assert_sound, bzimage, elf, lz4, note};
use super::*;
use crate::regs::Table;

const MIB: u64 = 1 << 20;

fn kernel(elf: &Elf) -> Kernel {
    Kernel::open(&elf.build()).unwrap()
}

fn shape(mib: u64) -> BootShape<'static> {
    BootShape {
        memory_bytes: mib * MIB,
        initrd_bytes: None,
        cmdline: "console=ttyS0 quiet",
        protocol: Protocol::Auto,
        rsdp: Some(0xe_0000),
    }
}

fn placed<'a>(plan: &'a BootPlan, name: &str) -> &'a Placement {
    plan.placements
        .iter()
        .find(|placement| placement.name == name)
        .unwrap()
}

fn bytes_of<'a>(plan: &'a BootPlan, name: &str) -> &'a [u8] {
    let Source::Bytes(bytes) = &placed(plan, name).source else {
        panic!("{name}")
    };
    bytes
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn every_memory_size_has_its_ranges() {
    let table: [(u64, &[(u64, u64)]); 11] = [
        (18, &[(1, 18)]),
        (32, &[(1, 32)]),
        (128, &[(1, 128)]),
        (2047, &[(1, 2047)]),
        (2048, &[(1, 2048)]),
        (2049, &[(1, 2049)]),
        (3071, &[(1, 3071)]),
        (3072, &[(1, 3072)]),
        (3073, &[(1, 3072), (4096, 4097)]),
        (4096, &[(1, 3072), (4096, 5120)]),
        (6144, &[(1, 3072), (4096, 7168)]),
    ];
    for (mib, high) in table {
        let shape = BootShape {
            initrd_bytes: Some(MIB + 1),
            ..shape(mib)
        };
        let plan = plan(&kernel(&elf()), &shape).unwrap();
        assert_sound(&plan, mib * MIB);
        let mut expected = vec![
            MemoryRange {
                start: 0,
                len: 0x9_fc00,
                kind: MemoryKind::Ram,
            },
            MemoryRange {
                start: 0x9_fc00,
                len: 0x6_0400,
                kind: MemoryKind::Reserved,
            },
        ];
        expected.extend(high.iter().map(|&(start, end)| MemoryRange {
            start: start * MIB,
            len: (end - start) * MIB,
            kind: MemoryKind::Ram,
        }));
        assert_eq!(plan.memory_map, expected, "{mib} MiB");
        let zero_page = bytes_of(&plan, "zero-page");
        assert_eq!(usize::from(zero_page[0x1e8]), expected.len());
        for (entry, range) in zero_page[0x2d0..].chunks(20).zip(&expected) {
            assert_eq!((long(entry, 0), long(entry, 8)), (range.start, range.len));
            assert_eq!(
                word(entry, 16),
                if range.kind == MemoryKind::Ram { 1 } else { 2 }
            );
        }
    }
}

#[test]
fn sixteen_mebibytes_are_enough_for_a_kernel_at_one() {
    let programs = vec![Program::load(MIB, 8 * MIB, vec![0; 16])];
    let low = kernel(&Elf {
        entry: MIB,
        programs,
    });
    let shape = BootShape {
        initrd_bytes: Some(7 * MIB),
        ..shape(16)
    };
    let plan = plan(&low, &shape).unwrap();
    assert_sound(&plan, 16 * MIB);
    assert_eq!(placed(&plan, "initrd").address, 9 * MIB);
}

#[test]
fn memory_sizes_that_make_no_machine() {
    for bytes in [
        0,
        1,
        4095,
        MIB,
        2 * MIB - 4096,
        128 * MIB + 1,
        1 << 45,
        u64::MAX,
    ] {
        let shape = BootShape {
            memory_bytes: bytes,
            ..shape(128)
        };
        let error = plan(&kernel(&elf()), &shape).unwrap_err();
        assert!(matches!(error, BootError::Memory { .. }), "{error}");
        assert!(error.to_string().contains(&bytes.to_string()));
    }
}

#[test]
fn long_mode_entry() {
    let plan = plan(&kernel(&elf()), &shape(128)).unwrap();
    assert_eq!(plan.protocol, Protocol::Linux64);
    let (regs, sregs) = (plan.cpu.regs, plan.cpu.sregs);
    assert_eq!(
        (regs.rip, regs.rsi, regs.rsp, regs.rflags),
        (LOAD, 0x7000, 0x8ff0, 2)
    );
    assert_eq!(
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer),
        (0x8005_0033, 0x9000, 0x20, 0x500)
    );
    assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db), (0x10, 1, 0));
    assert_eq!(
        (sregs.data.selector, sregs.data.kind, sregs.data.db),
        (0x18, 3, 1)
    );
    assert_eq!(
        sregs.gdt,
        Table {
            base: 0x500,
            limit: 0x2f
        }
    );
    assert_eq!(placed(&plan, "page-tables").address, 0x9000);
    assert!(
        !plan
            .placements
            .iter()
            .any(|placement| placement.name == "pvh-start-info")
    );
}

#[test]
fn zero_page_of_an_elf() {
    let shape = BootShape {
        initrd_bytes: Some(5000),
        ..shape(128)
    };
    let plan = plan(&kernel(&elf()), &shape).unwrap();
    let page = bytes_of(&plan, "zero-page");
    assert_eq!(page.len(), 4096);
    assert_eq!(long(page, 0x70), 0xe_0000);
    assert_eq!(
        (&page[0x1fe..0x200], &page[0x202..0x206]),
        (&[0x55, 0xaa][..], &b"HdrS"[..])
    );
    assert_eq!((page[0x210], page[0x211] & 1), (0xff, 1));
    assert_eq!((word(page, 0x218), word(page, 0x21c)), (0x7ff_e000, 5000));
    assert_eq!(word(page, 0x228), 0x2_0000);
    assert_eq!(long(page, 0x250), 0, "setup_data is left to others");
    assert_eq!(placed(&plan, "initrd").address, 0x7ff_e000);
    assert_eq!(placed(&plan, "command-line").address, 0x2_0000);
    assert_eq!(bytes_of(&plan, "command-line"), b"console=ttyS0 quiet\0");
}

#[test]
fn zero_page_of_a_bzimage_keeps_its_header() {
    let mut image = bzimage(&lz4(&elf().build()));
    image[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
    image[0x250..0x258].copy_from_slice(&[0xff; 8]);
    let kernel = Kernel::open(&image).unwrap();
    let plan = plan(&kernel, &shape(128)).unwrap();
    let page = bytes_of(&plan, "zero-page");
    assert_eq!((word(page, 0x230), word(page, 0x238)), (0x20_0000, 2047));
    assert_eq!((page[0x206], page[0x207], page[0x210]), (0x0f, 2, 0xff));
    assert_eq!(
        (long(page, 0x250), word(page, 0x218), word(page, 0x21c)),
        (0, 0, 0)
    );
}

#[test]
fn pvh_entry() {
    let shape = BootShape {
        protocol: Protocol::Pvh,
        initrd_bytes: Some(5000),
        ..shape(3073)
    };
    let plan = plan(&kernel(&elf()), &shape).unwrap();
    assert_sound(&plan, 3073 * MIB);
    assert_eq!(plan.protocol, Protocol::Pvh);
    let (regs, sregs) = (plan.cpu.regs, plan.cpu.sregs);
    assert_eq!((regs.rip, regs.rbx, regs.rflags), (PVH, 0x6000, 2));
    assert_eq!(
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer),
        (0x11, 0, 0, 0)
    );
    assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.limit), (0, 1, u32::MAX));
    let info = bytes_of(&plan, "pvh-start-info");
    assert_eq!(
        (word(info, 0), word(info, 4), word(info, 12)),
        (0x336e_c578, 1, 1)
    );
    assert_eq!(
        (long(info, 16), long(info, 24), long(info, 32)),
        (0x6040, 0x2_0000, 0xe_0000)
    );
    assert_eq!((long(info, 40), word(info, 48)), (0x6100, 4));
    let initrd = placed(&plan, "initrd").address;
    assert_eq!(initrd, 0x7fff_e000, "not above what Linux reaches");
    assert_eq!((long(info, 0x40), long(info, 0x48)), (initrd, 5000));
    for (entry, range) in info[0x100..].chunks(24).zip(&plan.memory_map) {
        assert_eq!((long(entry, 0), long(entry, 8)), (range.start, range.len));
        assert_eq!(
            word(entry, 16),
            if range.kind == MemoryKind::Ram { 1 } else { 2 }
        );
    }
    assert!(
        !plan
            .placements
            .iter()
            .any(|placement| placement.name == "zero-page")
    );
}

#[test]
fn protocols_that_a_kernel_lacks() {
    let mut only64 = elf();
    only64.programs.remove(0);
    let mut only_pvh = elf();
    only_pvh.entry = PVH;
    let with = |elf: &Elf, protocol| {
        plan(
            &kernel(elf),
            &BootShape {
                protocol,
                ..shape(64)
            },
        )
    };
    assert_eq!(
        with(&only_pvh, Protocol::Auto).unwrap().protocol,
        Protocol::Pvh
    );
    assert_eq!(
        with(&only64, Protocol::Auto).unwrap().protocol,
        Protocol::Linux64
    );
    for (elf, wanted, offered) in [
        (&only64, Protocol::Pvh, Protocol::Linux64),
        (&only_pvh, Protocol::Linux64, Protocol::Pvh),
    ] {
        assert_eq!(
            with(elf, wanted),
            Err(BootError::Protocol { wanted, offered })
        );
    }
}

#[test]
fn segments_must_be_in_free_low_ram() {
    let at = |address: u64, memory: u64, mib: u64| {
        let programs = vec![Program::load(address, memory, vec![0; 8])];
        plan(
            &kernel(&Elf {
                entry: address,
                programs,
            }),
            &shape(mib),
        )
        .map(|_| ())
    };
    assert_eq!(
        at(0x1_0000, 0x1_0000, 16),
        Ok(()),
        "free memory below 1 MiB may be used"
    );
    assert_eq!(at(0x10_0000, 15 * MIB, 16), Ok(()));
    assert_eq!(at(0xbfff_f000, 0x1000, 3072), Ok(()));
    for (address, memory) in [
        (0, 0x501),
        (0x500, 8),
        (0x6fff, 8),
        (0x8ff0, 16),
        (0xefff, 8),
        (0x1_fff9, 8),
        (0x9_fbf9, 8),
        (0xf_ffff, 8),
        (0x3_0000, 0x100_0000),
    ] {
        let error = at(address, memory, 64).unwrap_err();
        assert!(
            matches!(error, BootError::Collides { .. }),
            "{address:#x}: {error}"
        );
    }
    let error = at(15 * MIB, MIB + 1, 16).unwrap_err();
    assert!(
        matches!(error, BootError::OutsideRam { needed_mib: 17, .. }),
        "{error}"
    );
    for (address, memory) in [
        (0xbfff_f000, 0x1001),
        (0xc000_0000, 8),
        (1 << 32, 8),
        (MIB, 1 << 40),
    ] {
        let error = at(address, memory, 8192).unwrap_err();
        assert!(
            matches!(error, BootError::OverHole { .. }),
            "{address:#x}: {error}"
        );
    }
}

#[test]
fn the_initrd_fills_the_highest_gap() {
    let with = |len: u64, mib: u64, elf: &Elf| {
        let shape = BootShape {
            initrd_bytes: Some(len),
            ..shape(mib)
        };
        let plan = plan(&kernel(elf), &shape);
        plan.map(|plan| {
            assert_sound(&plan, mib * MIB);
            placed(&plan, "initrd").address
        })
    };
    let end = LOAD + 0x3000;
    assert_eq!(with(0, 64, &elf()), Err(BootError::InitrdEmpty));
    assert_eq!(with(1, 64, &elf()), Ok(64 * MIB - 0x1000));
    assert_eq!(
        with(64 * MIB - end, 64, &elf()),
        Ok(end),
        "filling it exactly"
    );
    let room = 64 * MIB - end;
    let too_large = BootError::InitrdTooLarge {
        bytes: room + 1,
        room,
        limit: 64 * MIB,
    };
    assert_eq!(with(room + 1, 64, &elf()), Err(too_large.clone()));
    assert_eq!(
        too_large.to_string(),
        "the initrd has 50319361 bytes, at most 50319360 are free below 0x4000000: \
         give the guest more memory or a smaller initrd"
    );
    assert!(matches!(
        with(u64::MAX, 64, &elf()),
        Err(BootError::InitrdTooLarge { .. })
    ));
    assert_eq!(with(5000, 6144, &elf()), Ok(0x7fff_e000));
    // With a kernel near the top the initrd goes below it.
    let programs = vec![Program::load(60 * MIB, 4 * MIB - 1, vec![0; 8])];
    let high = Elf {
        entry: 60 * MIB,
        programs,
    };
    assert_eq!(with(5000, 64, &high), Ok(60 * MIB - 0x2000));
    assert_eq!(with(59 * MIB, 64, &high), Ok(MIB));
}

#[test]
fn the_initrd_stays_below_what_the_header_allows() {
    let mut image = bzimage(&lz4(&elf().build()));
    image[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes());
    let kernel = Kernel::open(&image).unwrap();
    let shape = BootShape {
        initrd_bytes: Some(4096),
        ..shape(2048)
    };
    assert_eq!(
        placed(&plan(&kernel, &shape).unwrap(), "initrd").address,
        0x37ff_f000
    );
}

#[test]
fn command_lines() {
    let with = |cmdline: &str| {
        plan(
            &kernel(&elf()),
            &BootShape {
                cmdline,
                ..shape(64)
            },
        )
    };
    with("").unwrap();
    with("a\tb=\u{e9}").unwrap();
    with(&"x".repeat(2047)).unwrap();
    let too_long = with(&"x".repeat(2048)).unwrap_err();
    assert_eq!(
        too_long,
        BootError::CmdlineTooLong {
            bytes: 2048,
            limit: 2047
        }
    );
    for (text, position, character) in [
        ("a\0b", 1, '\0'),
        ("\n", 0, '\n'),
        ("é\r", 2, '\r'),
        ("ab\x7f", 2, '\x7f'),
    ] {
        let expected = BootError::CmdlineCharacter {
            position,
            character,
        };
        assert_eq!(with(text).unwrap_err(), expected);
    }
    assert_eq!(
        with("a\nb").unwrap_err().to_string(),
        "byte 1 of the command line is the control character '\\n': remove it"
    );
    let mut image = bzimage(&lz4(&elf().build()));
    image[0x238..0x23c].copy_from_slice(&255u32.to_le_bytes());
    let old = Kernel::open(&image).unwrap();
    let text = "x".repeat(256);
    let error = plan(
        &old,
        &BootShape {
            cmdline: &text,
            ..shape(64)
        },
    )
    .unwrap_err();
    assert_eq!(
        error,
        BootError::CmdlineTooLong {
            bytes: 256,
            limit: 255
        }
    );
}

proptest! {
    #[test]
    fn every_plan_is_sound(
        segments in prop::collection::vec((0u64..0x40_0000, 1u64..0x10_0000, 0usize..64), 1..6),
        mib in 2u64..80,
        initrd in prop::option::of(0u64..70 * MIB),
        pvh in any::<bool>(),
    ) {
        let programs: Vec<_> = segments
            .iter()
            .map(|&(at, memory, file)| Program::load(at * 16, memory, vec![0; file]))
            .chain([Program::note(note(b"Xen\0", 18, &(segments[0].0 * 16).to_le_bytes(), 4))])
            .collect();
        let entry = segments[0].0 * 16 + 1;
        let Ok(kernel) = Kernel::open(&Elf { entry, programs }.build()) else { return Ok(()) };
        let protocol = if pvh { Protocol::Pvh } else { Protocol::Auto };
        let shape = BootShape { initrd_bytes: initrd, protocol, ..shape(mib) };
        if let Ok(plan) = plan(&kernel, &shape) {
            assert_sound(&plan, mib * MIB);
        }
    }
}
