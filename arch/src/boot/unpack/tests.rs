use std::io::Write;

use proptest::prelude::*;

use super::super::testing::{lz4, size_word};
use super::super::{Compression, KernelError};
use super::{LZ4_BLOCK, unpack};

/// `bzip2 -9` of [`text`].
const BZIP2: &[u8] = include_bytes!("text.bz2");

fn text() -> Vec<u8> {
    b"Coracle carries small guests across. ".repeat(40)
}

fn packings(raw: &[u8]) -> Vec<(Compression, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(raw).unwrap();
    let options = lzma_rust2::XzOptions::with_preset(6);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(raw).unwrap();
    let options = lzma_rust2::LzmaOptions::with_preset(6);
    let mut lzma = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
    lzma.write_all(raw).unwrap();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(raw, level);
    vec![
        (Compression::Gzip, gzip.finish().unwrap()),
        (Compression::Xz, size_word(xz.finish().unwrap(), raw)),
        (Compression::Lzma, size_word(lzma.finish().unwrap(), raw)),
        (Compression::Zstd, size_word(zstd, raw)),
        (Compression::Lz4, lz4(raw)),
    ]
}

#[test]
fn every_packing_comes_back() {
    let raw = text();
    let mut table = packings(&raw);
    table.push((Compression::Bzip2, size_word(BZIP2.to_vec(), &raw)));
    for (compression, packed) in table {
        assert_eq!(
            unpack(&packed).unwrap(),
            (compression, raw.clone()),
            "{compression}"
        );
    }
    let elf = b"\x7fELF and the rest";
    assert_eq!(unpack(elf).unwrap(), (Compression::None, elf.to_vec()));
}

#[test]
fn the_branch_filter_of_xz_comes_back() {
    // x86 calls, whose targets the filter makes absolute.
    let raw: Vec<u8> = (0..200u8)
        .flat_map(|i| [0xe8, i, 0, 0, 0, 0x90, i])
        .collect();
    let mut options = lzma_rust2::XzOptions::with_preset(6);
    options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(&raw).unwrap();
    let packed = size_word(xz.finish().unwrap(), &raw);
    assert_eq!(unpack(&packed).unwrap(), (Compression::Xz, raw));
}

#[test]
fn lz4_blocks_and_frames_follow_each_other() {
    let raw: Vec<u8> = (0..LZ4_BLOCK + 4321)
        .map(|i| (i / 9 % 251).to_le_bytes()[0])
        .collect();
    assert_eq!(unpack(&lz4(&raw)).unwrap().1, raw);
    let (mut first, second) = (lz4(b"one "), lz4(b"two"));
    first.truncate(first.len() - 4);
    first.extend(&second[..second.len() - 4]);
    assert_eq!(unpack(&size_word(first, b"one two")).unwrap().1, b"one two");
}

#[test]
fn the_size_word_is_a_limit_and_a_check() {
    let raw = text();
    let mut table = packings(&raw);
    table.push((Compression::Bzip2, size_word(BZIP2.to_vec(), &raw)));
    for (compression, packed) in table {
        for stated in [0u32, 1, 17, 1479, 1481, 5000, 0x2000_0000] {
            let mut packed = packed.clone();
            let at = packed.len() - 4;
            packed[at..].copy_from_slice(&stated.to_le_bytes());
            let error = unpack(&packed).unwrap_err();
            assert!(
                matches!(error, KernelError::Payload { .. }),
                "{compression}: {error}"
            );
        }
        let mut packed = packed.clone();
        let at = packed.len() - 4;
        packed[at..].copy_from_slice(&0x2000_0001u32.to_le_bytes());
        let error = unpack(&packed).unwrap_err();
        assert!(
            matches!(error, KernelError::TooBig { .. }),
            "{compression}: {error}"
        );
    }
}

#[test]
fn a_bomb_stops_at_its_size_word() {
    // 64 MiB of zeros that claim to be 4096 bytes.
    let raw = vec![0; 64 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&raw).unwrap();
    let mut packed = gzip.finish().unwrap();
    let at = packed.len() - 4;
    packed[at..].copy_from_slice(&4096u32.to_le_bytes());
    let message = unpack(&packed).unwrap_err().to_string();
    assert!(
        message.contains("expands beyond the 4096 bytes"),
        "{message}"
    );
}

#[test]
fn truncated_and_damaged_streams_are_refused() {
    let raw = text();
    let mut table = packings(&raw);
    table.push((Compression::Bzip2, size_word(BZIP2.to_vec(), &raw)));
    for (compression, packed) in table {
        let stream = if compression == Compression::Gzip {
            packed.len()
        } else {
            packed.len() - 4
        };
        for len in 7..stream {
            let mut cut = packed[..len].to_vec();
            if compression != Compression::Gzip {
                cut = size_word(cut, &raw);
            }
            // The end mark of these two is in the last bytes: nothing of the content is lost.
            let spare = matches!(compression, Compression::Lzma | Compression::Xz);
            let result = unpack(&cut);
            assert!(
                result.is_err() || spare && result.unwrap().1 == raw,
                "{compression} {len}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_is_found_where_there_is_a_checksum() {
    let raw = text();
    let mut table = packings(&raw);
    table.push((Compression::Bzip2, size_word(BZIP2.to_vec(), &raw)));
    for (compression, packed) in table {
        // These containers have no checksum of the content.
        if matches!(compression, Compression::Lz4 | Compression::Lzma) {
            continue;
        }
        for bit in 0..packed.len() * 8 {
            let mut packed = packed.clone();
            packed[bit / 8] ^= 1 << (bit % 8);
            if let Ok((_, found)) = unpack(&packed) {
                assert!(found == raw, "{compression}: bit {bit}");
            }
        }
    }
}

#[test]
fn unknown_packings_are_named() {
    let message = unpack(b"\x89LZO\0\r\n\x1a\n").unwrap_err().to_string();
    assert!(
        message.contains("which is lzo: rebuild the kernel"),
        "{message}"
    );
    let message = unpack(b"?").unwrap_err().to_string();
    assert!(message.contains("which is unknown"), "{message}");
    assert!(unpack(b"").is_err());
}

proptest! {
    #[test]
    fn damage_never_panics(
        which in 0usize..5,
        edits in prop::collection::vec(any::<(u16, u8)>(), 1..5),
    ) {
        let mut packed = packings(&text()).swap_remove(which).1;
        for (at, value) in edits {
            let at = usize::from(at) % packed.len();
            packed[at] = value;
        }
        let _ = unpack(&packed);
    }
}
