//! Machines found by their names: `coracle machine` with all its verbs, against machines that run,
//! stand still, are killed, or never were.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use boot_tests::{code, refused};
use harness::vm::SHORTLY;
use harness::{Machine, TestVm, guests, skip};
use rustix::process::Signal;
use serde_json::Value;

/// A machine that is called `web`, and where it is registered.
struct Web {
    machine: Machine,
    runtime: PathBuf,
}

/// How a command ended, and what it said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    fn done(&self) -> bool {
        self.code == Some(0) && self.stderr.is_empty()
    }
}

fn command(runtime: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(harness::coracle().unwrap());
    command.arg("machine").args(arguments);
    command.env("XDG_RUNTIME_DIR", runtime);
    command
}

fn say(runtime: &Path, arguments: &[&str]) -> Said {
    let output = command(runtime, arguments).output().unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Web {
    fn boot(image: &[u8]) -> Result<Web> {
        let vm = TestVm::of(image)?;
        let runtime = vm.folder().to_owned();
        let disk = vm.file("disk", &vec![0; 1 << 20])?;
        let vm = vm.arg("--disk").arg(disk).args(&["--name", "web"]);
        let machine = vm.boot()?;
        let web = Web { machine, runtime };
        let late = Instant::now() + SHORTLY;
        while web.say(&["ls", "--quiet"]).stdout != "web\n" {
            ensure!(Instant::now() < late, "it is not listed");
        }
        Ok(web)
    }

    fn say(&self, arguments: &[&str]) -> Said {
        say(&self.runtime, arguments)
    }

    fn state(&self) -> String {
        let list = self.say(&["ls", "--format", "json"]).json();
        list[0]["state"].as_str().unwrap().to_owned()
    }

    fn folder(&self) -> PathBuf {
        self.runtime.join("coracle/machines/web")
    }
}

#[test]
fn a_machine_is_listed_and_inspected() {
    if skip::without_kvm() {
        return;
    }
    let web = Web::boot(&guests::spin()).unwrap();
    let list = web.say(&["ls", "--format", "json"]).json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(
        (&list[0]["name"], &list[0]["vcpus"]),
        (&"web".into(), &1.into())
    );
    assert_eq!(list[0]["memory_bytes"], 32 << 20);
    assert_eq!(list[0]["state"], "running");
    let table = web.say(&["ls"]).stdout;
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("NAME"), "{table}");
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("web   running  1      32M"),
        "{table}"
    );
    let all = web.say(&["inspect", "web"]).json();
    assert_eq!(all[0]["machine"]["pid"], list[0]["pid"]);
    let devices = all[0]["devices"].as_array().unwrap();
    assert!(devices.iter().any(|device| device["name"] == "disk0"));
    let metrics = web.say(&["metrics", "web"]).stdout;
    let line = "coracle_machine_info{name=\"web\",";
    assert!(
        metrics.lines().any(|found| found.starts_with(line)),
        "{metrics}"
    );
    check_metrics(&metrics).unwrap();
}

/// Reads Prometheus' exposition format as its documentation says: comments that name a type once
/// before its samples, and samples that are a name, labels and a number.
fn check_metrics(text: &str) -> Result<()> {
    let mut types = std::collections::BTreeSet::new();
    let mut samples = 0;
    let word = |name: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(good)
    };
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context(rest.to_owned())?;
            ensure!(["gauge", "counter", "untyped"].contains(&kind), "{line}");
            ensure!(types.insert(name.to_owned()), "twice: {line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').context(line.to_owned())?;
        value.parse::<f64>().context(line.to_owned())?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        ensure!(word(name) && types.contains(name), "{line}");
        let mut rest = labels;
        while rest != "}" {
            let (label, after) = rest.split_once("=\"").context(line.to_owned())?;
            ensure!(word(label), "{line}");
            let end = after
                .char_indices()
                .scan(false, |escaped, (at, c)| {
                    let ends = c == '"' && !*escaped;
                    *escaped = c == '\\' && !*escaped;
                    Some((at, ends))
                })
                .find(|(_, ends)| *ends);
            let (at, _) = end.context(line.to_owned())?;
            rest = after[at + 1..].trim_start_matches(',');
        }
        samples += 1;
    }
    ensure!(samples > 10, "{samples} samples");
    Ok(())
}

#[test]
fn a_paused_guest_stands_still_and_its_machine_answers() {
    if skip::without_kvm() {
        return;
    }
    let mut web = Web::boot(&guests::echo()).unwrap();
    web.machine.expect(guests::HELLO, SHORTLY).unwrap();
    for _ in 0..5 {
        let paused = web.say(&["pause", "web"]);
        assert!(paused.done() && paused.stdout == "web\n", "{paused:?}");
        assert_eq!(web.state(), "paused");
        assert!(web.say(&["pause", "--all"]).done(), "once more");
        // What the guest would answer at once waits.
        let before = web.machine.stdout.text();
        web.machine.send("ping").unwrap();
        let set = web.say(&["set", "web", "drives/disk0", "limits.iops.size=100"]);
        assert!(set.done(), "{set:?}");
        let devices = web.say(&["inspect", "web"]).json();
        assert_eq!(devices[0]["machine"]["state"], "paused");
        assert_eq!(web.machine.stdout.text(), before);
        assert!(web.say(&["resume", "web"]).done());
        web.machine.expect("ping", SHORTLY).unwrap();
        assert_eq!(web.state(), "running");
    }
    web.machine.send("q").unwrap();
    let exit = web.machine.exit(SHORTLY).unwrap();
    assert_eq!(exit.code, Some(code::RESET), "{exit:?}");
}

#[test]
fn parts_are_changed_and_refusals_told() {
    if skip::without_kvm() {
        return;
    }
    let web = Web::boot(&guests::spin()).unwrap();
    assert!(web.say(&["set", "web", "drives/disk0", "size=2M"]).done());
    let disk = web.runtime.join("disk");
    assert_eq!(std::fs::metadata(disk).unwrap().len(), 2 << 20);
    for (part, field, words) in [
        ("drives/disk0", "size=1M", "a disk in use only grows"),
        ("drives/nope", "size=4M", "there is no drive nope"),
        (
            "network-interfaces/net0",
            "rx.bandwidth.size=1M",
            "no network interface",
        ),
        ("balloon", "size=64M", "virtio-balloon"),
        ("nothing", "a=1", "there is nothing at"),
        ("a b", "a=1", "no part of a machine"),
        ("balloon", "size", "is not KEY=VALUE"),
    ] {
        let said = web.say(&["set", "web", part, field]);
        assert_eq!(said.code, Some(code::INPUT), "{said:?}");
        assert!(said.stderr.contains(words), "{said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    }
}

/// What the threads of a machine's vCPUs have used of the host's CPUs.
fn vcpu_time(machine: &Machine) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", machine.process.id()))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.starts_with("vcpu-") {
            let text = std::fs::read_to_string(task.join("schedstat"))?;
            let used = text.split(' ').next().context("schedstat")?;
            nanoseconds += used.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A guest that never rests is held to its quota by what it uses, not by how long that takes: a
/// busy host can only slow it down further.
#[test]
fn a_quota_of_cpu_time_is_held() {
    if skip::without_kvm() {
        return;
    }
    let web = Web::boot(&guests::spin()).unwrap();
    let used_of = || vcpu_time(&web.machine).unwrap();
    let quota = |value: &str| {
        let said = web.say(&["set", "web", "cpu", &format!("quota={value}")]);
        assert!(said.done(), "{said:?}");
        let told = web.say(&["inspect", "web"]).json();
        assert_eq!(told[0]["machine"]["cpu_quota"].to_string(), value);
    };
    let runs = || {
        let (before, late) = (used_of(), Instant::now() + SHORTLY);
        while used_of() <= before + Duration::from_millis(20) {
            assert!(Instant::now() < late, "it does not go on");
        }
    };
    quota("10");
    let (began, before) = (Instant::now(), used_of());
    // Two periods' worth and a few ticks of the host's clock above a tenth of the time.
    let slack = Duration::from_millis(60);
    while used_of() < before + Duration::from_millis(200) {
        assert!(began.elapsed() < SHORTLY, "it does not go on");
    }
    let (used, most) = (used_of() - before, began.elapsed() / 10 + slack);
    assert!(used <= most, "{used:?} of {most:?}");
    // A debt of the quota's neither holds up a pause nor outlives it.
    assert!(web.say(&["pause", "web"]).done());
    assert_eq!(web.state(), "paused");
    quota("1");
    assert!(web.say(&["resume", "web"]).done());
    quota("null");
    runs();
    quota("400");
    runs();
    assert!(web.say(&["kill", "web"]).done());
}

#[test]
fn stop_and_kill_wait_for_the_end() {
    if skip::without_kvm() {
        return;
    }
    for paused in [false, true] {
        // A guest that does not listen to its power button.
        let web = Web::boot(&guests::spin()).unwrap();
        if paused {
            assert!(web.say(&["pause", "web"]).done());
        }
        let said = web.say(&["stop", "web", "--time", "0.2"]);
        assert!(said.done(), "{said:?}");
        assert!(!web.folder().exists(), "nothing is left");
        assert_eq!(
            web.say(&["ls", "--format", "json"]).json(),
            serde_json::json!([])
        );
        let exit = web.machine.exit(SHORTLY).unwrap();
        assert_eq!(exit.code, Some(code::KILLED), "{exit:?}");

        let web = Web::boot(&guests::spin()).unwrap();
        if paused {
            assert!(web.say(&["pause", "web"]).done());
        }
        assert!(web.say(&["kill", "--all"]).done());
        let exit = web.machine.exit(SHORTLY).unwrap();
        assert_eq!(exit.code, Some(code::KILLED), "{exit:?}");
    }
}

#[test]
fn a_monitor_that_does_not_answer_is_killed_all_the_same() {
    if skip::without_kvm() {
        return;
    }
    let web = Web::boot(&guests::spin()).unwrap();
    web.machine.signal(Signal::STOP).unwrap();
    assert_eq!(web.state(), "unreachable");
    assert!(web.say(&["kill", "web"]).done());
    let exit = web.machine.exit(SHORTLY).unwrap();
    assert_eq!(exit.signal, Some(9), "{exit:?}");
}

#[test]
fn what_a_killed_monitor_left_is_swept() {
    if skip::without_kvm() {
        return;
    }
    let mut web = Web::boot(&guests::spin()).unwrap();
    let (folder, runtime) = (web.folder(), web.runtime.clone());
    web.machine.signal(Signal::KILL).unwrap();
    assert!(web.machine.process.wait(SHORTLY).unwrap().is_some());
    assert!(
        folder.join("api.sock").exists(),
        "a killed machine leaves it"
    );
    assert_eq!(
        say(&runtime, &["ls", "--format", "json"]).json(),
        serde_json::json!([])
    );
    assert!(!folder.exists());
    drop(web);
}

#[test]
fn events_are_told_until_the_end() {
    if skip::without_kvm() {
        return;
    }
    let mut web = Web::boot(&guests::echo()).unwrap();
    web.machine.expect(guests::HELLO, SHORTLY).unwrap();
    let mut follower = command(&web.runtime, &["events", "web"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || -> Value {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    };
    assert_eq!(next()["state"], "running");
    assert!(web.say(&["pause", "web"]).done());
    assert_eq!(next()["state"], "paused");
    assert!(web.say(&["resume", "web"]).done());
    assert_eq!(next()["state"], "running");
    web.machine.send("q").unwrap();
    let last = next();
    assert_eq!(
        (&last["event"], &last["how"]),
        (&"ended".into(), &"reset".into())
    );
    assert!(lines.next().is_none(), "it ends with the machine");
    assert!(follower.wait().unwrap().success());
}

#[test]
fn names_are_judged() {
    if skip::without_kvm() {
        return;
    }
    let web = Web::boot(&guests::spin()).unwrap();
    let taken = TestVm::of(&guests::spin()).unwrap();
    let taken = taken.args(&["--name", "web"]);
    let mut taken = taken.command().unwrap();
    let output = taken.env("XDG_RUNTIME_DIR", &web.runtime).output().unwrap();
    assert_eq!(output.status.code(), Some(code::INPUT), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("runs already"), "{stderr}");
    let wrong = TestVm::of(&guests::spin()).unwrap();
    refused(wrong.args(&["--name", "a/b"]), &["no name of a machine"]).unwrap();
    for verb in [
        "pause", "resume", "stop", "kill", "inspect", "metrics", "events",
    ] {
        let said = web.say(&[verb, "nope"]);
        assert_eq!(said.code, Some(code::INPUT), "{verb}: {said:?}");
        assert!(
            said.stderr.contains("no machine is called nope"),
            "{said:?}"
        );
    }
    // One that fails holds up no other.
    let said = web.say(&["pause", "nope", "web"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(code::INPUT), "web\n")
    );
    assert_eq!(web.state(), "paused");
}

/// A machine that was given no name is found too, and one whose folder cannot be made starts.
#[test]
fn a_machine_without_a_name() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::of(&guests::echo()).unwrap();
    let runtime = vm.folder().to_owned();
    let mut machine = vm.boot().unwrap();
    machine.expect(guests::HELLO, SHORTLY).unwrap();
    let name = format!("vm-{}", machine.process.id());
    let late = Instant::now() + SHORTLY;
    while say(&runtime, &["ls", "--quiet"]).stdout != format!("{name}\n") {
        assert!(Instant::now() < late, "it is not listed");
    }
    assert!(say(&runtime, &["kill", &name]).done());
    machine.exit(SHORTLY).unwrap();

    let vm = TestVm::of(&guests::hello_reset()).unwrap();
    let file = vm.file("taken", b"").unwrap();
    let mut command = vm.command().unwrap();
    let output = command.env("XDG_RUNTIME_DIR", file).output().unwrap();
    assert_eq!(output.status.code(), Some(code::RESET), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
