//! Machines that are described and started through their API: `coracle vmm`.

use std::path::PathBuf;

use anyhow::Result;
use api::client::{Answer, Client};
use api::http::Method;
use boot_tests::{client, code, judge};
use harness::netns::Namespace;
use harness::vm::SHORTLY;
use harness::{Machine, TestVm, guests, skip};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A monitor that waits for its machine to be described.
struct Waiting {
    machine: Machine,
    client: Client,
    folder: PathBuf,
}

impl Waiting {
    fn new(vm: TestVm) -> Result<Waiting> {
        let (socket, folder) = (vm.socket(), vm.folder().to_owned());
        let machine = vm.boot()?;
        let client = client(&socket)?;
        Ok(Waiting {
            machine,
            client,
            folder,
        })
    }

    fn put(&mut self, path: &str, body: &Value) -> Result<Answer> {
        let body = body.to_string();
        let body = Some(body.as_bytes());
        Ok(self.client.request(Method::Put, path, body)?)
    }

    /// Describes a machine of 32 MiB with `image` as its kernel.
    fn describe(&mut self, image: &[u8]) -> Result<()> {
        let kernel = self.folder.join("kernel");
        std::fs::write(&kernel, image)?;
        for (path, body) in [
            (
                "/machine-config",
                json!({"vcpu_count": 1, "mem_size_mib": 32}),
            ),
            ("/boot-source", json!({"kernel_image_path": kernel})),
        ] {
            let answer = self.put(path, &body)?;
            anyhow::ensure!(answer.status == 204, "{path}: {answer:?}");
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Answer> {
        self.put("/actions", &json!({"action_type": "InstanceStart"}))
    }

    fn state(&mut self) -> Result<Value> {
        Ok(self.client.get("/")?.json()["state"].take())
    }
}

#[test]
fn a_machine_is_described_and_started_through_its_api() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::served().unwrap().args(&["--id", "vm-1"]);
    let disk = vm.file("disk", &[0; 4096]).unwrap();
    let mut waiting = Waiting::new(vm).unwrap();
    let instance = waiting.client.get("/").unwrap().json();
    assert_eq!(instance["id"], "vm-1");
    assert_eq!(instance["state"], "Not started");
    waiting.describe(&guests::echo()).unwrap();
    let drive = json!({"drive_id": "d", "path_on_host": disk, "is_root_device": false});
    assert_eq!(waiting.put("/drives/d", &drive).unwrap().status, 204);
    let described = waiting.client.get("/vm/config").unwrap().json();
    assert_eq!(waiting.start().unwrap().status, 204);
    assert_eq!(waiting.state().unwrap(), "Running");
    assert_eq!(waiting.client.get("/vm/config").unwrap().json(), described);
    assert_eq!(waiting.start().unwrap().status, 400);
    let patch = json!({"drive_id": "d", "path_on_host": disk});
    assert_eq!(
        waiting.client.patch("/drives/d", &patch).unwrap().status,
        204
    );
    waiting.machine.send("q").unwrap();
    let exit = waiting.machine.exit(SHORTLY).unwrap();
    assert_eq!(exit.code, Some(code::RESET), "{exit:?}");
}

#[test]
fn a_start_that_fails_is_explained_and_can_be_tried_again() {
    if skip::without_kvm() {
        return;
    }
    let mut waiting = Waiting::new(TestVm::served().unwrap()).unwrap();
    waiting.describe(b"no kernel").unwrap();
    for _ in 0..2 {
        let refused = waiting.start().unwrap();
        assert_eq!(refused.status, 400, "{refused:?}");
        let message = refused.json()["fault_message"].to_string();
        assert!(message.contains("kernel"), "{message}");
        assert_eq!(waiting.state().unwrap(), "Not started");
    }
    waiting.describe(&guests::hello_reset()).unwrap();
    assert_eq!(waiting.start().unwrap().status, 204);
    let exit = waiting.machine.exit(SHORTLY).unwrap();
    assert_eq!(exit.code, Some(code::RESET), "{exit:?}");
    assert!(exit.stdout.ends_with(guests::HELLO.as_bytes()), "{exit:?}");
}

#[test]
fn a_signal_ends_a_monitor_that_waits() {
    let waiting = Waiting::new(TestVm::served().unwrap()).unwrap();
    waiting.machine.signal(Signal::TERM).unwrap();
    let socket = waiting.folder.join("api.sock");
    let exit = waiting.machine.exit(SHORTLY).unwrap();
    assert_eq!(exit.code, Some(code::POWERED_OFF), "{exit:?}");
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_cannot_be_made_ends_it_at_once() {
    let vm = TestVm::served().unwrap();
    std::fs::write(vm.socket(), "x").unwrap();
    let exit = vm.run().unwrap();
    judge(&exit, code::INPUT, &["is a file, not a socket"]).unwrap();
}

#[test]
fn a_file_describes_and_starts_a_machine() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::new().unwrap();
    let kernel = vm.file("kernel", &guests::hello_reset()).unwrap();
    let config = json!({
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 32},
        "boot-source": {"kernel_image_path": kernel},
        "drives": [], "balloon": null,
    });
    let file = vm.file("config", config.to_string().as_bytes()).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(harness::coracle().unwrap());
        let output = command
            .arg("vmm")
            .args(arguments)
            .arg("--config-file")
            .arg(&file);
        output.output().unwrap()
    };
    let output = run(&["--no-api"]);
    assert_eq!(output.status.code(), Some(code::RESET), "{output:?}");
    assert!(
        output.stdout.ends_with(guests::HELLO.as_bytes()),
        "{output:?}"
    );
    let output = run(&["--no-api", "--compat", "firecracker"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // The file is judged as requests are.
    std::fs::write(&file, r#"{"boot-source": {"kernel_image_path": "/none"}}"#).unwrap();
    let output = run(&["--no-api"]);
    assert_eq!(output.status.code(), Some(code::INPUT), "{output:?}");
    let output = run(&["--no-api", "--compat", "firecracker"]);
    assert_eq!(output.status.code(), Some(152), "{output:?}");
    let output = run(&["--no-api", "--compat", "firecracker", "--nope"]);
    assert_eq!(output.status.code(), Some(153), "{output:?}");
}

#[test]
fn under_the_name_of_firecracker_it_ends_as_firecracker_does() {
    if skip::without_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("firecracker");
    std::os::unix::fs::symlink(harness::coracle().unwrap(), &program).unwrap();
    let version = std::process::Command::new(&program)
        .arg("--version")
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let spoken = version.strip_prefix("Firecracker v").unwrap().trim_end();
    let vm = TestVm::served().unwrap().args(&["--compat", "firecracker"]);
    let mut waiting = Waiting::new(vm).unwrap();
    let told = waiting.client.get("/version").unwrap().json();
    assert_eq!(told["firecracker_version"], spoken);
    waiting.describe(&guests::halt()).unwrap();
    assert_eq!(waiting.start().unwrap().status, 204);
    // This guest does not listen to its power button; nobody waits for it.
    waiting.machine.signal(Signal::TERM).unwrap();
    let exit = waiting.machine.exit(SHORTLY).unwrap();
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[test]
fn counters_and_the_log_go_where_clients_want_them() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::served().unwrap().args(&["--id", "vm-1"]);
    let disk = vm.file("disk", &[0; 4096]).unwrap();
    let mut waiting = Waiting::new(vm).unwrap();
    waiting.describe(&guests::halt()).unwrap();
    // The machine's own folder goes with it.
    let kept = tempfile::tempdir().unwrap();
    let (metrics, log) = (kept.path().join("metrics"), kept.path().join("log"));
    let drive = json!({"drive_id": "d", "path_on_host": disk, "is_root_device": false});
    for (path, body) in [
        ("/drives/d", drive),
        ("/metrics", json!({"metrics_path": metrics})),
        (
            "/logger",
            json!({"log_path": log, "level": "Debug", "show_level": true}),
        ),
    ] {
        assert_eq!(waiting.put(path, &body).unwrap().status, 204, "{path}");
    }
    let secret = json!({"key": "secret"});
    assert_eq!(waiting.put("/mmds", &secret).unwrap().status, 204);
    assert_eq!(waiting.put("/vsock", &json!([])).unwrap().status, 400);
    assert_eq!(waiting.start().unwrap().status, 204);
    let flush = json!({"action_type": "FlushMetrics"});
    assert_eq!(waiting.put("/actions", &flush).unwrap().status, 204);
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&metrics).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    };
    let before = lines();
    assert!(!before.is_empty());
    for line in &before {
        assert_eq!(line["block_d"]["read_count"], 0, "{line}");
        assert_eq!(line["block"]["write_bytes"], 0, "{line}");
    }
    // The start, what was asked for, and the end.
    let kill = json!({"action": "kill"});
    let killed = waiting.put("/coracle/v1/actions", &kill).unwrap();
    assert_eq!(killed.status, 204);
    waiting.machine.exit(SHORTLY).unwrap();
    assert_eq!(lines().len(), 3);
    let log = std::fs::read_to_string(&log).unwrap();
    for words in [
        "[vm-1:main:INFO] The request was executed successfully. Status code: 204 No Content.",
        "The API server received a Put request on \"/mmds\".",
        "The API server received a Put request on \"/vsock\" with body \"[]\".",
        "Received Error. Status code: 400 Bad Request. Message: ",
    ] {
        assert!(log.contains(words), "no {words:?}: {log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

/// With the taps of a namespace of its own, which takes root.
#[test]
fn a_tap_is_described_and_its_limits_change() {
    if skip::without_kvm() {
        return;
    }
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    space.ip("tuntap add dev vm0 mode tap").unwrap();
    space.enter(|| on_a_tap().unwrap()).unwrap();
}

fn on_a_tap() -> Result<()> {
    let mut waiting = Waiting::new(TestVm::served()?)?;
    waiting.describe(&guests::halt())?;
    let interface = json!({"iface_id": "n1", "host_dev_name": "vm0",
        "guest_mac": "06:00:00:00:00:01"});
    let at = "/network-interfaces/n1";
    let mmds = json!({"network_interfaces": ["n1"], "version": "V2"});
    assert_eq!(waiting.put("/mmds/config", &mmds)?.status, 400, "too early");
    assert_eq!(waiting.put(at, &interface)?.status, 204);
    assert_eq!(
        waiting.client.request(Method::Delete, at, None)?.status,
        204
    );
    assert_eq!(waiting.put(at, &interface)?.status, 204);
    assert_eq!(waiting.put("/mmds/config", &mmds)?.status, 204);
    let patch = json!({"iface_id": "n1", "rx_rate_limiter": {"ops":
        {"size": 10, "refill_time": 100}}});
    assert_eq!(waiting.client.patch(at, &patch)?.status, 400, "too early");
    assert_eq!(waiting.start()?.status, 204);
    assert_eq!(waiting.client.patch(at, &patch)?.status, 204);
    assert_eq!(waiting.put(at, &interface)?.status, 400, "too late");
    let told = waiting.client.get("/vm/config")?.json()["network-interfaces"][0].take();
    assert_eq!(told["host_dev_name"], "vm0");
    assert_eq!(told["guest_mac"], "06:00:00:00:00:01");
    assert_eq!(told["rx_rate_limiter"]["ops"]["size"], 10);
    // The tap is the machine's: nobody else can have it.
    let mut other = Waiting::new(TestVm::served()?)?;
    other.describe(&guests::halt())?;
    assert_eq!(other.put(at, &interface)?.status, 204);
    let refused = other.start()?;
    assert_eq!(refused.status, 400);
    let message = refused.json()["fault_message"].to_string();
    assert!(message.contains("vm0"), "{message}");
    Ok(())
}

#[test]
fn metadata_is_given_with_the_start_and_has_a_limit() {
    let vm = TestVm::served().unwrap();
    let file = vm.file("meta.json", br#"{"a": 1}"#).unwrap();
    let vm = vm.arg("--metadata").arg(file);
    let mut waiting = Waiting::new(vm.args(&["--mmds-size-limit", "20"])).unwrap();
    let told = waiting.client.get("/mmds").unwrap().json();
    assert_eq!(told, json!({"a": 1}));
    let long = json!({"a": "a".repeat(20)});
    assert_eq!(waiting.put("/mmds", &long).unwrap().status, 413);
    assert_eq!(waiting.put("/mmds", &json!({"b": 2})).unwrap().status, 204);
    let vm = TestVm::served().unwrap();
    let file = vm.file("meta.json", b"[1, 2, 3, 4]").unwrap();
    let vm = vm.arg("--metadata").arg(file);
    let exit = vm.args(&["--mmds-size-limit", "5"]).run().unwrap();
    judge(&exit, code::INPUT, &["5 bytes"]).unwrap();
}
