//! What `coracle doctor` found out about a host.

use serde::Serialize;

/// A host, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// What kind of host this is.
    pub kind: HostKind,
    /// The kind in a sentence.
    pub summary: String,
    /// Whether `coracle boot` works here.
    pub ready: bool,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
}

/// A host's networks, judged: what `coracle net doctor` found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetReport {
    /// Whether what was asked about works.
    pub ready: bool,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
}

/// What kind of host this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKind {
    /// KVM on Intel's VMX.
    StockIntel,
    /// KVM on AMD's SVM.
    StockAmd,
    /// A KVM without VMX and SVM, which emulates the guest's kernel.
    Emulating,
    /// No KVM that can be used.
    NoKvm,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is.
    pub name: String,
    /// How much depends on it.
    pub need: Need,
    /// Whether it is there.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// The command that mends it, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How much depends on a [`Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// No machine starts without it.
    Required,
    /// One feature needs it.
    Optional,
}

/// Whether a [`Check`] found what it looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is there.
    Found,
    /// It is not.
    Missing,
}
