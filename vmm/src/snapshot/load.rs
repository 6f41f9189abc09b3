//! Loading: both files are opened and looked at before anything is made of them.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use api::spec::MachineSpec;
use rustix::fs::OFlags;

use super::error::{LoadError, MemoryProblem};
use super::format::{FormatError, Sections};
use super::memory;
use super::save::Target;
use super::state::{DiskMarkV1, MachineStateV1};
use crate::blueprint::Blueprint;
use crate::kvm::state::{VcpuStateV1, VmStateV1};

/// More than any machine's state has. Its memory is elsewhere.
const MOST_BYTES: u64 = 64 << 20;

/// A machine as it was saved: its state, read and checked, and its memory, open.
#[derive(Debug)]
pub struct Snapshot {
    /// The file of the state, whose checksums are right.
    bytes: Vec<u8>,
    machine: MachineStateV1,
    spec: MachineSpec,
    memory: Arc<File>,
    from: Target,
}

/// The state, part by part.
pub(crate) struct Parts<'a> {
    pub(crate) vm: VmStateV1,
    pub(crate) vcpus: Vec<VcpuStateV1>,
    /// The devices and what else is left.
    pub(crate) devices: Sections<'a>,
}

impl Snapshot {
    /// Opens what was saved.
    ///
    /// # Errors
    /// [`LoadError`] when it is none, or damaged, or of a version that this one can't take.
    pub fn open(from: &Target) -> Result<Self, LoadError> {
        let bytes = read(&from.state)?;
        let (machine, ..) = sections(&bytes).map_err(format_of(from))?;
        let spec = MachineSpec::from_json(&machine.spec).map_err(|_| LoadError::Description)?;
        let memory = Arc::new(open(&from.memory)?);
        let snapshot = Self {
            bytes,
            machine,
            spec,
            memory,
            from: from.clone(),
        };
        snapshot.parts()?;
        snapshot.check_memory()?;
        Ok(snapshot)
    }

    /// Its state, part by part.
    pub(crate) fn parts(&self) -> Result<Parts<'_>, LoadError> {
        let parts = || {
            let (_, mut devices) = sections(&self.bytes)?;
            let vm = devices.take("")?;
            let vcpus = (0..self.spec.cpus).map(|number| devices.take(&number.to_string()));
            let vcpus = vcpus.collect::<Result<_, _>>()?;
            Ok(Parts { vm, vcpus, devices })
        };
        parts().map_err(format_of(&self.from))
    }

    /// The file of the machine's memory.
    pub(crate) fn memory(&self) -> &Arc<File> {
        &self.memory
    }

    fn check_memory(&self) -> Result<(), LoadError> {
        let id = self.machine.memory_id;
        let checked = memory::check(&self.memory, self.memory_bytes(), id);
        self.judged(checked)
    }

    /// Compares every checksum of the memory, which a restore does not: it reads only what its
    /// guest does.
    ///
    /// # Errors
    /// [`LoadError::Memory`] with the first place that is damaged.
    pub fn verify(&self) -> Result<(), LoadError> {
        let MachineStateV1 {
            memory: ranges,
            memory_sums,
            ..
        } = &self.machine;
        self.judged(memory::verify(&self.memory, ranges, memory_sums))
    }

    fn judged(&self, checked: io::Result<Result<(), MemoryProblem>>) -> Result<(), LoadError> {
        let path = self.from.memory.clone();
        match checked {
            Err(cause) => Err(LoadError::Read { path, cause }),
            Ok(Err(problem)) => Err(LoadError::Memory { path, problem }),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// What the machine was made of.
    #[must_use]
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// What its kernel was started with.
    #[must_use]
    pub fn cmdline(&self) -> &str {
        &self.machine.cmdline
    }

    fn memory_bytes(&self) -> u64 {
        let lengths = self.machine.memory.iter().map(|(_, bytes)| *bytes);
        lengths.fold(0, u64::saturating_add)
    }

    /// Checks that the machine of `blueprint` can go on with it: that its guest finds all where it
    /// was, and the disks of the specification as they were. `system` is the root disk of the
    /// built-in guest, where it is that.
    ///
    /// # Errors
    /// [`LoadError`] with the first difference.
    pub fn fits(
        &self,
        blueprint: &Blueprint,
        spec: &MachineSpec,
        system: Option<&[u8]>,
    ) -> Result<(), LoadError> {
        let saved = &self.machine;
        let ranges = blueprint.memory.ranges();
        if ranges != saved.memory {
            return Err(LoadError::Layout {
                saved: format!("memory {:x?}", saved.memory),
                here: format!("{ranges:x?}"),
            });
        }
        let here = blueprint.layout();
        if here != saved.layout {
            let both = saved.layout.iter().zip(&here);
            let mut differ = both.filter(|(saved, here)| saved != here);
            let (saved, here) = match differ.next() {
                Some((saved, here)) => (saved.clone(), here.clone()),
                None => (
                    format!("{} devices", saved.layout.len()),
                    format!("{}", here.len()),
                ),
            };
            return Err(LoadError::Layout { saved, here });
        }
        if system.map(crc32fast::hash) != saved.system_sum {
            return Err(LoadError::System);
        }
        let marks = DiskMarkV1::of_all(spec);
        let mut disks = spec.disks.iter().zip(marks).zip(&saved.disks);
        match disks.find(|((_, now), then)| now != *then) {
            Some(((disk, _), _)) => Err(LoadError::Disk(disk.path.clone())),
            None => Ok(()),
        }
    }
}

/// What is said of the machine as a whole, and all else.
fn sections(bytes: &[u8]) -> Result<(MachineStateV1, Sections<'_>), FormatError> {
    let mut sections = Sections::read(bytes)?;
    let machine = sections.take("")?;
    Ok((machine, sections))
}

fn format_of(from: &Target) -> impl FnOnce(FormatError) -> LoadError {
    |cause| LoadError::Format {
        path: from.state.clone(),
        cause,
    }
}

fn open(path: &Path) -> Result<File, LoadError> {
    let file = devices::host::open(path, OFlags::RDONLY);
    file.map(File::from).map_err(|cause| LoadError::Read {
        path: path.to_owned(),
        cause: cause.into(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let file = open(path)?;
    let unread = |cause| LoadError::Read {
        path: path.to_owned(),
        cause,
    };
    if !file.metadata().map_err(unread)?.is_file() {
        return Err(LoadError::Format {
            path: path.to_owned(),
            cause: FormatError::NotSnapshot,
        });
    }
    let mut bytes = Vec::new();
    let read = file.take(MOST_BYTES).read_to_end(&mut bytes);
    read.map_err(unread)?;
    Ok(bytes)
}
