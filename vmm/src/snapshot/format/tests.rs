//! Files as they are written, cut, changed and made up.

use super::*;
use devices::state::Encode;

state! {
    /// The state of a lamp.
    struct LampStateV1: "lamp", 1 {
        on: bool,
        hours: u32,
    }
}

/// The lamp as a later version has it.
#[derive(Debug)]
struct Later(LampStateV1);

impl Encode for Later {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl state::Decode for Later {
    fn decode(from: &mut state::Reader<'_>) -> Result<Self, BadState> {
        LampStateV1::decode(from).map(Self)
    }
}

impl Section for Later {
    const KIND: &'static str = "lamp";
    const VERSION: u16 = 2;
}

const RED: LampStateV1 = LampStateV1 { on: true, hours: 7 };
const BLUE: LampStateV1 = LampStateV1 {
    on: false,
    hours: 0,
};

fn file() -> Vec<u8> {
    let mut builder = Builder::default();
    builder.add("red", &RED);
    builder.add("blue", &BLUE);
    builder.finish("coracle 0.1.0")
}

/// A file with a header or table that was changed and given a good checksum again.
fn made_up(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut file = file();
    change(&mut file);
    let (header, rest) = file.split_at(HEADER_BYTES);
    let sum = checksum(header, &rest[..2 * ENTRY_BYTES]);
    file[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    file
}

#[test]
fn what_is_written_is_read_in_any_order() {
    let file = file();
    let mut sections = Sections::read(&file).unwrap();
    assert_eq!(sections.writer(), "coracle 0.1.0");
    assert_eq!(sections.take("blue"), Ok(BLUE));
    assert_eq!(sections.take("red"), Ok(RED));
    let again = sections.take::<LampStateV1>("red").unwrap_err();
    assert_eq!(again.to_string(), "it has no section lamp red");
    sections.finish().unwrap();
    let empty = Builder::default().finish("");
    Sections::read(&empty).unwrap().finish().unwrap();
}

#[test]
fn every_cut_is_told() {
    let file = file();
    for len in 0..file.len() {
        let error = Sections::read(&file[..len]).unwrap_err();
        let expected = match len {
            0..8 => FormatError::NotSnapshot,
            8..HEADER_BYTES => FormatError::Length {
                expected: HEADER_BYTES as u64,
                found: len as u64,
            },
            _ => FormatError::Length {
                expected: file.len() as u64,
                found: len as u64,
            },
        };
        assert_eq!(error, expected, "{len}");
    }
    let longer = [file, vec![0]].concat();
    assert!(matches!(
        Sections::read(&longer),
        Err(FormatError::Length { .. })
    ));
}

#[test]
fn every_flipped_bit_is_told() {
    let file = file();
    for bit in 0..file.len() * 8 {
        let mut file = file.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        let error = Sections::read(&file).unwrap_err();
        let told = match bit / 8 {
            0..8 => error == FormatError::NotSnapshot,
            8..10 => matches!(error, FormatError::Version { .. }),
            _ => matches!(
                error,
                FormatError::Checksum { .. } | FormatError::Length { .. }
            ),
        };
        assert!(told, "bit {bit}: {error:?}");
    }
}

#[test]
fn made_up_tables_are_refused() {
    let entry = HEADER_BYTES;
    let offset = entry + 56;
    let bytes = entry + 64;
    let table = Sections::read(&made_up(|file| file[offset] += 1)).unwrap_err();
    assert_eq!(table, FormatError::Table);
    for value in [u64::MAX, 1 << 40, 6] {
        let file = made_up(|file| file[bytes..bytes + 8].copy_from_slice(&value.to_le_bytes()));
        let error = Sections::read(&file).unwrap_err();
        let damaged = matches!(error, FormatError::Table | FormatError::Checksum { .. });
        assert!(damaged, "{value}: {error:?}");
    }
    // One section fewer than there are bytes for.
    let file = made_up(|file| file[12] = 1);
    assert!(Sections::read(&file).is_err());
    let error = Sections::read(&made_up(|file| file[15] = 0xff)).unwrap_err();
    assert!(matches!(error, FormatError::Length { .. }), "{error:?}");
    // A kind that is no text names itself without harm.
    let file = made_up(|file| file[entry] = 0x1b);
    let error = Sections::read(&file).unwrap().finish().unwrap_err();
    let told = "this program does not know what to do with section \\x1bamp red, section lamp blue";
    assert_eq!(error.to_string(), told);
}

#[test]
fn other_versions_and_other_fields_are_refused() {
    let file = file();
    let mut sections = Sections::read(&file).unwrap();
    let error = sections.take::<Later>("red").unwrap_err();
    let told = "section lamp red has version 1, this program reads version 2";
    assert_eq!(error.to_string(), told);
    let error = sections.finish().unwrap_err();
    let told = "this program does not know what to do with section lamp blue";
    assert_eq!(error.to_string(), told);

    let mut builder = Builder::default();
    builder.add("red", &Later(RED));
    let mut bytes = builder.finish("");
    // Version 1 again, and a flag that is none, both under good checksums.
    let at = bytes.len() - 5;
    bytes[at] = 2;
    let sum = crc32fast::hash(&bytes[at..]);
    bytes[HEADER_BYTES + 48] = 1;
    bytes[HEADER_BYTES + 52..HEADER_BYTES + 56].copy_from_slice(&sum.to_le_bytes());
    let (header, rest) = bytes.split_at(HEADER_BYTES);
    let sum = checksum(header, &rest[..ENTRY_BYTES]);
    bytes[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    let error = Sections::read(&bytes)
        .unwrap()
        .take::<LampStateV1>("red")
        .unwrap_err();
    assert_eq!(error.to_string(), "section lamp red makes no sense");
}
