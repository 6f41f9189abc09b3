//! Writes a newc archive, the format of an initramfs: a header of hexadecimal fields, the name, the
//! content, each padded to four bytes.

use std::collections::BTreeSet;

/// An archive under construction.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    content: &'a [u8],
    device: (u32, u32),
}

impl Archive {
    /// An archive that holds /dev/console, which the kernel opens for PID 1.
    pub(super) fn new() -> Archive {
        let mut archive = Archive::default();
        archive.parents("dev/console");
        archive.put(&Entry {
            name: "dev/console",
            mode: 0o020_600,
            content: &[],
            device: (5, 1),
        });
        archive
    }

    /// Adds a file, and the folders above it.
    pub(super) fn file(&mut self, name: &str, content: &[u8], executable: bool) {
        let mode = if executable { 0o100_755 } else { 0o100_644 };
        self.parents(name);
        self.put(&Entry {
            name,
            mode,
            content,
            device: (0, 0),
        });
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.put(&Entry {
            name: "TRAILER!!!",
            mode: 0,
            content: &[],
            device: (0, 0),
        });
        self.bytes
    }

    fn parents(&mut self, name: &str) {
        for (at, _) in name.match_indices('/') {
            let folder = name.get(..at).unwrap_or_default();
            if self.folders.insert(folder.to_owned()) {
                self.put(&Entry {
                    name: folder,
                    mode: 0o040_755,
                    content: &[],
                    device: (0, 0),
                });
            }
        }
    }

    fn put(&mut self, entry: &Entry<'_>) {
        self.entries += 1;
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let fields = [
            self.entries, // inode
            entry.mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            size(entry.content.len()),
            0, // device of the file system
            0,
            entry.device.0,
            entry.device.1,
            size(entry.name.len() + 1),
            0, // checksum, unused in this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(entry.name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(entry.content);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_folders_come_once() {
        let mut archive = Archive::new();
        archive.file("bin/a", b"12345", true);
        archive.file("bin/b", b"", false);
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 6);
        assert!(text.contains("bin/a\0"));
        assert!(text.contains("TRAILER!!!\0"));
    }
}
