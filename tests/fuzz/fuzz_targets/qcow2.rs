//! Any bytes as a qcow2 image: refused, or read with errors or content, in bounded memory.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use coracle_fuzz::bounded;
use devices::GuestRam;
use devices::disk::{Disk, Qcow2Disk};
use devices::testing::small_ram;
use devices::virtio::Span;
use libfuzzer_sys::fuzz_target;

const MOST_BYTES: usize = 128 << 20;
const PIECE: u64 = 65_536;

/// One file for all runs, and guest memory to read into.
struct Bench {
    file: File,
    ram: GuestRam,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

impl Bench {
    fn new() -> Self {
        let dir = [Path::new("/dev/shm"), Path::new("/tmp")]
            .into_iter()
            .find(|dir| dir.is_dir());
        let path = dir
            .unwrap()
            .join(format!("fuzz-qcow2-{}", std::process::id()));
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        // It goes with the process.
        std::fs::remove_file(&path).unwrap();
        Self {
            file,
            ram: small_ram(),
        }
    }

    fn run(&self, bytes: &[u8]) {
        self.file.set_len(0).unwrap();
        self.file.write_all_at(bytes, 0).unwrap();
        let file = self.file.try_clone().unwrap();
        let Ok(mut disk) = Qcow2Disk::from_file(file, Path::new("image")) else {
            return;
        };
        let size = disk.geometry().bytes;
        for place in [0, size / 3, size.saturating_sub(PIECE)] {
            let offset = place / 512 * 512;
            let len = u32::try_from(PIECE.min(size - offset)).unwrap();
            let _ = disk.read(offset, &self.ram, &[Span { at: 0, len }]);
        }
        assert!(disk.write_zeroes(0, 512, true).is_err());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else {
        return;
    };
    let mut image = bytes.to_vec();
    if how & 1 == 0 && image.len() >= 104 {
        // Past the first look at the header: what names it, no backing file, no encryption.
        image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        image[8..20].fill(0);
        image[32..36].fill(0);
        image[72..80].fill(0);
        image[100..104].copy_from_slice(&104_u32.to_be_bytes());
    }
    BENCH.with_borrow(|bench| bounded(MOST_BYTES, || bench.run(&image)));
});
