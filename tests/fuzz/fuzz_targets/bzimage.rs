//! Any bytes as a bzImage, as its payload in each packing, and as the ELF inside of a payload.
#![no_main]

use arch::boot::Kernel;
use coracle_fuzz::{Watched, bounded, check_kernel};
use libfuzzer_sys::fuzz_target;

/// Most that may be allocated: a decoder's window (160 MiB) and twice the largest payload.
const BOUND: usize = (160 + 2 * 512 + 64) << 20;
const CODE: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else {
        return;
    };
    let image = match mode % 8 {
        0 => raw(rest),
        1 => around(&lz4_stored(rest)),
        packing => around(&packed(packing, rest)),
    };
    let watched = Watched::new(&image);
    if let Ok(kernel) = bounded(BOUND, || Kernel::open(&watched)) {
        check_kernel(&kernel, image.len());
    }
    watched.check();
});

/// The bytes themselves, with the magic number.
fn raw(data: &[u8]) -> Vec<u8> {
    let mut image = data.to_vec();
    if let Some(magic) = image.get_mut(0x202..0x206) {
        magic.copy_from_slice(b"HdrS");
    }
    image
}

/// The bytes as a packed stream of one kind, with a size word of at most 16 MiB.
fn packed(kind: u8, data: &[u8]) -> Vec<u8> {
    let magic: &[u8] = match kind {
        2 => b"\x1f\x8b",
        3 => b"BZh",
        4 => b"\x5d\0\0",
        5 => b"\xfd7zXZ\0",
        6 => b"\x02\x21\x4c\x18",
        _ => b"\x28\xb5\x2f\xfd",
    };
    let mut packed = [magic, data].concat();
    if let Some(top) = packed.last_mut() {
        *top = 0;
    }
    packed
}

/// The bytes as a payload whose one LZ4 block is not compressed, so that they reach the parser.
fn lz4_stored(data: &[u8]) -> Vec<u8> {
    let mut block = vec![if data.len() >= 15 {
        0xf0
    } else {
        (data.len() << 4) as u8
    }];
    if let Some(mut more) = data.len().checked_sub(15) {
        while more >= 255 {
            block.push(255);
            more -= 255;
        }
        block.push(more as u8);
    }
    block.extend(data);
    let mut packed = b"\x02\x21\x4c\x18".to_vec();
    packed.extend((block.len() as u32).to_le_bytes());
    packed.extend(block);
    packed.extend((data.len() as u32).to_le_bytes());
    packed
}

/// A bzImage with good headers around a payload.
fn around(payload: &[u8]) -> Vec<u8> {
    let code = payload.len().next_multiple_of(16);
    let mut image = vec![0; CODE + code];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &((code / 16) as u32).to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x236, &[1]);
    put(0x238, &2047u32.to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(CODE, payload);
    image
}
