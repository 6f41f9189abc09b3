//! Machines that are saved in one monitor and go on in another.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use api::client::{Answer, Client};
use api::http::Method;
use boot_tests::{client, code, shell};
use harness::pty::OnTerminal;
use harness::vm::SHORTLY;
use harness::{Machine, TestVm, guests, skip};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A monitor with its API.
struct Monitor {
    machine: Machine,
    client: Client,
}

impl Monitor {
    /// One that waits to be told of a machine.
    fn new() -> Result<Monitor> {
        let vm = TestVm::served()?;
        let socket = vm.socket();
        let machine = vm.boot()?;
        let client = client(&socket)?;
        Ok(Monitor { machine, client })
    }

    /// One whose machine runs `guests::echo()`, has a drive at `disk`, and has greeted.
    fn running(folder: &Path, disk: &Path) -> Result<Monitor> {
        let mut monitor = Monitor::new()?;
        let kernel = folder.join("kernel");
        std::fs::write(&kernel, guests::echo())?;
        for (path, body) in [
            (
                "/machine-config",
                json!({"vcpu_count": 2, "mem_size_mib": 32}),
            ),
            ("/boot-source", json!({"kernel_image_path": kernel})),
            (
                "/drives/d",
                json!({"drive_id": "d", "path_on_host": disk, "is_root_device": false}),
            ),
            ("/entropy", json!({})),
            ("/actions", json!({"action_type": "InstanceStart"})),
        ] {
            let answer = monitor.put(path, &body)?;
            ensure!(answer.status == 204, "{path}: {answer:?}");
        }
        monitor.machine.expect(guests::HELLO, SHORTLY)?;
        Ok(monitor)
    }

    fn put(&mut self, path: &str, body: &Value) -> Result<Answer> {
        put(&mut self.client, path, body)
    }

    fn vm(&mut self, state: &str) -> Result<()> {
        let answer = self.client.patch("/vm", &json!({"state": state}))?;
        ensure!(answer.status == 204, "{answer:?}");
        Ok(())
    }

    fn state(&mut self) -> Result<String> {
        let state = self.client.get("/")?.json()["state"].take();
        Ok(state.as_str().unwrap_or_default().to_owned())
    }

    /// What it tells of its machine, but for the words of `cache_type`, which are not saved.
    fn described(&mut self) -> Result<Value> {
        let mut config = self.client.get("/vm/config")?.json();
        let drive = config["drives"][0].as_object_mut();
        drive.and_then(|drive| drive.remove("cache_type"));
        Ok(config)
    }

    fn save(&mut self, files: &Files) -> Result<Answer> {
        save(&mut self.client, files)
    }

    fn load(&mut self, files: &Files, resume: bool) -> Result<Answer> {
        load(&mut self.client, files, resume)
    }

    /// The guest answers, and is ended.
    fn answers(mut self) -> Result<()> {
        self.machine.send("ping")?;
        self.machine.expect("ping", SHORTLY)?;
        self.machine.send("q")?;
        let exit = self.machine.exit(SHORTLY)?;
        ensure!(exit.code == Some(code::RESET), "{exit:?}");
        Ok(())
    }
}

fn put(client: &mut Client, path: &str, body: &Value) -> Result<Answer> {
    let body = body.to_string();
    Ok(client.request(Method::Put, path, Some(body.as_bytes()))?)
}

fn save(client: &mut Client, files: &Files) -> Result<Answer> {
    let body = json!({"snapshot_path": files.state, "mem_file_path": files.memory});
    put(client, "/snapshot/create", &body)
}

fn load(client: &mut Client, files: &Files, resume: bool) -> Result<Answer> {
    let backend = json!({"backend_type": "File", "backend_path": files.memory});
    let body = json!({
        "snapshot_path": files.state, "mem_backend": backend, "resume_vm": resume,
    });
    put(client, "/snapshot/load", &body)
}

/// The files of a snapshot, and the disk of its machine.
struct Files {
    state: PathBuf,
    memory: PathBuf,
    disk: PathBuf,
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Result<Files> {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk");
        std::fs::write(&disk, [7; 4096])?;
        Ok(Files {
            state: folder.path().join("state"),
            memory: folder.path().join("memory"),
            disk,
            folder,
        })
    }

    /// Those of a machine that was saved and is gone.
    fn saved() -> Result<Files> {
        let files = Files::new()?;
        let mut monitor = Monitor::running(files.folder.path(), &files.disk)?;
        monitor.vm("Paused")?;
        let answer = monitor.save(&files)?;
        ensure!(answer.status == 204, "{answer:?}");
        monitor.machine.signal(Signal::KILL)?;
        monitor.machine.exit(SHORTLY)?;
        Ok(files)
    }

    /// The names in the folder.
    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

#[test]
fn a_machine_goes_on_in_another_monitor() {
    if skip::without_kvm() {
        return;
    }
    let files = Files::new().unwrap();
    let mut first = Monitor::running(files.folder.path(), &files.disk).unwrap();
    let early = first.save(&files).unwrap();
    assert_eq!(early.status, 400, "it runs: {early:?}");
    let described = first.described().unwrap();
    first.vm("Paused").unwrap();
    assert_eq!(first.save(&files).unwrap().status, 204);
    assert_eq!(files.names(), ["disk", "kernel", "memory", "state"]);
    // The one that was saved goes on as well. It has not written its disk.
    first.vm("Resumed").unwrap();
    first.answers().unwrap();

    // What it was started with is not needed any more.
    std::fs::remove_file(files.folder.path().join("kernel")).unwrap();
    let mut second = Monitor::new().unwrap();
    assert_eq!(second.load(&files, false).unwrap().status, 204);
    assert_eq!(second.state().unwrap(), "Paused");
    assert_eq!(second.described().unwrap(), described);
    second.vm("Resumed").unwrap();
    assert_eq!(second.state().unwrap(), "Running");
    second.answers().unwrap();
}

/// Linux with two vCPUs, which has a program running and a word in its shell.
#[test]
fn linux_goes_on_in_another_monitor() {
    if skip::without_kvm() {
        return;
    }
    let files = Files::new().unwrap();
    let vm = TestVm::new().unwrap();
    let socket = vm.socket();
    let vm = vm.args(&["--cpus", "2", "--api-sock"]).arg(&socket);
    let mut first = shell::start(&vm.command().unwrap(), 97, 31).unwrap();
    let say = |terminal: &mut OnTerminal, command: &str, wanted: &str| {
        shell::run(terminal, command, wanted).unwrap();
    };
    say(
        &mut first,
        "kept=$((6 * 7)); echo 1 > /tmp/file; echo $((kept + 1))",
        "43",
    );
    say(
        &mut first,
        "(sleep 1; echo awake > /tmp/sleeper) & echo on its way",
        "way",
    );
    let mut client = client(&socket).unwrap();
    let paused = client.patch("/vm", &json!({"state": "Paused"})).unwrap();
    assert_eq!(paused.status, 204, "{paused:?}");
    assert_eq!(save(&mut client, &files).unwrap().status, 204);
    drop(first);

    let vm = TestVm::served().unwrap();
    let socket = vm.socket();
    let mut second = OnTerminal::start(&vm.command().unwrap(), 97, 31).unwrap();
    let mut client = boot_tests::client(&socket).unwrap();
    assert_eq!(load(&mut client, &files, true).unwrap().status, 204);
    say(
        &mut second,
        "echo kept=$kept file=$(cat /tmp/file)",
        "kept=42 file=1",
    );
    // Its timers run, on both CPUs.
    say(&mut second, "wait; cat /tmp/sleeper", "awake");
    say(
        &mut second,
        "for c in 1 2; do taskset $c echo cpu $c; done",
        "cpu 2",
    );
    second.type_keys(b"poweroff\r").unwrap();
    let end = second.exit(shell::COMMAND).unwrap();
    assert_eq!(end.code(), Some(code::POWERED_OFF));
}

#[test]
fn a_restored_machine_is_saved_over_the_files_that_it_came_from() {
    if skip::without_kvm() {
        return;
    }
    let files = Files::saved().unwrap();
    for _ in 0..3 {
        let mut monitor = Monitor::new().unwrap();
        assert_eq!(monitor.load(&files, true).unwrap().status, 204);
        monitor.machine.send("ping").unwrap();
        monitor.machine.expect("ping", SHORTLY).unwrap();
        monitor.vm("Paused").unwrap();
        assert_eq!(monitor.save(&files).unwrap().status, 204);
        monitor.machine.signal(Signal::KILL).unwrap();
        monitor.machine.exit(SHORTLY).unwrap();
    }
    let mut last = Monitor::new().unwrap();
    assert_eq!(last.load(&files, true).unwrap().status, 204);
    last.answers().unwrap();
}

#[test]
fn several_machines_come_of_one_snapshot() {
    if skip::without_kvm() {
        return;
    }
    // Each has the disk for itself, or none has.
    let files = Files::saved().unwrap();
    let mut first = Monitor::new().unwrap();
    assert_eq!(first.load(&files, true).unwrap().status, 204);
    let mut second = Monitor::new().unwrap();
    let refused = second.load(&files, true).unwrap();
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.json()["fault_message"].to_string().contains("disk"));
    first.answers().unwrap();
    assert_eq!(second.load(&files, true).unwrap().status, 204);
    second.answers().unwrap();
}

#[test]
fn what_cannot_be_restored_is_refused_and_leaves_the_monitor_waiting() {
    if skip::without_kvm() {
        return;
    }
    let files = Files::saved().unwrap();
    let state = std::fs::read(&files.state).unwrap();
    let mut monitor = Monitor::new().unwrap();
    let mut refused = |what: &str, words: &str| {
        let answer = monitor.load(&files, true).unwrap();
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        let message = answer.json()["fault_message"].to_string();
        assert!(message.contains(words), "{what}: {message}");
        assert_eq!(monitor.state().unwrap(), "Not started", "{what}");
    };
    std::fs::write(&files.state, &state[..state.len() - 1]).unwrap();
    refused("a state cut", "damaged");
    let mut flipped = state.clone();
    flipped[state.len() / 2] ^= 4;
    std::fs::write(&files.state, &flipped).unwrap();
    refused("a bit flipped", "checksum");
    std::fs::write(&files.state, b"").unwrap();
    refused("nothing", "no snapshot");
    std::fs::remove_file(&files.state).unwrap();
    refused("no file", "can't be read");
    std::fs::write(&files.state, &state).unwrap();

    let memory = std::fs::read(&files.memory).unwrap();
    std::fs::write(&files.memory, &memory[..memory.len() - 4096]).unwrap();
    refused("memory cut", "bytes instead of");
    let mut other = memory.clone();
    *other.last_chunk_mut::<4096>().unwrap().last_mut().unwrap() ^= 1;
    std::fs::write(&files.memory, &other).unwrap();
    refused("another's memory", "belongs to another");
    std::fs::write(&files.memory, &memory).unwrap();

    let disk = std::fs::read(&files.disk).unwrap();
    let written = std::fs::metadata(&files.disk).unwrap().modified().unwrap();
    std::fs::write(&files.disk, [8; 4096]).unwrap();
    refused("a disk that was written", "disk");
    std::fs::write(&files.disk, disk).unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(&files.disk)
        .unwrap();
    file.set_modified(written).unwrap();
    drop(file);

    assert_eq!(monitor.load(&files, true).unwrap().status, 204);
    monitor.answers().unwrap();
}

/// The state with another kind in the bytes of a device, under checksums that are right.
fn with_a_device_changed(state: &[u8]) -> Vec<u8> {
    let mut state = state.to_vec();
    let number = |state: &[u8], at: usize| {
        usize::try_from(u64::from_le_bytes(*state[at..].first_chunk().unwrap())).unwrap()
    };
    let count = u32::from_le_bytes(*state[12..].first_chunk().unwrap());
    let entries = (0..usize::try_from(count).unwrap()).map(|place| 64 + place * 80);
    let table = 64..64 + entries.len() * 80;
    // The block device is behind others, which are restored before it.
    let is_disk = |at: &usize| state[*at..].starts_with(b"device\0") && state[at + 16] == b'd';
    let entry = entries.clone().find(is_disk).expect("a disk");
    let (offset, bytes) = (number(&state, entry + 56), number(&state, entry + 64));
    // A list's length and the text of the kind, whose length is before it too.
    state[offset + 8] ^= 1;
    let sum = crc32fast::hash(&state[offset..offset + bytes]);
    state[entry + 52..entry + 56].copy_from_slice(&sum.to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&state[..60]);
    sum.update(&state[table]);
    state[60..64].copy_from_slice(&sum.finalize().to_le_bytes());
    state
}

#[test]
fn a_restore_that_fails_half_way_leaves_nothing() {
    if skip::without_kvm() {
        return;
    }
    let files = Files::saved().unwrap();
    let state = std::fs::read(&files.state).unwrap();
    std::fs::write(&files.state, with_a_device_changed(&state)).unwrap();
    let mut monitor = Monitor::new().unwrap();
    for _ in 0..3 {
        let refused = monitor.load(&files, true).unwrap();
        assert_eq!(refused.status, 400, "{refused:?}");
        let message = refused.json()["fault_message"].to_string();
        assert!(message.contains("cannot be restored"), "{message}");
        assert_eq!(monitor.state().unwrap(), "Not started");
    }
    std::fs::write(&files.state, &state).unwrap();
    assert_eq!(monitor.load(&files, true).unwrap().status, 204);
    monitor.answers().unwrap();
}

#[test]
fn a_monitor_that_was_told_of_a_machine_takes_no_other() {
    if skip::without_kvm() {
        return;
    }
    let files = Files::saved().unwrap();
    let mut monitor = Monitor::new().unwrap();
    let size = json!({"vcpu_count": 1, "mem_size_mib": 64});
    assert_eq!(monitor.put("/machine-config", &size).unwrap().status, 204);
    let refused = monitor.load(&files, true).unwrap();
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[test]
fn a_snapshot_that_cannot_be_written_changes_nothing() {
    if skip::without_kvm() {
        return;
    }
    let files = Files::saved().unwrap();
    let mut monitor = Monitor::new().unwrap();
    assert_eq!(monitor.load(&files, false).unwrap().status, 204);
    let before = files.names();
    let nowhere = Files {
        state: files.folder.path().join("no/state"),
        ..Files::new().unwrap()
    };
    let refused = monitor.save(&nowhere).unwrap();
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(files.names(), before);
    assert_eq!(nowhere.names(), ["disk"]);
    assert_eq!(monitor.state().unwrap(), "Paused");
    monitor.vm("Resumed").unwrap();
    monitor.answers().unwrap();
}
