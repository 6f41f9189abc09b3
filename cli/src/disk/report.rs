//! What `coracle disk info` and `verify` print.

use std::path::Path;

use devices::disk::overlay::{Info, Verified};
use serde::Serialize;

/// A delta, for people and programs.
#[derive(Debug, Serialize)]
pub(super) struct InfoReport {
    path: String,
    format: &'static str,
    /// The capacity of the disk in bytes.
    bytes: u64,
    cluster_bytes: u32,
    clusters: u64,
    own_clusters: u64,
    allocated_bytes: u64,
    in_use: bool,
    commit_interrupted: bool,
    id: String,
    base: BaseReport,
}

#[derive(Debug, Serialize)]
struct BaseReport {
    path: String,
    format: &'static str,
    bytes: u64,
}

impl InfoReport {
    pub(super) fn new(path: &Path, info: &Info) -> Self {
        let (header, base) = (&info.header, &info.header.base);
        Self {
            path: path.display().to_string(),
            format: "cow",
            bytes: header.capacity,
            cluster_bytes: header.cluster_bytes,
            clusters: info.clusters,
            own_clusters: info.own_clusters,
            allocated_bytes: info.allocated_bytes,
            in_use: info.in_use,
            commit_interrupted: header.committing,
            id: header.id.iter().map(|byte| format!("{byte:02x}")).collect(),
            base: BaseReport {
                path: base.path.display().to_string(),
                format: base.format.name(),
                bytes: base.bytes,
            },
        }
    }

    pub(super) fn human(&self) -> String {
        let mut lines = vec![
            format!("disk       {}", plain(&self.path)),
            format!("capacity   {} bytes", self.bytes),
            format!(
                "own        {} of {} clusters of {} bytes",
                self.own_clusters, self.clusters, self.cluster_bytes
            ),
            format!("on host    {} bytes", self.allocated_bytes),
            format!(
                "base       {} ({}, {} bytes)",
                plain(&self.base.path),
                self.base.format,
                self.base.bytes
            ),
        ];
        if self.in_use {
            lines.push("in use     yes; changes since the last flush are not counted".to_owned());
        }
        if self.commit_interrupted {
            lines.push("commit     interrupted; repeat it before anything else".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

/// A verification, for people and programs.
#[derive(Debug, Serialize)]
pub(super) struct VerifyReport {
    sound: bool,
    deltas: u64,
    checksums: u64,
    problems: Vec<ProblemReport>,
}

#[derive(Debug, Serialize)]
struct ProblemReport {
    path: String,
    problem: String,
    harmless: bool,
}

impl VerifyReport {
    pub(super) fn new(verified: &Verified) -> Self {
        let problems = verified.problems.iter().map(|problem| ProblemReport {
            path: problem.path.display().to_string(),
            problem: problem.what.clone(),
            harmless: problem.harmless,
        });
        Self {
            sound: verified.is_sound(),
            deltas: verified.deltas,
            checksums: verified.checksums,
            problems: problems.collect(),
        }
    }

    pub(super) fn human(&self, path: &Path) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            let weight = if problem.harmless {
                "harmless"
            } else {
                "DAMAGE"
            };
            let (path, problem) = (plain(&problem.path), plain(&problem.problem));
            text.push_str(&format!("{weight}: {path}: {problem}\n"));
        }
        let result = if self.sound { "sound" } else { "not sound" };
        text.push_str(&format!(
            "{}: {result}; {} checksums in {} deltas\n",
            plain(&path.display().to_string()),
            self.checksums,
            self.deltas
        ));
        text
    }
}

/// Paths can hold anything; a line is one line and moves no cursor.
fn plain(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}
