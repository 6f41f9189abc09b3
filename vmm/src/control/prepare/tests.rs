//! Clients that describe a machine before its start.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use api::server::{Limits, Server};
use api::spec::MachineSpec;
use serde_json::{Value, json};

use super::*;
use crate::control::description::Description;

/// A machine that is not started, and a client of it.
struct Desk {
    preparation: Preparation,
    front: Front,
    client: UnixStream,
    folder: tempfile::TempDir,
    /// The head of the last answer.
    head: String,
}

impl Desk {
    fn new() -> Self {
        let mut server = Server::new(None, Limits::default());
        let (ours, client) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        server.adopt(ours, Instant::now()).unwrap();
        let spec = MachineSpec {
            rng: false,
            ..MachineSpec::default()
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kernel"), "kernel").unwrap();
        for name in ["a", "b"] {
            std::fs::write(folder.path().join(name), [0; 4096]).unwrap();
        }
        Self {
            preparation: Preparation::new().unwrap(),
            front: Front::new(server, Description::new(None, spec), |_| Ok(())),
            client,
            folder,
            head: String::new(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn send(&mut self, line: &str, body: &str) {
        let len = body.len();
        write!(
            self.client,
            "{line} HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}"
        )
        .unwrap();
    }

    /// What has come: status and body.
    fn come(&mut self) -> (u16, Value) {
        let mut bytes = Vec::new();
        let error = self.client.read_to_end(&mut bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let text = String::from_utf8(bytes).unwrap();
        let status = text.get(9..12).map_or(0, |word| word.parse().unwrap());
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        self.head = format!("{head}\r\n");
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    /// Asks and is answered, by as many turns of the server as the request takes.
    fn ask(&mut self, line: &str, body: &Value) -> (u16, Value) {
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        self.send(line, &text);
        loop {
            let ready = self.preparation.wait(&self.front).unwrap();
            assert_eq!(turn(&mut self.front, &ready), None, "{line} {text}");
            let come = self.come();
            if come.0 != 0 {
                return come;
            }
        }
    }

    fn put(&mut self, path: &str, body: &Value) -> u16 {
        self.ask(&format!("PUT {path}"), body).0
    }

    fn config(&mut self) -> Value {
        self.ask("GET /vm/config", &Value::Null).1
    }
}

#[test]
fn what_is_described_is_told_back() {
    let mut desk = Desk::new();
    let (kernel, a, b) = (desk.path("kernel"), desk.path("a"), desk.path("b"));
    let size = json!({"vcpu_count": 2, "mem_size_mib": 64, "smt": true, "huge_pages": "None",
        "track_dirty_pages": true});
    assert_eq!(desk.put("/machine-config", &size), 204);
    let (_, told) = desk.ask("GET /machine-config", &Value::Null);
    assert_eq!(told, size);
    let source = json!({"kernel_image_path": kernel, "boot_args": "quiet"});
    assert_eq!(desk.put("/boot-source", &source), 204);
    let drive = |id: &str, path: &str, root: bool| {
        let path_on_host = path;
        json!({"drive_id": id, "path_on_host": path_on_host, "is_root_device": root})
    };
    assert_eq!(desk.put("/drives/data", &drive("data", &a, false)), 204);
    assert_eq!(desk.put("/drives/root", &drive("root", &b, true)), 204);
    let config = desk.config();
    assert_eq!(config["machine-config"], size);
    assert_eq!(config["boot-source"]["boot_args"], "quiet");
    // The root is the first, as the guest counts.
    assert_eq!(config["drives"][0]["drive_id"], "root");
    assert_eq!(config["drives"][1]["path_on_host"], a);
    // What is said of the cache is told as it was said.
    assert_eq!(config["drives"][1]["cache_type"], "Unsafe");
    let mut cached = drive("data", &a, false);
    cached["cache_type"] = json!("Writeback");
    assert_eq!(desk.put("/drives/data", &cached), 204);
    assert_eq!(desk.config()["drives"][1]["cache_type"], "Writeback");
    // The same name again is the same drive.
    assert_eq!(desk.put("/drives/data", &drive("data", &a, false)), 204);
    assert_eq!(desk.config(), config);
    let (_, patched) = desk.ask("PATCH /machine-config", &json!({"mem_size_mib": 65}));
    assert_eq!(patched, Value::Null);
    assert_eq!(desk.config()["machine-config"]["mem_size_mib"], 65);
    let (_, machine) = desk.ask("GET /coracle/v1/machine", &Value::Null);
    assert_eq!(machine["state"], "not-started");
    assert_eq!(machine["vcpus"], 2);
}

#[test]
fn who_asks_in_an_old_way_is_told_so() {
    let mut desk = Desk::new();
    for (body, old) in [
        (
            json!({"guest_cid": 3, "uds_path": "v", "vsock_id": "v"}),
            true,
        ),
        (json!({"guest_cid": 3, "uds_path": "v"}), false),
    ] {
        assert_eq!(desk.put("/vsock", &body), 204);
        assert_eq!(desk.head.contains("\r\nDeprecation: true\r\n"), old);
    }
}

#[test]
fn metadata_is_put_changed_and_told() {
    let mut desk = Desk::new();
    let nothing = (200, json!({}));
    assert_eq!(desk.ask("GET /mmds", &Value::Null), nothing);
    let change = json!({"latest": {"a": null, "b": 2}});
    assert_eq!(desk.ask("PATCH /mmds", &change).0, 400);
    assert_eq!(desk.ask("PATCH /coracle/v1/metadata", &change).0, 409);
    assert_eq!(desk.ask("GET /mmds", &Value::Null), nothing);
    let first = json!({"latest": {"a": 1}});
    assert_eq!(desk.put("/mmds", &first), 204);
    assert_eq!(desk.ask("PATCH /mmds", &change).0, 204);
    let second = (200, json!({"latest": {"b": 2}}));
    assert_eq!(desk.ask("GET /coracle/v1/metadata", &Value::Null), second);
    // Together more than there may be, each by itself not.
    let more = |name: &str| json!({name: "x".repeat(40_000)});
    assert_eq!(desk.ask("PATCH /mmds", &more("c")).0, 204);
    let (status, answer) = desk.ask("PATCH /mmds", &more("d"));
    assert_eq!((status, &answer["code"]), (413, &json!("too-large")));
    assert!(answer["fault_message"].is_string());
    assert_eq!(desk.ask("PATCH /coracle/v1/metadata", &more("d")).0, 413);
    assert_eq!(desk.ask("GET /mmds", &Value::Null).1["d"], Value::Null);
    assert_eq!(desk.put("/mmds", &json!([])), 204);
    assert_eq!(desk.ask("GET /mmds", &Value::Null), (200, json!([])));
}

#[test]
fn the_metadata_service_is_on_networks_that_there_are() {
    let mut desk = Desk::new();
    let config = |names: Value| json!({"network_interfaces": names});
    let with = |field: &str, value: Value| {
        let mut body = config(json!(["net0"]));
        body[field] = value;
        body
    };
    assert_eq!(desk.put("/mmds/config", &config(json!(["net0"]))), 400);
    let machine = json!({"nets": [{"kind": "user"}, {"kind": "user", "id": "eth7"}]});
    assert_eq!(desk.put("/coracle/v1/machine", &machine), 204);
    for body in [
        config(json!([])),
        config(json!(["net1"])),
        config(json!(["net0", "net2"])),
        json!({"version": "V2"}),
        with("version", json!("V3")),
        with("ipv4_address", json!("10.0.0.1")),
        with("ipv4_address", json!("169.254.0.1")),
        with("ipv4_address", json!("169.254.255.1")),
        with("ipv4_address", json!("169.254.1")),
        with("imds_compat", json!(1)),
        with("more", json!(1)),
    ] {
        assert_eq!(desk.put("/mmds/config", &body), 400, "{body}");
    }
    assert_eq!(desk.config()["mmds-config"], Value::Null);
    assert_eq!(desk.put("/mmds/config", &config(json!(["eth7"]))), 204);
    let told = json!({"version": "V1", "network_interfaces": ["eth7"], "ipv4_address": null,
        "imds_compat": false});
    assert_eq!(desk.config()["mmds-config"], told);
    let all = json!({"version": "V2", "network_interfaces": ["eth7", "net0"],
        "ipv4_address": "169.254.169.250", "imds_compat": true});
    assert_eq!(desk.put("/mmds/config", &all), 204);
    assert_eq!(desk.config()["mmds-config"], all);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut desk = Desk::new();
    let (a, none) = (desk.path("a"), desk.path("none"));
    let root = json!({"drive_id": "r", "path_on_host": a, "is_root_device": true});
    assert_eq!(desk.put("/drives/r", &root), 204);
    let before = desk.config();
    let drive = |body: Value| ("/drives/d", body);
    let refused = [
        (
            "/machine-config",
            json!({"vcpu_count": 0, "mem_size_mib": 64}),
        ),
        (
            "/machine-config",
            json!({"vcpu_count": 33, "mem_size_mib": 64}),
        ),
        (
            "/machine-config",
            json!({"vcpu_count": 3, "mem_size_mib": 64, "smt": true}),
        ),
        (
            "/machine-config",
            json!({"vcpu_count": 1, "mem_size_mib": 0}),
        ),
        (
            "/machine-config",
            json!({"vcpu_count": 1, "mem_size_mib": 1_u64 << 60}),
        ),
        (
            "/machine-config",
            json!({"vcpu_count": 1, "mem_size_mib": 127, "huge_pages": "2M"}),
        ),
        (
            "/machine-config",
            json!({"vcpu_count": 1, "mem_size_mib": 1, "cpu_template": "T2"}),
        ),
        ("/boot-source", json!({"kernel_image_path": none})),
        (
            "/boot-source",
            json!({"kernel_image_path": a, "initrd_path": none}),
        ),
        (
            "/boot-source",
            json!({"kernel_image_path": a, "boot_args": "x".repeat(9000)}),
        ),
        drive(json!({"drive_id": "d", "path_on_host": none, "is_root_device": false})),
        drive(json!({"drive_id": "d", "path_on_host": a, "is_root_device": true})),
        drive(
            json!({"drive_id": "d", "path_on_host": a, "is_root_device": false,
            "socket": "/s"}),
        ),
        drive(json!({"drive_id": "d", "is_root_device": false})),
        ("/coracle/v1/machine", json!({"cpus": 0})),
    ];
    for (path, body) in refused {
        let (status, answer) = desk.ask(&format!("PUT {path}"), &body);
        assert!(
            matches!(status, 400 | 422),
            "{path} {body}: {status} {answer}"
        );
        assert!(answer["message"].is_string());
    }
    assert_eq!(desk.config(), before);
}

#[test]
fn a_start_is_answered_when_it_is_known_how_it_went() {
    let mut desk = Desk::new();
    let start = json!({"action_type": "InstanceStart"});
    let (status, refused) = desk.ask("PUT /actions", &start);
    assert_eq!(status, 400);
    assert!(
        refused["fault_message"]
            .as_str()
            .unwrap()
            .contains("kernel")
    );
    let source = json!({"kernel_image_path": desk.path("kernel")});
    assert_eq!(desk.put("/boot-source", &source), 204);
    for works in [false, true] {
        desk.send("PUT /actions", &start.to_string());
        assert_eq!(
            desk.preparation.serve(&mut desk.front).unwrap(),
            Prepared::Start
        );
        assert_eq!(desk.come().0, 0, "not yet");
        match works {
            true => desk.front.started(MachineState::Running),
            false => desk
                .front
                .not_started(ApiError::new(Code::BadFile, "no", "")),
        }
        assert_eq!(desk.come().0, if works { 204 } else { 400 });
    }
}

#[test]
fn the_built_in_guest_is_started_in_our_words_only() {
    let mut desk = Desk::new();
    desk.send("PUT /coracle/v1/actions", r#"{"action": "start"}"#);
    assert_eq!(
        desk.preparation.serve(&mut desk.front).unwrap(),
        Prepared::Start
    );
}

#[test]
fn what_only_runs_is_refused() {
    let mut desk = Desk::new();
    for (line, body) in [
        ("PATCH /drives/a", json!({"drive_id": "a"})),
        ("PUT /actions", json!({"action_type": "SendCtrlAltDel"})),
        ("PATCH /balloon", json!({"amount_mib": 1})),
        ("GET /balloon/statistics", Value::Null),
        ("GET /balloon", Value::Null),
    ] {
        assert_eq!(desk.ask(line, &body).0, 400, "{line}");
    }
    assert_eq!(desk.ask("GET /coracle/v1/devices", &Value::Null).0, 409);
}
