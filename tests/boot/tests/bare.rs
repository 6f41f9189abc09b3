//! The bare test guest itself, on this host's KVM: its operations, its loads and its faults.

use boot_tests::code;
use harness::bare::answer::Answer;
use harness::bare::ops::{
    self, BlockLoad, Check, NetKind, NetLoad, Op, Place, Program, VsockLoad, Width,
};
use harness::netns::Namespace;
use harness::vm::SHORTLY;
use harness::{TestVm, bare, guests, skip};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

fn run(vm: TestVm) -> Answer {
    let exit = vm.boot().unwrap().exit(SHORTLY).unwrap();
    assert_eq!(exit.code, Some(code::POWERED_OFF), "{exit:?}");
    Answer::parse(&exit.stdout).unwrap()
}

fn check(place: Place, width: Width, value: u64) -> Check {
    let mask = u64::MAX;
    Check {
        place,
        width,
        mask,
        value,
    }
}

#[test]
fn rows_pass_and_fail_as_they_should() {
    if skip::without_kvm() {
        return;
    }
    let at = Place::Memory(0x30_0000);
    let window = Place::Memory(guests::VIRTIO_BASE.into());
    let mut program = Program::new();
    let moment = Duration::from_millis(1);
    program.row(
        1,
        [
            Op::Write(at, Width::Qword, 0x1122_3344_5566_7788),
            Op::Expect(check(at, Width::Byte, 0x88)),
            Op::Expect(check(at, Width::Word, 0x7788)),
            Op::Expect(check(at, Width::Dword, 0x5566_7788)),
            Op::Expect(check(at, Width::Qword, 0x1122_3344_5566_7788)),
            Op::Copy(0x30_0001, b"\x01\x02".to_vec()),
            Op::Compare(0x30_0000, b"\x88\x01\x02\x55\x44".to_vec()),
            Op::Fill {
                at: 0x30_0000,
                len: 3,
                byte: 9,
            },
            Op::Compare(0x30_0000, b"\x09\x09\x09\x55".to_vec()),
        ],
    );
    program.row(2, [Op::Compare(0x30_0000, b"\x09\x08".to_vec())]);
    program.row(
        3,
        [Op::Expect(check(
            window,
            Width::Dword,
            guests::VIRTIO_MAGIC.into(),
        ))],
    );
    program.row(4, [Op::Until(check(at, Width::Byte, 1), moment)]);
    program.row(5, [Op::While(check(at, Width::Byte, 9), moment), Op::Mark]);
    program.row(
        6,
        [Op::Until(
            check(Place::Port(0x3fd), Width::Byte, 0x60),
            moment,
        )],
    );
    let answer = run(bare::machine(&program).unwrap());
    assert_eq!(answer.passed, [1, 3, 6]);
    let failed: Vec<_> = answer
        .failed
        .iter()
        .map(|f| (f.row, f.step, f.found))
        .collect();
    assert_eq!(failed, [(2, 0, 0x109), (4, 0, 9), (5, 0, 9)]);
    assert!(answer.marks.is_empty());
}

#[test]
fn a_block_load_comes_to_its_end() {
    if skip::without_kvm() {
        return;
    }
    for (write, random, depth) in [(false, true, 1), (false, false, 32), (true, true, 8)] {
        let load = BlockLoad {
            write,
            random,
            block: 4096,
            depth,
            span: 1 << 20,
            time: Duration::from_secs(10),
            count: 1000,
        };
        let mut program = Program::new();
        program.push(Op::Block(guests::VIRTIO_BASE.into(), load));
        let vm = bare::machine(&program).unwrap();
        let disk = vm.file("disk", &[0; 1 << 20]).unwrap();
        let answer = run(vm.arg("--no-rng").arg("--disk").arg(disk));
        let [load] = answer.loads[..] else {
            panic!("{answer:?}")
        };
        assert_eq!((load.done, load.errors), (1000, 0), "{load:?}");
        assert!(load.kicks <= 1000, "{load:?}");
    }
}

#[test]
fn a_socket_load_receives_and_sends() {
    if skip::without_kvm() {
        return;
    }
    const BYTES: u64 = 4 << 20;
    for send in [false, true] {
        let load = VsockLoad {
            port: 5000,
            send,
            bytes: BYTES,
        };
        let mut program = Program::new();
        program.push(Op::Vsock(guests::VIRTIO_BASE.into(), load));
        let vm = bare::machine(&program).unwrap();
        let path = vm.folder().join("socket");
        let mut machine = vm
            .arg("--no-rng")
            .arg("--vsock")
            .arg(format!("cid=3,path={}", path.display()))
            .boot()
            .unwrap();
        machine.expect("mark", SHORTLY).unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        writeln!(stream, "CONNECT 5000").unwrap();
        let mut greeting = String::new();
        let mut reader = BufReader::with_capacity(1, &stream);
        reader.read_line(&mut greeting).unwrap();
        assert!(greeting.starts_with("OK "), "{greeting:?}");
        if send {
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert_eq!(received.len() as u64, BYTES);
        } else {
            let bytes = vec![1; usize::try_from(BYTES).unwrap()];
            stream.write_all(&bytes).unwrap();
        }
        let exit = machine.exit(SHORTLY).unwrap();
        assert_eq!(exit.code, Some(code::POWERED_OFF), "{exit:?}");
        let answer = Answer::parse(&exit.stdout).unwrap();
        assert_eq!(answer.loads[0].done, BYTES, "{answer:?}");
    }
}

/// Opens a tap, as who starts machines for others does, and becomes the command that has it.
const WITH_TAP: &str = "\
import fcntl, os, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, b'vm0'.ljust(16, b'\\0') + b'\\x02\\x50' + bytes(22))
os.dup2(tap, 9, inheritable=True)
os.execvp(sys.argv[1], sys.argv[1:])";

/// The host's end of a connection of `kind`.
fn talk(kind: NetKind, bytes: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("10.9.0.2", 5000))?;
    stream.set_read_timeout(Some(SHORTLY))?;
    let mut data = vec![0; bytes];
    match kind {
        NetKind::Sink => stream.write_all(&data)?,
        NetKind::Source => stream.read_exact(&mut data)?,
        NetKind::Echo => {
            for byte in data.chunks_mut(1) {
                stream.write_all(byte)?;
                stream.read_exact(byte)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_network_load_takes_sends_and_echoes_on_a_tap_by_name_and_by_descriptor() {
    if skip::without_kvm() || skip::without_program("python3") {
        return;
    }
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    space.ip("tuntap add dev vm0 mode tap").unwrap();
    space.ip("address add 10.9.0.1/24 dev vm0").unwrap();
    let guest = "neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev vm0";
    space.ip(guest).unwrap();
    let all = ops::NET_OFFLOADS;
    for (kind, offloads, bytes, link) in [
        (NetKind::Sink, all, 4 << 20, "tap:vm0"),
        (NetKind::Sink, 0, 1 << 20, "tap,fd=9"),
        (NetKind::Source, all, 4 << 20, "tap,fd=9"),
        (NetKind::Source, 0, 1 << 20, "tap:vm0"),
        (NetKind::Echo, all, 100, "tap:vm0"),
    ] {
        let load = NetLoad::new(kind, offloads, bytes);
        let mut program = Program::new();
        program.push(Op::Mark);
        program.push(Op::Net(guests::VIRTIO_BASE.into(), load));
        let vm = bare::machine_of(bare::NET, &program).unwrap();
        let vm = vm.args(&["--no-rng", "--net"]);
        let vm = vm.arg(format!("{link},mac=02:00:00:00:00:02"));
        let mut command = vm.command().unwrap();
        if link.contains("fd=") {
            let mut with_tap = Command::new("python3");
            with_tap.args(["-c", WITH_TAP]).arg(command.get_program());
            with_tap.args(command.get_args());
            command = with_tap;
        }
        let mut command = space.wrap(&command);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut console = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        // The tap has its other end now.
        console.read_line(&mut text).unwrap();
        let bytes = usize::try_from(bytes).unwrap();
        let talked = space.enter(|| talk(kind, bytes)).unwrap();
        console.read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        talked.unwrap_or_else(|error| panic!("{load:?} {link}: {error}, the guest: {text}"));
        let answer = Answer::parse(text.as_bytes()).unwrap();
        assert_eq!(answer.loads[0].done, load.bytes, "{answer:?}");
    }
}

#[test]
fn a_guest_without_a_program_says_so() {
    if skip::without_kvm() {
        return;
    }
    let exit = TestVm::of(bare::IMAGE).unwrap().run().unwrap();
    assert_eq!(exit.code, Some(code::POWERED_OFF), "{exit:?}");
    assert_eq!(exit.stdout, b"no program 0\n", "{exit:?}");
}

#[test]
fn a_fault_is_told() {
    if skip::without_kvm() {
        return;
    }
    let mut program = Program::new();
    // Beyond the 4 GiB that are mapped.
    program.push(Op::Write(Place::Memory(1 << 33), Width::Byte, 0));
    let exit = bare::machine(&program).unwrap().run().unwrap();
    let text = String::from_utf8_lossy(&exit.stdout).into_owned();
    assert!(
        text.starts_with("fault e ") && text.ends_with(" 200000000\n"),
        "{text}"
    );
    assert!(Answer::parse(&exit.stdout).is_err());
}
