//! What a kernel can be used for here, told from its configuration: a `.config` or `config-…`
//! text, `/proc/config.gz`, or an image that carries its own (CONFIG_IKCONFIG). Reads one file.

mod options;
mod uses;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use arch::boot::{Kernel, Payload};
use serde::Serialize;

use crate::failure::{self, Failure};
use options::{Options, Setting};
use uses::{USES, Use};

/// Far above any kernel image or configuration; keeps a wrong path from filling the memory.
const LARGEST_FILE_BYTES: u64 = 1 << 30;

/// What a kernel lacks for each use.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// The file that was read.
    pub(crate) source: String,
    /// Linux's name for the configuration, if it says.
    pub(crate) kernel: Option<String>,
    /// Each use in the order of importance.
    pub(crate) uses: Vec<UseReport>,
}

/// One use and whether the kernel serves it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct UseReport {
    /// Its short name.
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) what: &'static str,
    /// Whether it works.
    pub(crate) verdict: Verdict,
    /// What is missing: one of the options of each group would do.
    pub(crate) missing: Vec<Vec<String>>,
    /// What is built as a module, which an initial RAM disk has to load first.
    pub(crate) modules: Vec<String>,
}

/// Whether a use works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Everything is built in.
    Ready,
    /// It works once modules are loaded.
    Modules,
    /// The kernel can't.
    Lacking,
}

impl Report {
    /// Whether `coracle boot` can start this kernel with a console.
    pub(crate) fn boots(&self) -> bool {
        let works = |name| {
            self.uses
                .iter()
                .any(|one| one.name == name && one.verdict == Verdict::Ready)
        };
        works("boot") && (works("serial console") || works("virtio console"))
    }

    /// The table for people.
    pub(crate) fn human(&self) -> String {
        let mut text = format!(
            "Kernel: {}\n",
            self.kernel.as_deref().unwrap_or("not named")
        );
        let width = self
            .uses
            .iter()
            .map(|one| one.name.len())
            .max()
            .unwrap_or(0);
        for one in &self.uses {
            let verdict = match one.verdict {
                Verdict::Ready => "ready  ",
                Verdict::Modules => "modules",
                Verdict::Lacking => "LACKING",
            };
            text.push_str(&format!("  {verdict}  {:width$}  {}\n", one.name, one.what));
            for group in &one.missing {
                let group = group.join(" or ");
                text.push_str(&format!("  {:7}  {:width$}  wants {group}\n", "", ""));
            }
            if !one.modules.is_empty() {
                let modules = one.modules.join(", ");
                text.push_str(&format!(
                    "  {:7}  {:width$}  to be loaded: {modules}\n",
                    "", ""
                ));
            }
        }
        text
    }
}

/// Reads a configuration or an image and judges it.
///
/// # Errors
/// A file that cannot be read, or that is neither.
pub(crate) fn check(source: &Path) -> Result<Report, Failure> {
    let shown = source.display().to_string();
    let bytes = read(source, &shown)?;
    let text = configuration(&bytes, source, &shown)?;
    Ok(judge(shown, &Options::parse(&text)))
}

fn read(source: &Path, shown: &str) -> Result<Vec<u8>, Failure> {
    let hint = "give a kernel's .config, its config-… file or its image";
    let about = fs::metadata(source)
        .map_err(|error| Failure::input(format!("{shown}: can't be opened: {error}"), hint))?;
    if !about.is_file() {
        return Err(Failure::input(format!("{shown}: is no file"), hint));
    }
    if about.len() > LARGEST_FILE_BYTES {
        let problem = format!("{shown}: has {} bytes, more than any kernel", about.len());
        return Err(Failure::input(problem, hint));
    }
    fs::read(source)
        .map_err(|error| Failure::input(format!("{shown}: can't be read: {error}"), hint))
}

/// The text of the configuration behind any of the forms.
fn configuration(bytes: &[u8], source: &Path, shown: &str) -> Result<String, Failure> {
    let is_image = bytes.starts_with(b"\x7fELF") || bytes.get(0x202..0x206) == Some(b"HdrS");
    let text = if is_image {
        within_image(bytes, source, shown)?
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        options::gunzip(bytes).unwrap_or_default()
    } else {
        bytes.to_vec()
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    if text.lines().any(|line| line.starts_with("CONFIG_")) {
        return Ok(text);
    }
    Err(Failure::input(
        format!("{shown}: is neither a kernel configuration nor a kernel image"),
        "give a kernel's .config, its config-… file, an ELF vmlinux or a bzImage",
    ))
}

fn within_image(bytes: &[u8], source: &Path, shown: &str) -> Result<Vec<u8>, Failure> {
    let kernel = Kernel::open(&bytes).map_err(|error| failure::bad_kernel(shown, &error))?;
    let found = match kernel.payload() {
        Payload::File => options::embedded(bytes),
        Payload::Unpacked(payload) => options::embedded(payload),
    };
    found.ok_or_else(|| {
        let beside = config_beside(source).map_or_else(
            || "its config file, such as /boot/config-6.1.0-1-amd64".to_owned(),
            |path| path.display().to_string(),
        );
        Failure::input(
            format!("{shown}: carries no configuration (it was built without CONFIG_IKCONFIG)"),
            format!("check its configuration instead: coracle kernel check {beside}"),
        )
    })
}

/// Distributions install `vmlinuz-VERSION` and `config-VERSION` side by side.
fn config_beside(image: &Path) -> Option<std::path::PathBuf> {
    let version = image.file_name()?.to_str()?.split_once('-')?.1;
    let path = image.with_file_name(format!("config-{version}"));
    path.is_file().then_some(path)
}

fn judge(source: String, options: &Options) -> Report {
    Report {
        source,
        kernel: options.kernel.clone(),
        uses: USES.iter().map(|one| judge_use(one, options)).collect(),
    }
}

fn judge_use(one: &Use, options: &Options) -> UseReport {
    let mut missing = Vec::new();
    let mut modules = Vec::new();
    for group in one.wants {
        // The first of the best: `max_by_key` alone would take the last.
        let best = group.iter().rev().max_by_key(|name| options.get(name));
        match best.map(|name| (name, options.get(name))) {
            Some((_, Setting::BuiltIn)) => {}
            Some((name, Setting::Module)) => modules.push(format!("CONFIG_{name}")),
            _ => missing.push(group.iter().map(|name| format!("CONFIG_{name}")).collect()),
        }
    }
    let verdict = match (missing.is_empty(), modules.is_empty()) {
        (false, _) => Verdict::Lacking,
        (true, false) => Verdict::Modules,
        (true, true) => Verdict::Ready,
    };
    UseReport {
        name: one.name,
        what: one.what,
        verdict,
        missing,
        modules,
    }
}
