//! Clients of a machine whose devices answer when the test lets them.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::num::NonZeroU32;
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
use super::super::pause::{Cpus, Pause};
use super::machine::Device;
use super::*;
use crate::kvm::state::VcpuStateV1;
use crate::snapshot::SaveError;

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

/// vCPUs that stand still when the test lets them.
#[derive(Default)]
struct FakeCpus(std::cell::Cell<bool>);

impl Cpus for FakeCpus {
    fn pause(&self) -> bool {
        self.0.get()
    }

    fn resume(&self) {}

    fn limit(&self, percent: Option<NonZeroU32>) -> io::Result<()> {
        match percent {
            // What a host says that has no timers.
            Some(percent) if percent.get() == 13 => Err(ErrorKind::Unsupported.into()),
            _ => Ok(()),
        }
    }

    fn save(&self, _: Vec<u32>) -> Result<Vec<VcpuStateV1>, SaveError> {
        Ok(Vec::new())
    }
}

struct Rig {
    pause: Pause,
    cpus: FakeCpus,
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
        let pause = Pause::new(vec![("disk0".into(), connected.handle.clone())], None);
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
            state: MachineState::Running,
            now,
        };
        Self {
            pause,
            cpus: FakeCpus::default(),
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
        let mut life = Life {
            pause: &mut self.pause,
            cpus: &self.cpus,
        };
        self.api.turn(&ready, self.now, &mut life)
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
    patch_at(client, "/coracle/v1/drives/disk0", body);
}

fn patch_at(client: &mut UnixStream, path: &str, body: &str) {
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
        mut api,
        mut pause,
        cpus,
        slot,
        now,
        ..
    } = rig;
    drop(slot);
    patch(&mut client, r#"{"rescan": true}"#);
    let mut life = Life {
        pause: &mut pause,
        cpus: &cpus,
    };
    let events = api.turn(&[PollFlags::IN], now, &mut life);
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

fn act(client: &mut UnixStream, body: &str) {
    let len = body.len();
    write!(
        client,
        "PUT /coracle/v1/actions HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .unwrap();
}

const PAUSE: &str = r#"{"action": "pause"}"#;
const RESUME: &str = r#"{"action": "resume"}"#;

impl Rig {
    /// What `GET /` says of the machine's state.
    fn state(&mut self) -> String {
        let mut client = self.client();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        self.turn();
        let (_, text) = come(&mut client);
        let rest = text.split("\"state\":\"").nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    }
}

#[test]
fn a_pause_is_answered_when_all_stand_still() {
    let mut rig = Rig::new("");
    let mut client = rig.client();
    act(&mut client, PAUSE);
    rig.settle();
    assert_eq!(come(&mut client).0, 0, "the vCPUs run");
    assert_eq!(rig.state(), "Running");
    // One that asks to go on waits for the pause, and one that asks for the pause again too.
    let (mut second, mut third) = (rig.client(), rig.client());
    act(&mut second, PAUSE);
    rig.turn();
    act(&mut third, RESUME);
    rig.turn();
    rig.cpus.0.set(true);
    rig.turn();
    assert_eq!(come(&mut client).0, 0, "the device works");
    rig.slot.step();
    rig.turn();
    let answers = [&mut client, &mut second, &mut third].map(|client| come(client).0);
    assert_eq!(answers, [204, 204, 204]);
    assert_eq!(rig.state(), "Running", "the third let it go on");
}

#[test]
fn a_paused_machine_answers_and_is_changed() {
    let mut rig = Rig::new("");
    rig.cpus.0.set(true);
    let mut client = rig.client();
    for round in 0..3 {
        act(&mut client, PAUSE);
        rig.settle();
        assert_eq!(come(&mut client).0, 204, "{round}");
        assert_eq!(rig.state(), "Paused");
        assert_eq!(rig.change(LIMIT).0, 204, "{round}");
        act(&mut client, RESUME);
        rig.turn();
        assert_eq!(come(&mut client).0, 204);
        assert_eq!(rig.state(), "Running");
    }
    assert_eq!(rig.told().len(), 3);
}

#[test]
fn a_pause_that_does_not_come_about_says_who_is_waited_for() {
    for obey in [false, true] {
        let mut rig = Rig::new("");
        rig.cpus.0.set(obey);
        let mut client = rig.client();
        act(&mut client, PAUSE);
        rig.turn();
        rig.now += DEVICE_PATIENCE;
        rig.turn();
        let (status, text) = come(&mut client);
        let who = if obey { "disk0" } else { "a vCPU" };
        let sentence = format!("{who} has not come to rest; the machine runs on");
        assert!(status == 504 && text.contains(&sentence), "{text}");
        assert!(rig.pause.is_running() && rig.api.jobs.is_empty());
        // It comes back: what was asked and taken back leaves nothing behind.
        rig.settle();
        assert_eq!(rig.state(), "Running");
        rig.cpus.0.set(true);
        act(&mut client, PAUSE);
        rig.settle();
        assert_eq!(come(&mut client).0, 204);
    }
}

#[test]
fn a_stop_ends_a_pause_on_its_way() {
    let mut rig = Rig::new("");
    let mut client = rig.client();
    act(&mut client, PAUSE);
    rig.turn();
    // What the control thread does when it is asked to stop.
    rig.pause.resume(&rig.cpus);
    rig.turn();
    let (status, text) = come(&mut client);
    assert!(status == 409 && text.contains("told to stop"), "{text}");
    let mut other = rig.client();
    act(&mut other, r#"{"action": "stop", "timeout_ms": 1500}"#);
    let timeout = Some(Duration::from_millis(1500));
    assert_eq!(rig.turn(), [Event::Stop(timeout)]);
    act(&mut other, r#"{"action": "kill"}"#);
    assert_eq!(rig.turn(), [Event::Request(UserRequest::Quit)]);
}

#[test]
fn who_follows_is_told_of_every_change() {
    let mut rig = Rig::new("");
    rig.cpus.0.set(true);
    let mut follower = rig.client();
    follower
        .write_all(b"GET /coracle/v1/events HTTP/1.1\r\n\r\n")
        .unwrap();
    rig.turn();
    let mut client = rig.client();
    act(&mut client, PAUSE);
    rig.settle();
    act(&mut client, RESUME);
    rig.turn();
    assert_eq!(rig.change(LIMIT).0, 204);
    rig.api.end(events::End::PowerOff);
    let (status, text) = come(&mut follower);
    assert_eq!(status, 200);
    let told: Vec<_> = text.lines().filter(|line| line.starts_with('{')).collect();
    let expected = [
        r#""event":"state","state":"running""#,
        r#""event":"state","state":"paused""#,
        r#""event":"state","state":"running""#,
        r#""event":"device-changed","device":"disk0""#,
        r#""event":"ended","how":"power-off""#,
    ];
    assert_eq!(told.len(), expected.len(), "{text}");
    for (place, (line, expected)) in told.iter().zip(expected).enumerate() {
        assert!(line.contains(expected), "{line}");
        assert!(line.contains(&format!("\"sequence\":{place},")), "{line}");
    }
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text}");
}

#[test]
fn a_quota_is_told_once_the_host_gives_it() {
    let mut rig = Rig::new("");
    let mut ask = |body| {
        let mut client = rig.client();
        patch_at(&mut client, "/coracle/v1/cpu", body);
        rig.settle();
        let (status, _) = come(&mut client);
        client
            .write_all(b"GET /coracle/v1/machine HTTP/1.1\r\n\r\n")
            .unwrap();
        rig.settle();
        (status, come(&mut client).1)
    };
    for (body, status, told) in [
        (r#"{"quota": 50}"#, 204, "\"cpu_quota\":50,"),
        (r#"{"quota": 13}"#, 500, "\"cpu_quota\":50,"),
        (r#"{"quota": null}"#, 204, "\"cpu_quota\":null,"),
    ] {
        let (answered, text) = ask(body);
        assert_eq!(answered, status, "{body}");
        assert!(text.contains(told), "{body}: {text}");
    }
}

#[test]
fn firecrackers_clients_need_a_driver_and_cannot_begin_statistics() {
    let rig = Rig::new("");
    let device = &rig.api.machine.devices()[0];
    let change = |as_firecracker, statistics_interval_s| {
        let wanted = api::request::BalloonChange {
            size: Some(SizeSpec::Bytes(1 << 20)),
            statistics_interval_s,
            as_firecracker,
            ..Default::default()
        };
        let steps = Change::Balloon(wanted).prepare(device);
        steps.map(|steps| format!("{steps:?}"))
    };
    assert!(change(true, None).unwrap().contains("NeedDriver"));
    assert!(change(true, Some(0)).unwrap().contains("NeedDriver"));
    assert!(!change(false, Some(5)).unwrap().contains("NeedDriver"));
    assert_eq!(change(true, Some(5)).unwrap_err().code, Code::NotSupported);
}

#[test]
fn metrics_are_the_devices_reports() {
    let mut rig = Rig::new("");
    let mut client = rig.client();
    client
        .write_all(b"GET /coracle/v1/metrics HTTP/1.1\r\n\r\n")
        .unwrap();
    rig.settle();
    let (status, text) = come(&mut client);
    assert_eq!(status, 200);
    assert!(
        text.contains("Content-Type: text/plain; version=0.0.4"),
        "{text}"
    );
    assert!(text.contains("\ncoracle_machine_vcpus 1\n"), "{text}");
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
