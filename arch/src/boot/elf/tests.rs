use proptest::prelude::*;

use super::super::testing::{Elf, LOAD, PHENT, PHOFF, PVH, Program, elf, note};
use super::super::{Kernel, KernelError, KernelFormat, Payload};

fn open(image: &[u8]) -> Result<Kernel, KernelError> {
    Kernel::open(&image)
}

fn refused(image: &[u8]) -> String {
    open(image).expect_err("it must be refused").to_string()
}

#[test]
fn finds_segments_and_entries() {
    let kernel = open(&elf().build()).unwrap();
    assert_eq!(kernel.format(), KernelFormat::Elf);
    assert_eq!(kernel.payload(), &Payload::File);
    assert_eq!(
        (kernel.entry64(), kernel.pvh_entry()),
        (Some(LOAD), Some(PVH))
    );
    let [segment] = kernel.segments() else {
        panic!("{:?}", kernel.segments())
    };
    assert_eq!(
        (segment.index, segment.address, segment.memory_bytes),
        (1, LOAD, 0x3000)
    );
    assert_eq!((segment.file_bytes, segment.end()), (600, LOAD + 0x3000));
}

#[test]
fn entry_kinds() {
    let with = |entry: u64, notes: Option<Vec<u8>>| {
        let mut elf = elf();
        elf.entry = entry;
        elf.programs[0].bytes = notes.unwrap_or_default();
        open(&elf.build()).map(|kernel| (kernel.entry64(), kernel.pvh_entry()))
    };
    let xen = |value: &[u8], align| Some(note(b"Xen\0", 18, value, align));
    let narrow = u32::try_from(PVH).unwrap().to_le_bytes();
    assert_eq!(with(LOAD, None).unwrap(), (Some(LOAD), None));
    assert_eq!(
        with(LOAD, xen(&narrow, 4)).unwrap(),
        (Some(LOAD), Some(PVH))
    );
    // A virtual e_entry, and one that is the 32-bit entry itself, are no 64-bit entries.
    assert_eq!(with(!0 << 30, xen(&narrow, 4)).unwrap(), (None, Some(PVH)));
    assert_eq!(with(PVH, xen(&narrow, 4)).unwrap(), (None, Some(PVH)));
    // In the part of the segment that the file does not fill.
    assert!(matches!(
        with(LOAD + 600, None),
        Err(KernelError::NoEntry { .. })
    ));
    for value in [LOAD - 1, LOAD + 600, 0, u64::MAX] {
        assert!(matches!(
            with(LOAD, xen(&value.to_le_bytes(), 4)),
            Err(KernelError::Field { .. })
        ));
    }
    for value in [&[][..], &[0; 3], &[0; 9]] {
        let result = with(LOAD, xen(value, 4));
        assert!(
            matches!(result, Err(KernelError::ProgramHeader { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn notes_of_eight_byte_alignment_and_of_others() {
    let mut elf = elf();
    let mut notes = note(b"Other\0", 18, &[1; 5], 8);
    notes.extend(note(b"Xen\0", 17, &[2; 8], 8));
    notes.extend(note(b"Xen\0", 18, &PVH.to_le_bytes(), 8));
    elf.programs[0] = Program {
        align: 8,
        ..Program::note(notes)
    };
    assert_eq!(open(&elf.build()).unwrap().pvh_entry(), Some(PVH));
}

#[test]
fn notes_that_lie_about_their_sizes() {
    let mut elf = elf();
    for (at, value) in [
        (0, u32::MAX),
        (4, u32::MAX),
        (0, u32::MAX - 3),
        (4, 0x7fff_ffff),
    ] {
        let mut notes = note(b"GNU\0", 3, &[7; 20], 4);
        notes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        elf.programs[0].bytes = notes;
        let message = refused(&elf.build());
        assert!(message.contains("a note reaches beyond"), "{message}");
    }
    // Empty notes do not stop the search, however many there are.
    elf.programs[0].bytes = note(b"", 0, b"", 4).repeat(50_000);
    assert_eq!(open(&elf.build()).unwrap().pvh_entry(), None);
    elf.programs[0].bytes = vec![0; (1 << 20) + 1];
    assert!(refused(&elf.build()).contains("at most 1 MiB of notes"));
}

#[test]
fn header_fields_that_are_wrong() {
    let good = elf().build();
    let table: [(usize, &[u8], &str); 12] = [
        (4, &[1], "EI_CLASS of the kernel is 0x1"),
        (5, &[2], "EI_DATA of the kernel is 0x2"),
        (16, &[3, 0], "e_type of the kernel is 0x3"),
        (16, &[1, 0], "e_type of the kernel is 0x1"),
        (18, &[3, 0], "e_machine of the kernel is 0x3"),
        (18, &[183, 0], "e_machine of the kernel is 0xb7"),
        (20, &[2, 0, 0, 0], "e_version of the kernel is 0x2"),
        (32, &[0xff; 8], "the program header table ends at byte"),
        (40, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], "cut"),
        (52, &[63, 0], "e_ehsize of the kernel is 0x3f"),
        (54, &[55, 0], "e_phentsize of the kernel is 0x37"),
        (56, &[0, 0], "e_phnum of the kernel is 0x0"),
    ];
    for (at, bytes, expected) in table {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        if expected == "cut" {
            image[60] = 1;
            assert!(refused(&image).contains("the section header table ends"));
            continue;
        }
        let message = refused(&image);
        assert!(message.contains(expected), "{message}");
        assert!(
            !message.contains('\n') && message.contains(": "),
            "{message}"
        );
    }
}

#[test]
fn program_header_fields_that_are_wrong() {
    let good = elf().build();
    let load = PHOFF + PHENT;
    let table: [(usize, u64, &str); 6] = [
        (load + 8, u64::MAX, "a segment ends at byte"),
        (
            load + 24,
            u64::MAX - 0x1000,
            "p_memsz of the kernel's program header 1 is 0x3000",
        ),
        (load + 32, 0x2fff, "a segment ends at byte"),
        (
            load + 32,
            0x3001,
            "p_filesz of the kernel's program header 1 is 0x3001",
        ),
        (
            load + 40,
            0,
            "p_filesz of the kernel's program header 1 is 0x258",
        ),
        (PHOFF + 8, 1 << 40, "a note segment ends at byte"),
    ];
    for (at, value, expected) in table {
        let mut image = good.clone();
        image[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let message = refused(&image);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn segments_may_touch_and_must_not_overlap() {
    let build = |second: u64, memory: u64| {
        let programs = vec![
            Program::load(second, memory, vec![1; 8]),
            Program::load(LOAD, 0x1000, vec![2; 8]),
        ];
        open(
            &Elf {
                entry: LOAD,
                programs,
            }
            .build(),
        )
    };
    let kernel = build(LOAD + 0x1000, 8).unwrap();
    assert_eq!(
        kernel
            .segments()
            .iter()
            .map(|s| s.index)
            .collect::<Vec<_>>(),
        [1, 0]
    );
    build(LOAD - 8, 8).unwrap();
    for (at, memory) in [
        (LOAD + 0xfff, 8),
        (LOAD - 8, 9),
        (LOAD, 8),
        (LOAD - 8, 1 << 40),
    ] {
        let error = build(at, memory).unwrap_err();
        assert!(
            matches!(
                error,
                KernelError::Overlap {
                    first: 0,
                    second: 1,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn nothing_to_load() {
    let empty = Program::load(LOAD, 0, Vec::new());
    let image = Elf {
        entry: LOAD,
        programs: vec![empty],
    }
    .build();
    assert!(refused(&image).contains("none of them is a PT_LOAD"));
}

#[test]
fn truncated_at_every_byte() {
    let image = elf().build();
    for len in 0..image.len() {
        let message = refused(&image[..len]);
        let expected = if len == 0 {
            "has 0 bytes"
        } else {
            "is truncated"
        };
        assert!(message.contains(expected), "{len}: {message}");
    }
}

#[test]
fn a_claim_is_checked() {
    let image = elf().build();
    Kernel::open_as(&image, KernelFormat::Elf).unwrap();
    let error = Kernel::open_as(&image, KernelFormat::BzImage).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel is claimed to be a bzImage and is an ELF: correct the claim or the file"
    );
}

#[test]
fn strangers_are_named() {
    let table: [(&[u8], &str); 6] = [
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"MZ\0\0", "an EFI program"),
        (b"070701", "a cpio archive"),
        (b"#!/bin/sh\n", "a script"),
        (&[0; 3], "is truncated"),
        (&[0; 4096], "neither an ELF nor a bzImage"),
    ];
    for (image, expected) in table {
        let message = refused(image);
        assert!(message.contains(expected), "{message}");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(edits in prop::collection::vec((0usize..300, any::<u8>()), 1..8)) {
        let mut image = elf().build();
        for (at, value) in edits {
            image[at] = value;
        }
        let _ = open(&image);
    }
}
