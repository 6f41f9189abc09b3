//! Any bytes as the header of a copy-on-write delta, under a good checksum: an error that names
//! what is wrong, or a header that is written as it was read.
#![no_main]

use coracle_fuzz::bounded;
use devices::disk::overlay::{Header, HeaderError};
use libfuzzer_sys::fuzz_target;

const HEADER_BYTES: usize = 8192;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else {
        return;
    };
    if how & 1 != 0 {
        // As they are: hardly any has a good checksum, and the length is theirs.
        assert!(bounded(1 << 16, || Header::parse(bytes)).is_err() || bytes.len() >= HEADER_BYTES);
        return;
    }
    let mut copy = [0; HEADER_BYTES];
    let len = bytes.len().min(CHECKSUM_AT);
    copy[..len].copy_from_slice(&bytes[..len]);
    if how & 2 == 0 {
        // What every delta begins with.
        copy[..12].copy_from_slice(b"CoracleD\x01\0\0\0");
    }
    let sum = crc32fast::hash(&copy[..CHECKSUM_AT]);
    copy[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
    match bounded(1 << 16, || Header::parse(&copy)) {
        Ok(header) => {
            assert!(header.base.bytes <= header.capacity);
            assert_eq!(header.encode().unwrap(), copy);
        }
        Err(HeaderError::Checksum { .. } | HeaderError::Short { .. }) => {
            panic!("the checksum and the length are good");
        }
        Err(_) => {}
    }
});
