//! The file of a machine's state: a fixed header, a table of sections, the sections. Pure: values
//! to bytes and back, nothing of it trusted before its checksum has been compared.
//!
//! All numbers are little-endian. The header has 64 bytes:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `CORASNAP` |
//! | 8 | 2 | version of this layout, 1 |
//! | 10 | 2 | 0 |
//! | 12 | 4 | number of sections |
//! | 16 | 32 | who wrote it, ASCII, filled up with 0 |
//! | 48 | 8 | length of the whole file |
//! | 56 | 4 | 0 |
//! | 60 | 4 | CRC-32 of the 60 bytes before and of the table |
//!
//! Each entry of the table has 80 bytes: the kind of the section (16 bytes) and which of its kind
//! it is (32 bytes), both ASCII filled up with 0; the version of its fields (2), 0 (2), the CRC-32
//! of its bytes (4), its offset in the file (8), its length (8), 0 (8). The sections follow in the
//! order of the table without gaps.

use devices::state;
use devices::state::{BadState, Decode as _, Encode as _, Section};

const MAGIC: [u8; 8] = *b"CORASNAP";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 80;
/// Where the header's checksum is, its last field.
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

state! {
    /// The header.
    struct Header {
        magic: [u8; 8],
        version: u16,
        zero: u16,
        sections: u32,
        writer: [u8; 32],
        file_bytes: u64,
        zero_too: u32,
        checksum: u32,
    }
}

state! {
    /// An entry of the table.
    struct Entry {
        kind: [u8; 16],
        name: [u8; 32],
        version: u16,
        zero: u16,
        checksum: u32,
        offset: u64,
        bytes: u64,
        zero_too: u64,
    }
}

/// Bytes that are no state of a machine, or none that this version can take.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FormatError {
    /// They begin with something else.
    #[error("it is no snapshot of Coracle's")]
    NotSnapshot,
    /// They have another layout.
    #[error("its layout has version {found}, this program reads version {VERSION}")]
    Version {
        /// The version.
        found: u16,
    },
    /// They are more or fewer than they say.
    #[error("it is damaged: {found} bytes instead of {expected}")]
    Length {
        /// How many they say.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// They were changed.
    #[error("it is damaged: the checksum of {part} does not match")]
    Checksum {
        /// Which part.
        part: String,
    },
    /// A table that no version writes, under a good checksum.
    #[error("its table of sections makes no sense")]
    Table,
    /// A section is missing.
    #[error("it has no section {kind} {name}")]
    Missing {
        /// The kind.
        kind: &'static str,
        /// Which of them.
        name: String,
    },
    /// A section has other fields.
    #[error("section {kind} {name} has version {found}, this program reads version {known}")]
    SectionVersion {
        /// The kind.
        kind: &'static str,
        /// Which of them.
        name: String,
        /// Its version.
        found: u16,
        /// The one that can be read.
        known: u16,
    },
    /// A section that its own type refuses.
    #[error("section {kind} {name} makes no sense")]
    Section {
        /// The kind.
        kind: &'static str,
        /// Which of them.
        name: String,
        /// Why.
        #[source]
        cause: BadState,
    },
    /// Sections that nothing of the machine has asked for.
    #[error("this program does not know what to do with {0}")]
    LeftOver(String),
}

/// What goes into the file.
#[derive(Debug, Default)]
pub struct Builder {
    table: Vec<Entry>,
    sections: Vec<u8>,
}

impl Builder {
    /// Adds the state of the part `name`, one of at most 32 bytes of ASCII.
    pub fn add<S: Section>(&mut self, name: &str, state: &S) {
        let bytes = state.to_bytes();
        self.table.push(Entry {
            kind: field(S::KIND),
            name: field(name),
            version: S::VERSION,
            zero: 0,
            checksum: crc32fast::hash(&bytes),
            // Among the sections; where these begin is known when all are there.
            offset: self.sections.len() as u64,
            bytes: bytes.len() as u64,
            zero_too: 0,
        });
        self.sections.extend(bytes);
    }

    /// All of the file. `writer` tells the reader of an error message who wrote it, in at most 32
    /// bytes of ASCII.
    #[must_use]
    pub fn finish(mut self, writer: &str) -> Vec<u8> {
        let count = u32::try_from(self.table.len()).expect("invariant: a machine's few parts");
        let begin = HEADER_BYTES + self.table.len() * ENTRY_BYTES;
        let mut table = Vec::new();
        for entry in &mut self.table {
            entry.offset += begin as u64;
            entry.encode(&mut table);
        }
        let mut header = Header {
            magic: MAGIC,
            version: VERSION,
            zero: 0,
            sections: count,
            writer: field(writer),
            file_bytes: (begin + self.sections.len()) as u64,
            zero_too: 0,
            checksum: 0,
        };
        header.checksum = checksum(&header.to_bytes(), &table);
        [header.to_bytes(), table, self.sections].concat()
    }
}

/// The checksum of a header, which lacks its own, and of the table.
fn checksum(header: &[u8], table: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(header.get(..CHECKSUM_AT).unwrap_or_default());
    sum.update(table);
    sum.finalize()
}

/// A text in a field of `N` bytes.
fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let place = field.get_mut(..text.len());
    place
        .expect("invariant: kinds and names fit their fields")
        .copy_from_slice(text.as_bytes());
    field
}

/// The text in a field.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0);
    let text = field.get(..end.unwrap_or(field.len())).unwrap_or_default();
    text.escape_ascii().to_string()
}

/// A file that was read, its checksums compared.
#[derive(Debug)]
pub struct Sections<'a> {
    writer: String,
    left: Vec<(Entry, &'a [u8])>,
}

impl<'a> Sections<'a> {
    /// The sections of a file.
    ///
    /// # Errors
    /// [`FormatError`] when they can't be trusted.
    pub fn read(file: &'a [u8]) -> Result<Self, FormatError> {
        let (header, table) = header(file)?;
        let mut left = Vec::new();
        let mut at = HEADER_BYTES + table.len();
        for entry in table.chunks_exact(ENTRY_BYTES) {
            let entry = Entry::from_bytes(entry).map_err(|_| FormatError::Table)?;
            // No gaps: every byte of the file is under some checksum.
            let begins = usize::try_from(entry.offset) == Ok(at);
            let end = usize::try_from(entry.bytes)
                .ok()
                .and_then(|bytes| at.checked_add(bytes));
            let bytes = end.filter(|_| begins).and_then(|end| file.get(at..end));
            let bytes = bytes.ok_or(FormatError::Table)?;
            if crc32fast::hash(bytes) != entry.checksum {
                let part = entry.title();
                return Err(FormatError::Checksum { part });
            }
            at += bytes.len();
            left.push((entry, bytes));
        }
        if at != file.len() {
            return Err(FormatError::Table);
        }
        let writer = text(&header.writer);
        Ok(Self { writer, left })
    }

    /// Who wrote the file.
    #[must_use]
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Takes the state of the part `name`.
    ///
    /// # Errors
    /// [`FormatError`] when there is none that can be read.
    pub fn take<S: Section>(&mut self, name: &str) -> Result<S, FormatError> {
        let kind = S::KIND;
        let wanted =
            |(entry, _): &(Entry, _)| text(&entry.kind) == kind && text(&entry.name) == name;
        let name = name.to_owned();
        let Some(place) = self.left.iter().position(wanted) else {
            return Err(FormatError::Missing { kind, name });
        };
        let (entry, bytes) = self.left.remove(place);
        if entry.version != S::VERSION {
            return Err(FormatError::SectionVersion {
                kind,
                name,
                found: entry.version,
                known: S::VERSION,
            });
        }
        S::from_bytes(bytes).map_err(|cause| FormatError::Section { kind, name, cause })
    }

    /// Ends the reading: what was saved and not put back would be lost in silence.
    ///
    /// # Errors
    /// [`FormatError::LeftOver`] when something was not taken.
    pub fn finish(self) -> Result<(), FormatError> {
        let names: Vec<_> = self.left.iter().map(|(entry, _)| entry.title()).collect();
        match names.is_empty() {
            true => Ok(()),
            false => Err(FormatError::LeftOver(names.join(", "))),
        }
    }
}

impl Entry {
    fn title(&self) -> String {
        format!("section {} {}", text(&self.kind), text(&self.name))
    }
}

/// The header and the bytes of the table, once they are trusted.
fn header(file: &[u8]) -> Result<(Header, &[u8]), FormatError> {
    if !file.starts_with(&MAGIC) {
        return Err(FormatError::NotSnapshot);
    }
    let found = file.len() as u64;
    let cut = |expected| FormatError::Length { expected, found };
    let bytes = file.get(..HEADER_BYTES).ok_or(cut(HEADER_BYTES as u64))?;
    let header = Header::from_bytes(bytes).map_err(|_| FormatError::NotSnapshot)?;
    // Before the checksum, which another layout may have elsewhere.
    if header.version != VERSION {
        let found = header.version;
        return Err(FormatError::Version { found });
    }
    let count = usize::try_from(header.sections).ok();
    let table = count
        .and_then(|count| count.checked_mul(ENTRY_BYTES)?.checked_add(HEADER_BYTES))
        .and_then(|end| file.get(HEADER_BYTES..end))
        .ok_or(cut(header.file_bytes))?;
    if checksum(bytes, table) != header.checksum {
        let part = "its header".to_owned();
        return Err(FormatError::Checksum { part });
    }
    match header.file_bytes == found {
        true => Ok((header, table)),
        false => Err(cut(header.file_bytes)),
    }
}

#[cfg(test)]
mod tests;
