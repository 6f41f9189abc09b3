//! Clients of a machine whose devices answer when the test lets them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use api::machine::MachineState;
use api::plan::{ConsolePlan, Hex, HostNeeds, KernelPlan, MachinePlan, MemoryPlan};
use api::server::{Limits, Server};
use api::spec::{DiskFormat, DiskSpec, KernelFormat, KernelProtocol, KernelSpec, MachineSpec};
use devices::IrqLine;
use devices::inspect::Report;
use devices::virtio::{
    CommandError, ConfigSpace, DeviceCommand, DeviceSlot, Identity, Progress, StartContext,
    StartError, VirtioDevice, connect,
};
use rustix::event::{Timespec, poll};

use super::super::description::Description;
use super::machine::Device;
use super::*;

/// What devices were told, in order.
type Told = Arc<Mutex<Vec<String>>>;

/// Does what it is told, but for commands that begin with a word.
struct Fake {
    told: Told,
    refuses: &'static str,
}

impl VirtioDevice for Fake {
    fn identity(&self) -> Identity {
        Identity {
            device_id: 2,
            queue_sizes: Vec::new(),
            features: 0,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::new(ConfigSpace::new(Vec::new()))
    }

    fn start(&mut self, _context: StartContext) -> Result<(), StartError> {
        Ok(())
    }

    fn queue_ready(&mut self, _queue: usize) -> Progress {
        Progress::Idle
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let text = format!("{command:?}");
        let refused = !self.refuses.is_empty() && text.starts_with(self.refuses);
        self.told.lock().unwrap().push(text);
        match refused {
            true => Err(CommandError::NoDriver),
            false => Ok(()),
        }
    }

    fn stop(&mut self) {}

    fn inspect(&self) -> Report {
        Report::new().with("kind", "fake")
    }
}

struct Rig {
    api: Api,
    slot: DeviceSlot,
    told: Told,
    now: Instant,
    folder: tempfile::TempDir,
}

impl Rig {
    /// A machine with one drive, of 4096 bytes, that refuses what begins with `refuses`.
    fn new(refuses: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        std::fs::write(&image, [0; 4096]).unwrap();
        let told = Told::default();
        let device = Box::new(Fake {
            told: Arc::clone(&told),
            refuses,
        });
        let ram = devices::testing::small_ram();
        let line = IrqLine::new().unwrap();
        let connected = connect("disk0".into(), device, ram, line).unwrap();
        let drive = Device::drive_for_tests("disk0", connected.handle, &image);
        let now = Instant::now();
        let spec = MachineSpec {
            kernel: Some(KernelSpec {
                path: "kernel".into(),
                format: KernelFormat::Auto,
                protocol: KernelProtocol::Auto,
            }),
            disks: vec![DiskSpec {
                path: image.clone(),
                ..DiskSpec::default()
            }],
            ..MachineSpec::default()
        };
        let server = Server::new(None, Limits::default());
        let api = Api {
            front: Front::new(server, Description::new(None, spec), |_| Ok(())),
            machine: Machine::for_tests(plan(), vec![drive]),
            jobs: VecDeque::new(),
            now,
        };
        Self {
            api,
            slot: connected.slot,
            told,
            now,
            folder,
        }
    }

    fn image(&self) -> std::path::PathBuf {
        self.folder.path().join("disk")
    }

    fn client(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.api.front.server.adopt(ours, self.now).unwrap();
        theirs
    }

    fn turn(&mut self) -> Vec<Event> {
        let mut fds = Vec::new();
        self.api.watch(&mut fds);
        poll(&mut fds, Some(&Timespec::default())).unwrap();
        let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
        self.api.turn(&ready, self.now)
    }

    /// Lets the device work and the API look, until both are at rest.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.turn();
            self.slot.step();
        }
        self.turn();
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// Asks for a change of the drive and lets it come to its end: the status and the answer.
    fn change(&mut self, body: &str) -> (u16, String) {
        let mut client = self.client();
        patch(&mut client, body);
        self.settle();
        come(&mut client)
    }
}

fn patch(client: &mut UnixStream, body: &str) {
    let path = "/coracle/v1/drives/disk0";
    let len = body.len();
    write!(
        client,
        "PATCH {path} HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .unwrap();
}

/// The status and text of what has come; status 0 for nothing.
fn come(client: &mut UnixStream) -> (u16, String) {
    let mut bytes = Vec::new();
    if let Err(error) = client.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    let text = String::from_utf8(bytes).unwrap();
    let status = text.get(9..12).map_or(0, |word| word.parse().unwrap());
    (status, text)
}

fn plan() -> MachinePlan {
    MachinePlan {
        kernel: KernelPlan {
            image: "kernel".into(),
            format: "elf".into(),
            protocol: "pvh".into(),
            entry: Hex(0),
        },
        cmdline: String::new(),
        vcpus: 1,
        memory: MemoryPlan {
            bytes: 32 << 20,
            hugepages: false,
            slots: Vec::new(),
            map: Vec::new(),
        },
        placements: Vec::new(),
        console: ConsolePlan {
            backend: "none".into(),
            device: "serial".into(),
        },
        tables: Vec::new(),
        devices: Vec::new(),
        interrupts: Vec::new(),
        threads: Vec::new(),
        host: HostNeeds {
            files: Vec::new(),
            kvm: Vec::new(),
            memory_bytes: 0,
            hugepages: 0,
            assisted: false,
        },
        stop_timeout_ms: 0,
    }
}

const LIMIT: &str = r#"{"limits": {"iops": {"size": 9}}}"#;

#[test]
fn changes_reach_the_device_and_are_remembered() {
    let mut rig = Rig::new("");
    assert_eq!(rig.change(LIMIT).0, 204);
    assert_eq!(rig.change(r#"{"rescan": true}"#).0, 204);
    assert_eq!(rig.change("{}").0, 204);
    let told = rig.told();
    assert!(
        told[0].starts_with("Limit(") && told[0].contains("size: 9"),
        "{told:?}"
    );
    assert_eq!(told.len(), 2);
    let mut client = rig.client();
    client
        .write_all(b"GET /vm/config HTTP/1.1\r\n\r\n")
        .unwrap();
    rig.settle();
    let (_, text) = come(&mut client);
    assert!(
        text.contains(r#""ops":{"size":9,"one_time_burst":0,"refill_time":1000}"#),
        "{text}"
    );
}

#[test]
fn what_was_done_is_taken_back_when_a_later_part_is_refused() {
    let mut rig = Rig::new("Rescan");
    let body = r#"{"size": 8192, "limits": {"iops": {"size": 9}}}"#;
    let (status, text) = rig.change(body);
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("no-driver"), "{text}");
    rig.settle();
    let told = rig.told();
    assert!(
        told[0].starts_with("Limit(") && told[1] == "Rescan",
        "{told:?}"
    );
    assert!(
        told[2].contains("operations: None"),
        "the old limits again: {told:?}"
    );
    assert_eq!(std::fs::metadata(rig.image()).unwrap().len(), 4096);
}

#[test]
fn an_image_grows_before_its_device_looks() {
    let mut rig = Rig::new("");
    assert_eq!(rig.change(r#"{"size": "8K"}"#).0, 204);
    assert_eq!(std::fs::metadata(rig.image()).unwrap().len(), 8192);
    // The size that it has is no growth; less is refused; another file is left alone.
    assert_eq!(rig.change(r#"{"size": "8K"}"#).0, 204);
    assert_eq!(rig.change(r#"{"size": "4K"}"#).0, 422);
    std::fs::rename(rig.image(), rig.folder.path().join("moved")).unwrap();
    std::fs::write(rig.image(), [0; 512]).unwrap();
    assert_eq!(rig.change(r#"{"size": "16K"}"#).0, 422);
    assert_eq!(std::fs::metadata(rig.image()).unwrap().len(), 512);
    assert_eq!(rig.told(), ["Rescan", "Rescan"]);
}

#[test]
fn another_image_is_opened_first_and_the_same_only_measured() {
    let mut rig = Rig::new("");
    let body = |path: &Path| format!(r#"{{"path": "{}"}}"#, path.display());
    let other = rig.folder.path().join("other");
    assert_eq!(rig.change(&body(&other)).0, 422);
    std::fs::write(&other, [0; 512]).unwrap();
    assert_eq!(rig.change(&body(&other)).0, 204);
    assert_eq!(rig.change(&body(&other)).0, 204);
    let told = rig.told();
    assert!(told[0].starts_with("ReplaceDisk("), "{told:?}");
    assert_eq!(told[1..], ["Rescan"]);
}

#[test]
fn a_device_that_hangs_holds_up_its_own_requests_only() {
    let mut rig = Rig::new("");
    let mut stuck = rig.client();
    let mut behind = rig.client();
    let mut other = rig.client();
    patch(&mut stuck, r#"{"rescan": true}"#);
    rig.turn();
    patch(&mut behind, LIMIT);
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    rig.turn();
    assert_eq!(come(&mut other).0, 200);
    assert_eq!((come(&mut stuck).0, come(&mut behind).0), (0, 0));
    assert!(rig.api.deadline().unwrap() <= rig.now + LOOK_AGAIN);
    rig.now += DEVICE_PATIENCE;
    rig.turn();
    let (status, text) = come(&mut stuck);
    assert!(
        status == 504 && text.contains("may still be made"),
        "{text}"
    );
    let (status, text) = come(&mut behind);
    assert!(
        status == 504 && text.contains("nothing has changed"),
        "{text}"
    );
    // The device comes back: what it was told is done, what waited behind it is not.
    rig.settle();
    assert_eq!(rig.told(), ["Rescan"]);
    assert!(rig.api.jobs.is_empty());
    assert_eq!(rig.change(LIMIT).0, 204);
}

#[test]
fn a_machine_at_its_end_says_so() {
    let mut rig = Rig::new("");
    let mut client = rig.client();
    let Rig {
        mut api, slot, now, ..
    } = rig;
    drop(slot);
    patch(&mut client, r#"{"rescan": true}"#);
    let events = api.turn(&[PollFlags::IN], now);
    assert!(events.is_empty());
    let (status, text) = come(&mut client);
    assert!(status == 500 && text.contains("at its end"), "{text}");
    assert_eq!(
        serde_json::to_value(MachineState::Running).unwrap(),
        "running"
    );
}

#[test]
fn the_power_button_is_an_event_of_the_machines_life() {
    let mut rig = Rig::new("");
    let mut client = rig.client();
    let body = r#"{"action_type": "SendCtrlAltDel"}"#;
    let len = body.len();
    write!(
        client,
        "PUT /actions HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .unwrap();
    let events = rig.turn();
    assert_eq!(events, [Event::Request(UserRequest::PowerButton)]);
    assert_eq!(come(&mut client).0, 204);
}

impl Device {
    fn drive_for_tests(name: &str, handle: SlotHandle, image: &Path) -> Self {
        Self {
            name: name.into(),
            model: "virtio-blk".into(),
            handle,
            limits: api::limits::LimitsSpec::default(),
            drive: Some(machine::Drive::new(image, DiskFormat::Raw)),
            net: None,
            balloon: machine::BalloonWish::default(),
        }
    }
}
