//! The machine's API from outside: what it answers, what it refuses, and that no client, however
//! it behaves, holds up another one or the guest.

use anyhow::{Context, Result};
use api::client::{Answer, Client};
use api::http::Method;
use boot_tests::{code, refused};
use harness::vm::SHORTLY;
use harness::{Machine, TestVm, guests, skip};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const DISK_BYTES: u64 = 1 << 20;

/// A machine that has said hello, with a disk that is named and one that is not.
struct Served {
    machine: Machine,
    socket: PathBuf,
    disk: PathBuf,
}

impl Served {
    fn boot(image: &[u8]) -> Result<Served> {
        let vm = TestVm::of(image)?;
        let socket = vm.folder().join("api.sock");
        let disk = vm.file("disk", &vec![0; 1 << 20])?;
        let other = vm.file("other", &vec![0; 1 << 20])?;
        let named = format!("{},id=data", disk.display());
        let vm = vm.arg("--disk").arg(named).arg("--disk").arg(other);
        let mut machine = vm.arg("--api-sock").arg(&socket).boot()?;
        machine.expect(guests::HELLO, SHORTLY)?;
        Ok(Served {
            machine,
            socket,
            disk,
        })
    }

    fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.socket, SHORTLY)?)
    }

    fn get(&self, path: &str) -> Result<Answer> {
        Ok(self.client()?.get(path)?)
    }
}

fn field(answer: &Answer, name: &str) -> String {
    answer.json()[name].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_machine_tells_what_it_is() {
    if skip::without_kvm() {
        return;
    }
    let served = Served::boot(&guests::spin()).unwrap();
    let mut client = served.client().unwrap();
    let instance = client.get("/").unwrap();
    assert_eq!(instance.status, 200);
    assert_eq!(field(&instance, "state"), "Running");
    assert!(field(&instance, "id").starts_with("vm-"));
    let version = client.get("/version").unwrap();
    assert_eq!(
        field(&version, "firecracker_version"),
        field(&instance, "vmm_version")
    );
    let config = client.get("/machine-config").unwrap().json();
    let expected = json!({
        "vcpu_count": 1, "mem_size_mib": 32, "smt": false, "track_dirty_pages": false,
        "huge_pages": "None",
    });
    assert_eq!(config, expected);
    let all = client.get("/vm/config").unwrap().json();
    assert_eq!(all["drives"][0]["drive_id"], "data");
    assert_eq!(all["drives"][1]["drive_id"], "disk1");
    assert_eq!(all["machine-config"], expected);
    let machine = client.get("/coracle/v1/machine").unwrap().json();
    assert_eq!(machine["state"], "running");
    assert_eq!(machine["pid"], served.machine.process.id());
    let devices = client.get("/coracle/v1/devices").unwrap().json();
    let names: Vec<_> = devices
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["rng", "disk0", "disk1"]);
    assert_eq!(devices[1]["report"]["bytes"], DISK_BYTES);
}

#[test]
fn a_request_that_fails_changes_nothing() {
    if skip::without_kvm() {
        return;
    }
    let served = Served::boot(&guests::halt()).unwrap();
    let mut client = served.client().unwrap();
    let seen = |client: &mut Client| -> Result<Vec<Value>> {
        let paths = ["/vm/config", "/coracle/v1/machine", "/coracle/v1/devices"];
        let ask = |path: &&str| Ok(client.get(path)?.json());
        paths.iter().map(ask).collect()
    };
    let before = seen(&mut client).unwrap();
    let theirs: &[(&str, Value)] = &[
        (
            "/drives/data",
            json!({"drive_id": "data", "path_on_host": "/no/such/file"}),
        ),
        (
            "/drives/data",
            json!({"drive_id": "data", "path_on_host": "/"}),
        ),
        (
            "/drives/data",
            json!({"drive_id": "data", "path_on_host": "/dev/null"}),
        ),
        ("/drives/data", json!({"drive_id": "disk0"})),
        ("/drives/data", json!({"drive_id": "data", "nope": 1})),
        ("/drives/nope", json!({"drive_id": "nope"})),
        ("/balloon", json!({"amount_mib": 1})),
        (
            "/balloon/statistics",
            json!({"stats_polling_interval_s": 1}),
        ),
        ("/nope", json!({})),
    ];
    for (path, body) in theirs {
        let answer = client.patch(path, body).unwrap();
        assert_eq!(answer.status, 400, "{path} {body}");
        assert!(!field(&answer, "fault_message").is_empty(), "{path} {body}");
    }
    let ours: &[(&str, Value, u16, &str)] = &[
        (
            "drives/data",
            json!({"path": "/no/such/file"}),
            422,
            "bad-file",
        ),
        ("drives/data", json!({"path": "/proc"}), 422, "bad-file"),
        ("drives/data", json!({"path": "/dev/tty"}), 422, "bad-file"),
        (
            "drives/data",
            json!({"path": "/a", "size": "2M"}),
            422,
            "invalid-value",
        ),
        ("drives/data", json!({"size": 512}), 422, "invalid-value"),
        (
            "drives/data",
            json!({"size": (2 << 20) + 1}),
            422,
            "invalid-value",
        ),
        ("drives/data", json!({"size": "many"}), 422, "invalid-value"),
        (
            "drives/data",
            json!({"size": "16384P"}),
            422,
            "invalid-value",
        ),
        (
            "drives/data",
            json!({"size": u64::MAX}),
            422,
            "invalid-value",
        ),
        ("drives/data", json!({"sizes": 512}), 400, "bad-body"),
        (
            "drives/nope",
            json!({"rescan": true}),
            404,
            "unknown-device",
        ),
        ("balloon", json!({"size": "1M"}), 404, "unknown-device"),
        (
            "drives/data",
            json!({"limits": {"bandwidth": {"size": 0, "refill_ms": 1}}}),
            422,
            "invalid-value",
        ),
    ];
    for (path, body, status, name) in ours {
        let answer = client.patch(&format!("/coracle/v1/{path}"), body).unwrap();
        let came = (answer.status, field(&answer, "code"));
        assert_eq!(came, (*status, (*name).to_owned()), "{path} {body}");
        assert!(!field(&answer, "message").is_empty());
    }
    assert_eq!(seen(&mut client).unwrap(), before);
    assert_eq!(std::fs::metadata(&served.disk).unwrap().len(), DISK_BYTES);
}

#[test]
fn idle_and_slow_clients_hold_up_nobody() {
    if skip::without_kvm() {
        return;
    }
    let mut served = Served::boot(&guests::echo()).unwrap();
    let connect = || UnixStream::connect(&served.socket).unwrap();
    let idle: Vec<_> = (0..9).map(|_| connect()).collect();
    let mut loris = connect();
    let mut client = None;
    for byte in b"GET /version HTTP/1.1\r\nX: slow" {
        loris.write_all(&[*byte]).unwrap();
        // The eleventh is let in as soon as one of the idle ones has had its second.
        let answer = match &mut client {
            Some(client) => Client::get(client, "/").unwrap(),
            None => {
                let (made, answer) = patiently(&served.socket).unwrap();
                client = Some(made);
                answer
            }
        };
        assert_eq!(answer.status, 200);
    }
    loris.write_all(b"\r\n\r\n").unwrap();
    let mut text = [0; 12];
    loris.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"HTTP/1.1 200");
    served.machine.send("a").unwrap();
    served.machine.expect("a", SHORTLY).unwrap();
    drop(idle);
}

/// A client once there is room for it.
fn patiently(socket: &Path) -> Result<(Client, Answer)> {
    for _ in 0..100_000 {
        let mut client = Client::connect(socket, SHORTLY)?;
        match client.get("/") {
            Ok(answer) if answer.status == 200 => return Ok((client, answer)),
            // Told that there is no room, or cut off right after.
            _ => std::thread::yield_now(),
        }
    }
    anyhow::bail!("there is never room")
}

#[test]
fn malformed_requests_do_no_harm() {
    if skip::without_kvm() {
        return;
    }
    let served = Served::boot(&guests::halt()).unwrap();
    let cases: &[(&[u8], &str)] = &[
        (b"\x16\x03\x01\x02\x00\x01\x00", "400"),
        (
            b"PUT /actions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "400",
        ),
        (
            b"PUT /actions HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "413",
        ),
        (
            b"PUT /actions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "411",
        ),
        (
            b"PUT /actions HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            "400",
        ),
        (b"DELETE / HTTP/1.1\r\n\r\n", "400"),
        (b"DELETE /coracle/v1/machine HTTP/1.1\r\n\r\n", "405"),
        (
            b"PUT /coracle/v1/machine HTTP/1.1\r\nContent-Length: 1\r\n\r\n1",
            "409",
        ),
    ];
    for (bytes, status) in cases {
        let mut client = UnixStream::connect(&served.socket).unwrap();
        client.set_read_timeout(Some(SHORTLY)).unwrap();
        client.write_all(bytes).unwrap();
        let mut text = vec![0; 12];
        client.read_exact(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            format!("HTTP/1.1 {status}"),
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert_eq!(served.get("/").unwrap().status, 200);
}

#[test]
fn the_socket_goes_with_the_machine() {
    if skip::without_kvm() {
        return;
    }
    let mut served = Served::boot(&guests::echo()).unwrap();
    let mode = std::fs::metadata(&served.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    let mut client = served.client().unwrap();
    served.machine.send("q").unwrap();
    let Served {
        machine, socket, ..
    } = served;
    let kept = socket.parent().unwrap().to_owned();
    let exit = machine.exit(SHORTLY).unwrap();
    assert_eq!(exit.code, Some(code::RESET), "{exit:?}");
    assert!(
        !socket.exists(),
        "{} is left in {}",
        socket.display(),
        kept.display()
    );
    assert!(client.get("/").is_err(), "nobody answers any more");
}

#[test]
fn the_power_button_can_be_pressed() {
    if skip::without_kvm() {
        return;
    }
    let served = Served::boot(&guests::halt()).unwrap();
    let mut client = served.client().unwrap();
    let body = br#"{"action_type": "SendCtrlAltDel"}"#;
    let answer = client.request(Method::Put, "/actions", Some(body)).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (204, &b""[..]));
    // A guest that does not listen goes on.
    assert_eq!(served.get("/").unwrap().status, 200);
}

#[test]
fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    if skip::without_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let vm = || -> Result<TestVm> {
        let vm = TestVm::of(&guests::halt())?;
        Ok(vm.arg("--api-sock").arg(&socket))
    };
    let ask = || -> Result<u16> { Ok(Client::connect(&socket, SHORTLY)?.get("/")?.status) };
    let mut first = vm().unwrap().boot().unwrap();
    first.expect(guests::HELLO, SHORTLY).unwrap();
    let path = socket.display().to_string();
    refused(vm().unwrap(), &[&path, "is in use by another process"]).unwrap();
    assert_eq!(ask().unwrap(), 200);
    first.signal(Signal::KILL).unwrap();
    first.exit(SHORTLY).unwrap();
    assert!(socket.exists(), "a killed machine leaves it");
    let mut second = vm().unwrap().boot().unwrap();
    second.expect(guests::HELLO, SHORTLY).unwrap();
    assert_eq!(ask().unwrap(), 200);
}

#[test]
fn paths_that_cannot_be_sockets() {
    let vm = |path: &Path| {
        TestVm::of(&guests::halt())
            .unwrap()
            .arg("--api-sock")
            .arg(path)
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    refused(vm(&file), &["is a file, not a socket"]).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
    refused(vm(&folder.path().join("no/s")), &["can't be made"]).unwrap();
    let long = folder.path().join("s".repeat(120));
    refused(vm(&long), &["bytes long", "107"]).unwrap();
    refused(vm(Path::new("")), &["--api-sock"]).unwrap();
}

#[test]
fn a_machine_that_does_not_start_leaves_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let vm = TestVm::of(b"no kernel")
        .unwrap()
        .arg("--api-sock")
        .arg(&socket);
    refused(vm, &["kernel"]).unwrap();
    let vm = TestVm::of(&guests::halt()).unwrap();
    let disk = vm.file("disk", &[0; 4096]).unwrap();
    let lock = std::fs::File::options().write(true).open(&disk);
    let lock = lock.context("the disk").unwrap();
    fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let exit = vm
        .arg("--disk")
        .arg(&disk)
        .arg("--api-sock")
        .arg(&socket)
        .run()
        .unwrap();
    assert_ne!(exit.code, Some(0), "{exit:?}");
    assert!(!socket.exists());
}
