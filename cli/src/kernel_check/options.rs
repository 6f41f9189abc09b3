//! The options of a kernel configuration, from its text or from inside a kernel image; no I/O.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;

/// How an option is set; a later one serves better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    /// Off or unknown to this kernel.
    Absent,
    /// `=m`.
    Module,
    /// `=y`.
    BuiltIn,
}

/// A parsed configuration.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// From the header that Linux writes ("Linux/x86 6.1.192 Kernel Configuration").
    pub(super) kernel: Option<String>,
    set: HashMap<String, Setting>,
}

/// A configuration is some 300 KB of text; anything much larger is none.
const LARGEST_TEXT_BYTES: u64 = 8 << 20;

impl Options {
    pub(super) fn parse(text: &str) -> Self {
        let mut options = Self::default();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                if let Some(name) = comment.strip_suffix(" Kernel Configuration") {
                    options.kernel.get_or_insert_with(|| name.to_owned());
                }
            } else if let Some((name, value)) = line
                .strip_prefix("CONFIG_")
                .and_then(|line| line.split_once('='))
            {
                let setting = match value.trim_end() {
                    "y" => Setting::BuiltIn,
                    "m" => Setting::Module,
                    _ => continue,
                };
                options.set.insert(name.to_owned(), setting);
            }
        }
        options
    }

    pub(super) fn get(&self, name: &str) -> Setting {
        self.set.get(name).copied().unwrap_or(Setting::Absent)
    }
}

/// The start of a gzip stream unpacked, up to the limit; what follows the stream is ignored.
pub(super) fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(bytes)
        .take(LARGEST_TEXT_BYTES)
        .read_to_end(&mut text)
        .ok()?;
    Some(text)
}

/// The configuration inside an unpacked image: a gzip stream behind the mark of CONFIG_IKCONFIG.
/// The mark's text can stand elsewhere too, so every place is tried.
pub(super) fn embedded(image: &[u8]) -> Option<Vec<u8>> {
    const MARK: &[u8] = b"IKCFG_ST";
    let mut rest = image;
    loop {
        let at = rest.windows(MARK.len()).position(|window| window == MARK)?;
        rest = rest.get(at + MARK.len()..)?;
        if rest.starts_with(&[0x1f, 0x8b])
            && let Some(text) = gunzip(rest)
        {
            return Some(text);
        }
    }
}
