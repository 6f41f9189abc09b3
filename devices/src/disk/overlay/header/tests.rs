use super::*;

fn header() -> Header {
    Header {
        generation: 3,
        id: [9; 16],
        committing: false,
        capacity: 10 << 30,
        cluster_bytes: 4096,
        base: BaseRef {
            format: BaseFormat::Raw,
            path: "/images/base.img".into(),
            bytes: 8 << 30,
            identity: BaseIdentity {
                file_bytes: 8 << 30,
                changed_seconds: -5,
                changed_nanoseconds: 999_999_999,
                delta: [1; 16],
            },
        },
    }
}

/// Both copies, with good checksums whatever `change` did.
fn start(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut copy = header().encode().unwrap();
    change(&mut copy);
    let sum = crc32fast::hash(&copy[..CHECKSUM_AT]).to_le_bytes();
    copy[CHECKSUM_AT..].copy_from_slice(&sum);
    copy.repeat(COPIES)
}

#[test]
fn what_is_written_is_read() {
    for format in BaseFormat::ALL {
        let mut header = header();
        header.base.format = format;
        header.committing = format == BaseFormat::Cow;
        let copy = header.encode().unwrap();
        assert_eq!(copy.len(), HEADER_BYTES);
        assert_eq!(Header::parse(&copy.repeat(2)), Ok(header));
    }
    let mut longest = header();
    longest.base.path = "/x".repeat(2047).into();
    longest.base.path.as_mut_os_string().push("y");
    let copy = longest.encode().unwrap();
    assert_eq!(Header::parse(&copy.repeat(2)), Ok(longest));
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let with = |change: fn(&mut Header)| {
        let mut header = header();
        change(&mut header);
        header.encode().unwrap_err()
    };
    let long: fn(&mut Header) = |header| header.base.path = "x".repeat(4096).into();
    let far: fn(&mut Header) = |header| header.base.path = "x".repeat(20_000).into();
    let empty: fn(&mut Header) = |header| header.base.path = "".into();
    for change in [long, far, empty] {
        let error = with(change);
        let field = matches!(
            error,
            HeaderError::Field {
                field: "base_path_len",
                ..
            }
        );
        assert!(
            field || matches!(error, HeaderError::Checksum { .. }),
            "{error}"
        );
    }
    let error = with(|header| header.capacity = 1000);
    assert!(
        matches!(
            error,
            HeaderError::Field {
                field: "capacity",
                ..
            }
        ),
        "{error}"
    );
}

/// Every field, each with values that it must not have, under a good checksum.
#[test]
fn every_bad_field_is_named_with_its_value() {
    let capacity = 10_u64 << 30;
    let cases: &[(&str, usize, usize, &[u64])] = &[
        ("flags", 12, 4, &[2, 3, 0x8000_0000]),
        (
            "capacity",
            40,
            8,
            &[0, 1, 511, u64::MAX, u64::MAX - 511, 1 << 50],
        ),
        (
            "cluster_bytes",
            48,
            4,
            &[0, 1, 512, 2048, 4097, 12_288, 2 << 20, 0xffff_ffff],
        ),
        ("base_format", 52, 4, &[0, 4, 0xffff_ffff]),
        ("base_bytes", 56, 8, &[1, capacity + 512, u64::MAX]),
        (
            "base_changed_nanoseconds",
            80,
            4,
            &[1_000_000_000, 0xffff_ffff],
        ),
        (
            "base_path_len",
            84,
            4,
            &[0, 15, 17, 4096, 8192, 0xffff_ffff],
        ),
        ("map_offset", 104, 8, &[0, 8192, 16_385, u64::MAX]),
        ("map_blocks", 112, 8, &[0, 81, 83, u64::MAX]),
        ("data_offset", 120, 8, &[0, 4096, 2 << 20, u64::MAX]),
    ];
    for (name, at, size, values) in cases {
        for value in *values {
            let bytes = start(|copy| {
                copy[*at..at + size].copy_from_slice(&value.to_le_bytes()[..*size]);
            });
            match Header::parse(&bytes) {
                Err(HeaderError::Field {
                    field, value: told, ..
                }) => {
                    assert_eq!((field, told), (*name, *value));
                }
                other => panic!("{name} = {value}: {other:?}"),
            }
        }
    }
    // What the header is free to say: generation, identifiers, the base's length and time.
    for at in [16, 24, 39, 64, 72, 88, 103] {
        assert!(
            Header::parse(&start(|copy| copy[at] ^= 0x55)).is_ok(),
            "{at}"
        );
    }
    let error = Header::parse(&start(|copy| copy[8] = 2)).unwrap_err();
    assert_eq!(error, HeaderError::Version { found: 2 });
    let error = Header::parse(&start(|copy| copy[0] = b'X')).unwrap_err();
    assert_eq!(
        error,
        HeaderError::Magic {
            found: *b"XoracleD"
        }
    );
    // A zero byte in the path, and bytes behind it.
    for (at, byte) in [(130, 0), (144, 1), (8000, 1)] {
        let error = Header::parse(&start(|copy| copy[at] = byte)).unwrap_err();
        assert!(
            matches!(
                error,
                HeaderError::Field {
                    field: "base_path_len",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn the_fields_are_where_the_page_says() {
    assert_eq!(FIELDS, 128);
    let copy = header().encode().unwrap();
    assert_eq!(&copy[128..144], b"/images/base.img");
    assert_eq!(copy[88..104], [1; 16]);
    assert_eq!(copy[24..40], [9; 16]);
}

#[test]
fn cut_at_any_length() {
    let bytes = start(|_| ());
    for len in 0..HEADER_BYTES {
        let error = Header::parse(&bytes[..len]).unwrap_err();
        assert_eq!(error, HeaderError::Short { bytes: len });
    }
    for len in [HEADER_BYTES, HEADER_BYTES + 1, 2 * HEADER_BYTES - 1] {
        assert_eq!(Header::parse(&bytes[..len]), Ok(header()));
        assert_eq!(Header::good_copies(&bytes[..len]), 1);
    }
}

#[test]
fn one_damaged_copy_does_no_harm_and_two_do() {
    for at in (0..HEADER_BYTES).step_by(11) {
        for copies in [&[0][..], &[1], &[0, 1]] {
            let mut bytes = start(|_| ());
            for copy in copies {
                bytes[copy * HEADER_BYTES + at] ^= 0x20;
            }
            let result = Header::parse(&bytes);
            assert_eq!(Header::good_copies(&bytes), 2 - copies.len());
            match copies.len() {
                1 => assert_eq!(result, Ok(header())),
                _ => assert!(result.is_err(), "{at}"),
            }
        }
    }
}

#[test]
fn of_two_good_copies_the_later_counts() {
    let old = header();
    let new = Header {
        generation: 4,
        ..header()
    };
    let (a, b) = (old.encode().unwrap(), new.encode().unwrap());
    for bytes in [[a.clone(), b.clone()].concat(), [b, a].concat()] {
        assert_eq!(Header::parse(&bytes), Ok(new.clone()));
    }
}
