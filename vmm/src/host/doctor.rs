//! Judges a host: which kind it is, what it offers and the command that mends what it lacks.
//! [`Facts`] are read first, [`judge`] is pure.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::Path;

use api::doctor::{Check, DoctorReport, HostKind, Need, State};

use super::{KvmFeature, kind};
use crate::config::Size;
use crate::kvm::assist::Needs;
use crate::kvm::{Kvm, OpenError};

/// What is known about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What became of opening /dev/kvm.
    pub kvm: KvmFacts,
    /// Whether the processor offers Intel's VMX.
    pub vmx: bool,
    /// Whether the processor offers AMD's SVM.
    pub svm: bool,
    /// Whether the host is itself a virtual machine.
    pub virtual_machine: bool,
    /// All memory, in bytes.
    pub memory_bytes: u64,
    /// Free reserved pages of 2 MiB.
    pub free_hugepages: u64,
    /// Whether network taps can be made.
    pub tun: DeviceFile,
    /// Why unprivileged user namespaces can't be made: the sysctl that forbids them.
    pub userns_forbidden_by: Option<&'static str>,
}

/// What became of opening /dev/kvm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmFacts {
    /// It works; its features, and what tiny guests found out about its emulation.
    Usable {
        /// The features.
        features: Vec<KvmFeature>,
        /// What was tried in a guest and whether KVM did it.
        tried: Vec<(&'static str, bool)>,
    },
    /// There is no such device.
    Missing,
    /// This user may not open it.
    Denied,
    /// Something else, in words.
    Broken(String),
}

impl KvmFacts {
    /// Opens KVM and, where it emulates, tries in tiny guests what it can do.
    #[must_use]
    pub fn gather(device: &Path) -> Self {
        let kvm = match Kvm::open(device) {
            Ok(kvm) => kvm,
            Err(OpenError::Missing { .. }) => return Self::Missing,
            Err(OpenError::Denied { .. }) => return Self::Denied,
            Err(error) => return Self::Broken(error.to_string()),
        };
        let tried = match super::needs(&kvm).any() {
            true => Needs::probe_thoroughly(kvm.raw()).map(|report| report.tried),
            false => Ok(Vec::new()),
        };
        match tried {
            Ok(tried) => Self::Usable {
                features: kvm.capabilities().features().to_vec(),
                tried,
            },
            Err(error) => Self::Broken(error.to_string()),
        }
    }
}

/// Whether a device file can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFile {
    /// It can be opened.
    Usable,
    /// It is not there.
    Missing,
    /// It can't be opened by this user.
    Denied,
}

impl Facts {
    /// Reads the facts from the file system below `root` (`/` on a real host).
    #[must_use]
    pub fn gather(root: &Path, kvm: KvmFacts) -> Self {
        let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
        let flags: Vec<&str> = cpuinfo
            .lines()
            .find(|line| line.starts_with("flags"))
            .map(|line| line.split_whitespace().collect())
            .unwrap_or_default();
        Self {
            kvm,
            vmx: flags.contains(&"vmx"),
            svm: flags.contains(&"svm"),
            virtual_machine: flags.contains(&"hypervisor"),
            memory_bytes: super::memory_bytes(),
            free_hugepages: super::free_hugepages(root),
            tun: device(&root.join("dev/net/tun")),
            userns_forbidden_by: userns(root),
        }
    }
}

/// Opening /dev/net/tun makes no tap yet and leaves nothing behind.
fn device(path: &Path) -> DeviceFile {
    match fs::File::options().read(true).write(true).open(path) {
        Ok(_) => DeviceFile::Usable,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => DeviceFile::Denied,
        Err(_) => DeviceFile::Missing,
    }
}

/// The first sysctl that forbids user namespaces to users without privileges. One that this
/// kernel doesn't have forbids nothing.
fn userns(root: &Path) -> Option<&'static str> {
    let reads = |path: &str, forbids: &str| {
        fs::read_to_string(root.join(path)).is_ok_and(|text| text.trim() == forbids)
    };
    if reads("proc/sys/user/max_user_namespaces", "0") {
        return Some("user.max_user_namespaces=10000");
    }
    if reads("proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some("kernel.unprivileged_userns_clone=1");
    }
    if reads("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some("kernel.apparmor_restrict_unprivileged_userns=0");
    }
    None
}

/// Judges a host.
#[must_use]
pub fn judge(facts: &Facts) -> DoctorReport {
    let kind = match facts.kvm {
        KvmFacts::Usable { .. } => kind(facts.vmx, facts.svm),
        KvmFacts::Missing | KvmFacts::Denied | KvmFacts::Broken(_) => HostKind::NoKvm,
    };
    let mut checks = vec![device_check(facts)];
    if let KvmFacts::Usable { features, tried } = &facts.kvm {
        checks.extend(features.iter().map(feature_check));
        checks.extend(tried.iter().map(|&(what, does)| tried_check(what, does)));
    }
    checks.extend([
        memory_check(facts),
        hugepages_check(facts),
        tun_check(facts),
    ]);
    checks.push(userns_check(facts));
    let ready = checks
        .iter()
        .all(|one| one.need != Need::Required || one.state == State::Found);
    DoctorReport {
        kind,
        summary: summary(kind, facts),
        ready,
        checks,
    }
}

fn summary(kind: HostKind, facts: &Facts) -> String {
    match kind {
        HostKind::StockIntel => "KVM on Intel's VMX".to_owned(),
        HostKind::StockAmd => "KVM on AMD's SVM".to_owned(),
        HostKind::Emulating => "a KVM without VMX and SVM, which emulates the guest's kernel; \
                                Coracle completes what it leaves undone"
            .to_owned(),
        HostKind::NoKvm if facts.virtual_machine && !facts.vmx && !facts.svm => {
            "a virtual machine without nested virtualisation and without another KVM".to_owned()
        }
        HostKind::NoKvm => "no KVM that this user can use".to_owned(),
    }
}

pub(super) fn check(name: &str, need: Need, state: State, detail: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        need,
        state,
        detail: detail.into(),
        fix: None,
    }
}

pub(super) fn mended(check: Check, fix: &str) -> Check {
    Check {
        fix: Some(fix.to_owned()),
        ..check
    }
}

pub(super) fn found(yes: bool) -> State {
    if yes { State::Found } else { State::Missing }
}

fn device_check(facts: &Facts) -> Check {
    let judged = |state, detail: &str| check("/dev/kvm", Need::Required, state, detail);
    match &facts.kvm {
        KvmFacts::Usable { .. } => judged(State::Found, "opens, KVM API 12"),
        KvmFacts::Denied => mended(
            judged(State::Missing, "this user may not open it"),
            "sudo usermod -aG kvm $USER (then log in again), or \
             sudo setfacl -m u:$USER:rw /dev/kvm",
        ),
        KvmFacts::Broken(why) => judged(State::Missing, why),
        KvmFacts::Missing if facts.vmx => mended(
            judged(State::Missing, "is not there"),
            "sudo modprobe kvm_intel",
        ),
        KvmFacts::Missing if facts.svm => mended(
            judged(State::Missing, "is not there"),
            "sudo modprobe kvm_amd",
        ),
        KvmFacts::Missing if facts.virtual_machine => judged(
            State::Missing,
            "is not there; enable nested virtualisation on the host around this machine",
        ),
        KvmFacts::Missing => judged(
            State::Missing,
            "is not there; enable virtualisation (VT-x, AMD-V) in the firmware",
        ),
    }
}

fn feature_check(feature: &KvmFeature) -> Check {
    let need = if feature.required {
        Need::Required
    } else {
        Need::Optional
    };
    check(feature.name, need, found(feature.found), feature.purpose)
}

fn tried_check(what: &str, does: bool) -> Check {
    let detail = if does {
        "works"
    } else {
        "Coracle completes it"
    };
    check(what, Need::Optional, found(does), detail)
}

fn memory_check(facts: &Facts) -> Check {
    let detail = format!(
        "{}, the most that a guest can have",
        Size(facts.memory_bytes)
    );
    check(
        "memory",
        Need::Required,
        found(facts.memory_bytes > 0),
        detail,
    )
}

fn hugepages_check(facts: &Facts) -> Check {
    let name = "hugepages";
    match facts.free_hugepages {
        0 => mended(
            check(
                name,
                Need::Optional,
                State::Missing,
                "no reserved 2 MiB page is free",
            ),
            "sudo sysctl vm.nr_hugepages=64 (128 MiB of guest memory)",
        ),
        free => check(
            name,
            Need::Optional,
            State::Found,
            format!("{free} pages of 2 MiB free"),
        ),
    }
}

fn tun_check(facts: &Facts) -> Check {
    let judged = |state, detail: &str| check("/dev/net/tun", Need::Optional, state, detail);
    match facts.tun {
        DeviceFile::Usable => judged(State::Found, "opens, for network taps"),
        DeviceFile::Missing => mended(judged(State::Missing, "is not there"), "sudo modprobe tun"),
        DeviceFile::Denied => mended(
            judged(State::Missing, "this user may not open it"),
            "sudo setfacl -m u:$USER:rw /dev/net/tun",
        ),
    }
}

fn userns_check(facts: &Facts) -> Check {
    let judged = |state, detail: &str| check("user namespaces", Need::Optional, state, detail);
    match facts.userns_forbidden_by {
        None => judged(State::Found, "allowed without privileges"),
        Some(mend) => mended(
            judged(State::Missing, "forbidden without privileges"),
            &format!("sudo sysctl {mend}"),
        ),
    }
}
