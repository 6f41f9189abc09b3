//! `coracle doctor`.

use api::doctor::{Check, DoctorReport, Need, State};
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::{launch, print};

/// Tell what kind of host this is, and what mends what it lacks
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Flags {
    /// Examines this host. The exit code is 0 where `coracle boot` works.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let report = launch::examine();
        let text = match self.json {
            true => print::json(&report)?,
            false => human(&report),
        };
        print::out(&text)?;
        Ok(if report.ready { Exit::Done } else { Exit::Host })
    }
}

fn human(report: &DoctorReport) -> String {
    let verdict = if report.ready {
        "works"
    } else {
        "doesn't work"
    };
    let checks = table(&report.checks);
    format!(
        "This host: {}.\n`coracle boot` {verdict} here.\n\n{checks}",
        report.summary
    )
}

/// The checks, one line each and one for what mends it.
pub(super) fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max();
    let width = width.unwrap_or(0);
    checks.iter().map(|check| line(check, width)).collect()
}

fn line(check: &Check, width: usize) -> String {
    let mark = match (check.state, check.need) {
        (State::Found, _) => "found   ",
        (State::Missing, Need::Required) => "MISSING ",
        (State::Missing, Need::Optional) => "missing ",
    };
    let mut text = format!("  {mark} {:width$}  {}\n", check.name, check.detail);
    if let Some(fix) = &check.fix {
        text.push_str(&format!("  {:8} {:width$}  mend it: {fix}\n", "", ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use api::doctor::HostKind;

    use super::*;

    #[test]
    fn a_report_for_people() {
        let check = |name: &str, need, state, fix: Option<&str>| Check {
            name: name.into(),
            need,
            state,
            detail: "detail".into(),
            fix: fix.map(Into::into),
        };
        let report = DoctorReport {
            kind: HostKind::NoKvm,
            summary: "no KVM".into(),
            ready: false,
            checks: vec![
                check(
                    "/dev/kvm",
                    Need::Required,
                    State::Missing,
                    Some("modprobe kvm_intel"),
                ),
                check("memory", Need::Required, State::Found, None),
                check("tun", Need::Optional, State::Missing, None),
            ],
        };
        assert_eq!(
            human(&report),
            "This host: no KVM.\n\
             `coracle boot` doesn't work here.\n\n\
             \x20 MISSING  /dev/kvm  detail\n\
             \x20                    mend it: modprobe kvm_intel\n\
             \x20 found    memory    detail\n\
             \x20 missing  tun       detail\n"
        );
    }
}
