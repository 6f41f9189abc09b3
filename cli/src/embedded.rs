//! The guest that comes with Coracle: its kernel and its system image as bytes of this program.
//!
//! Both are stored unpacked, so that a boot unpacks nothing; the pages are read from the
//! program's file when they are first touched and cost nothing until then.

use vmm::files::BuiltIn;

/// The kernel (resources/kernel) and the system image (cli/build.rs).
pub(crate) fn guest() -> BuiltIn {
    BuiltIn {
        kernel: include_bytes!(concat!(env!("OUT_DIR"), "/guest-kernel")),
        system: include_bytes!(concat!(env!("OUT_DIR"), "/guest-image")),
    }
}

#[cfg(test)]
mod tests {
    use super::guest;

    #[test]
    fn the_kernel_is_elf_and_the_image_erofs() {
        let guest = guest();
        assert_eq!(guest.kernel.get(..4), Some(b"\x7fELF".as_slice()));
        let magic = guest.system.get(1024..1028);
        assert_eq!(magic, Some([0xe2, 0xe1, 0xf5, 0xe0].as_slice()));
        assert_eq!(guest.system.len() % 4096, 0);
    }
}
