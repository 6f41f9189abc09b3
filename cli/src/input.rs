//! Files that only the command line reads.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::failure::Failure;

/// Longest file that is read: a mistyped path shouldn't fill the memory.
const MAX_BYTES: u64 = 1 << 20;

/// The text of the file that `field` names.
///
/// # Errors
/// When it can't be opened or read, or is too long; `hint` says what to give instead.
pub(crate) fn read(field: &'static str, path: &Path, hint: &str) -> Result<String, Failure> {
    let open = vmm::files::open_input(field, path)?;
    read_limited(&open.file)
        .map_err(|reason| Failure::input(format!("{field} {}: {reason}", path.display()), hint))
}

fn read_limited(file: &File) -> Result<String, String> {
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    match u64::try_from(text.len()) {
        Ok(len) if len <= MAX_BYTES => Ok(text),
        _ => Err("is longer than 1 MiB".to_owned()),
    }
}
