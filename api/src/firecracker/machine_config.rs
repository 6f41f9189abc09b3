//! The size of a machine.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::MIB;
use crate::error::{ApiError, Code};
use crate::spec::{MachineSpec, SizeSpec};

/// Most virtual CPUs that Firecracker's clients can ask for.
const MOST_VCPUS: u64 = 32;

/// `PUT /machine-config` and `GET /machine-config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Virtual CPUs.
    pub vcpu_count: u64,
    /// Memory in MiB.
    pub mem_size_mib: u64,
    /// Whether two vCPUs share a core; the guest is not told so here.
    #[serde(default)]
    pub smt: bool,
    /// A set of CPU features to show; only none is there.
    #[serde(default, skip_serializing)]
    pub cpu_template: Option<CpuTemplate>,
    /// Whether KVM notes which pages the guest writes.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// The host's pages behind the memory.
    #[serde(default)]
    pub huge_pages: HugePages,
}

/// `PATCH /machine-config`: what is none stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MachineConfigPatch {
    /// Virtual CPUs.
    pub vcpu_count: Option<u64>,
    /// Memory in MiB.
    pub mem_size_mib: Option<u64>,
    /// Whether two vCPUs share a core.
    pub smt: Option<bool>,
    /// A set of CPU features to show.
    pub cpu_template: Option<CpuTemplate>,
    /// Whether KVM notes which pages the guest writes.
    pub track_dirty_pages: Option<bool>,
    /// The host's pages behind the memory.
    pub huge_pages: Option<HugePages>,
}

/// What can be said in Firecracker's words and has no meaning here: it is told back as it was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Whether two vCPUs share a core.
    pub smt: bool,
    /// Whether KVM notes which pages the guest writes.
    pub track_dirty_pages: bool,
    /// The drives whose flushes need not be carried out.
    pub unsafe_drives: BTreeSet<String>,
}

/// The host's pages behind a guest's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum HugePages {
    /// Those of 4 KiB.
    #[default]
    None,
    /// Larger ones where the host has some at hand.
    Transparent,
    /// Reserved ones of 2 MiB.
    #[serde(rename = "2M")]
    Reserved,
}

/// Firecracker's sets of CPU features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum CpuTemplate {
    /// No change of what the host shows.
    None,
    /// Intel Skylake.
    C3,
    /// Intel, to look like T2A.
    T2,
    /// Intel, for snapshots between hosts.
    T2S,
    /// Intel Cascade Lake.
    T2CL,
    /// AMD, to look like T2.
    T2A,
    /// ARM Neoverse V1.
    V1N1,
}

impl MachineConfig {
    /// As a change of all of it.
    #[must_use]
    pub fn patch(self) -> MachineConfigPatch {
        MachineConfigPatch {
            vcpu_count: Some(self.vcpu_count),
            mem_size_mib: Some(self.mem_size_mib),
            smt: Some(self.smt),
            cpu_template: self.cpu_template,
            track_dirty_pages: Some(self.track_dirty_pages),
            huge_pages: Some(self.huge_pages),
        }
    }

    /// The size of a machine.
    #[must_use]
    pub fn of(spec: &MachineSpec, words: &Words) -> Self {
        let bytes = spec.memory.as_ref().and_then(|size| size.bytes().ok());
        Self {
            vcpu_count: spec.cpus,
            mem_size_mib: bytes.unwrap_or_default() / MIB,
            smt: words.smt,
            cpu_template: None,
            track_dirty_pages: words.track_dirty_pages,
            huge_pages: match spec.hugepages {
                true => HugePages::Reserved,
                false => HugePages::None,
            },
        }
    }
}

impl MachineConfigPatch {
    /// Changes the size of a machine.
    ///
    /// # Errors
    /// When a value cannot be had; both may have changed in part then.
    pub fn apply(self, spec: &mut MachineSpec, words: &mut Words) -> Result<(), ApiError> {
        let refuse = |field: &str, message: String, hint: &str| {
            Err(ApiError::new(Code::InvalidValue, message, hint).of_field(field))
        };
        words.smt = self.smt.unwrap_or(words.smt);
        words.track_dirty_pages = self.track_dirty_pages.unwrap_or(words.track_dirty_pages);
        spec.cpus = self.vcpu_count.unwrap_or(spec.cpus);
        if !(1..=MOST_VCPUS).contains(&spec.cpus) {
            let message = format!("The vCPU number is invalid: {}", spec.cpus);
            return refuse("vcpu_count", message, "give 1 to 32");
        }
        if words.smt && spec.cpus > 1 && !spec.cpus.is_multiple_of(2) {
            let message = "The vCPU number can only be 1 or an even number with smt".to_owned();
            return refuse("vcpu_count", message, "give an even number, or smt false");
        }
        if let Some(mib) = self.mem_size_mib {
            // Text, so that no number is too large to be told in the message.
            spec.memory = Some(SizeSpec::Text(format!("{mib}M")));
        }
        match self.huge_pages {
            Some(HugePages::Transparent) => {
                let message = "transparent huge pages cannot be asked for".to_owned();
                return refuse("huge_pages", message, "the host decides; give None or 2M");
            }
            Some(pages) => spec.hugepages = pages == HugePages::Reserved,
            None => {}
        }
        match self.cpu_template {
            None | Some(CpuTemplate::None) => Ok(()),
            Some(other) => {
                let message = format!("there is no CPU template {other:?}");
                refuse("cpu_template", message, "leave cpu_template out")
            }
        }
    }
}
