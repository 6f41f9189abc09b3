use proptest::prelude::*;

use super::super::testing::{LOAD, PVH, SETUP_SECTORS, bzimage, elf, lz4, size_word};
use super::super::{Compression, Kernel, KernelError, KernelFormat, Payload, ReadAt};

fn open(image: &[u8]) -> Result<Kernel, KernelError> {
    Kernel::open(&image)
}

fn refused(image: &[u8]) -> String {
    open(image).expect_err("it must be refused").to_string()
}

fn good() -> Vec<u8> {
    bzimage(&lz4(&elf().build()))
}

#[test]
fn the_packed_elf_is_unpacked() {
    let kernel = open(&good()).unwrap();
    assert_eq!(kernel.format(), KernelFormat::BzImage);
    assert_eq!(kernel.compression(), Compression::Lz4);
    assert_eq!(kernel.payload(), &Payload::Unpacked(elf().build()));
    assert_eq!(
        (kernel.entry64(), kernel.pvh_entry()),
        (Some(LOAD), Some(PVH))
    );
    assert_eq!(kernel.setup.map(|setup| { setup.version }), Some(0x020f));
}

#[test]
fn zero_setup_sectors_mean_four() {
    let image = good();
    let mut moved = image[..(SETUP_SECTORS + 1) * 512].to_vec();
    moved[0x1f1] = 0;
    moved.resize(5 * 512, 0);
    moved.extend(&image[(SETUP_SECTORS + 1) * 512..]);
    assert_eq!(
        open(&moved).unwrap().payload(),
        open(&image).unwrap().payload()
    );
}

#[test]
fn a_short_header_leaves_later_fields_zero() {
    let mut image = good();
    // Protocol 2.08 ends behind payload_length; what follows is code.
    image[0x201] = 0x4e;
    image[0x206..0x208].copy_from_slice(&0x0208u16.to_le_bytes());
    image[0x236..0x238].copy_from_slice(&[0; 2]);
    image[0x250..0x26c].fill(0xcc);
    let setup = open(&image).unwrap().setup.unwrap();
    assert_eq!((setup.setup_data, { setup.init_size }), (0, 0));
}

#[test]
fn header_fields_that_are_wrong() {
    let table: [(usize, &[u8], &str); 16] = [
        (
            0x1f1,
            &[0xff],
            "the protected-mode code (setup_sects, syssize) ends at byte",
        ),
        (0x1f1, &[1], "the payload of the bzImage starts with"),
        (
            0x1f4,
            &[0xff; 4],
            "the protected-mode code (setup_sects, syssize) ends at byte",
        ),
        (0x1f4, &[0; 4], "payload_offset of the kernel is 0x40"),
        (0x1fe, &[0; 2], "boot_flag of the kernel is 0x0"),
        (0x201, &[0x4d], "jump of the kernel is 0x4d"),
        (0x206, &[5, 2], "version of the kernel is 0x205"),
        (0x206, &[7, 2], "version of the kernel is 0x207"),
        (0x211, &[0], "loadflags of the kernel is 0x0"),
        (0x22c, &[0; 4], "initrd_addr_max of the kernel is 0x0"),
        (0x236, &[0x3e], "xloadflags of the kernel is 0x3e"),
        (0x238, &[0; 4], "cmdline_size of the kernel is 0x0"),
        (
            0x248,
            &[0xff; 4],
            "payload_offset of the kernel is 0xffffffff",
        ),
        (0x24c, &[0; 4], "payload_length of the kernel is 0x0"),
        (
            0x24c,
            &[0xff; 4],
            "payload_length of the kernel is 0xffffffff",
        ),
        (0x24c, &[0, 0, 0, 1], "payload_offset of the kernel is 0x40"),
    ];
    for (at, bytes, expected) in table {
        let mut image = good();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let message = refused(&image);
        assert!(message.contains(expected), "{at:#x}: {message}");
        assert!(
            !message.contains('\n') && message.contains(": "),
            "{message}"
        );
    }
}

#[test]
fn payloads_that_are_no_kernel() {
    let mut other = elf().build();
    other[18] = 3;
    let table: [(Vec<u8>, &str); 4] = [
        (
            lz4(b"not an ELF, though long enough to have a header of 64 bytes"),
            "is truncated",
        ),
        (lz4(&[b'x'; 100]), "its magic number is missing"),
        (lz4(&other), "e_machine of the kernel is 0x3"),
        (size_word(b"\x89LZO".to_vec(), b""), "which is lzo"),
    ];
    for (packed, expected) in table {
        let message = refused(&bzimage(&packed));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn truncated_at_every_byte() {
    let image = good();
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
    Kernel::open_as(&good(), KernelFormat::BzImage).unwrap();
    let error = Kernel::open_as(&good(), KernelFormat::Elf).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("claimed to be an ELF and is a bzImage"),
        "{error}"
    );
}

/// An image that fails every read behind what its headers say.
struct Fenced(Vec<u8>, u64);

impl ReadAt for Fenced {
    fn size(&self) -> u64 {
        u64::MAX
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        assert!(
            offset + buf.len() as u64 <= self.1,
            "read of {} at {offset}",
            buf.len()
        );
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn no_more_is_read_than_the_headers_say() {
    let image = good();
    let len = image.len() as u64;
    open(&image).unwrap();
    Kernel::open(&Fenced(image, len)).unwrap();
    let image = elf().build();
    let len = image.len() as u64;
    Kernel::open(&Fenced(image, len)).unwrap();
}

#[test]
fn a_failing_disk_is_reported() {
    struct Failing;
    impl ReadAt for Failing {
        fn size(&self) -> u64 {
            1 << 20
        }
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> std::io::Result<()> {
            Err(std::io::Error::other("broken"))
        }
    }
    let error = Kernel::open(&Failing).unwrap_err();
    assert!(
        matches!(error, KernelError::Read { offset: 0, .. }),
        "{error}"
    );
}

proptest! {
    #[test]
    fn damage_never_panics(edits in prop::collection::vec((0x1f1usize..0x800, any::<u8>()), 1..8)) {
        let mut image = good();
        for (at, value) in edits {
            let at = at.min(image.len() - 1);
            image[at] = value;
        }
        let _ = open(&image);
    }
}
