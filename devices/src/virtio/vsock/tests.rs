use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use super::hub::Settings;
use super::wire::{Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, op};
use super::*;
use crate::inspect::Value;
use crate::testing::conformance;
use crate::testing::vsock::VsockGuest;

mod handshakes;
mod rules;
mod streams;

const CID: u64 = 42;
/// A guest's buffer for a header and 4 KiB, as Linux gives them.
const LINUX: [u32; 2] = [44, 4096];
const ROOM: u32 = 262_144;

/// A device with its guest, and the folder of its socket.
struct Machine {
    guest: VsockGuest,
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let guest = VsockGuest::new(device(&folder, settings));
        Self { guest, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("v")
    }

    /// Serves a port of the host.
    fn serve(&self, port: u32) -> UnixListener {
        let path = self.folder.path().join(format!("v_{port}"));
        UnixListener::bind(path).unwrap()
    }

    fn run(&mut self) {
        self.guest.driver.run();
    }

    /// The next packet to the guest.
    fn packet(&mut self) -> (Header, Vec<u8>) {
        self.guest.receive().expect("a packet")
    }

    /// The next packet to the guest, which has no data.
    fn expect(&mut self, op: u16) -> Header {
        let (header, data) = self.packet();
        assert_eq!(header.op.get(), op, "{header:?}");
        assert!(data.is_empty());
        header
    }

    fn nothing_more(&mut self) {
        let more = self.guest.receive();
        assert!(more.is_none(), "{more:?}");
    }

    /// A connection that the guest makes to a host program's port, with Linux's buffer size.
    fn connect(&mut self, guest: u32, host: u32) -> (Link, UnixStream) {
        let listener = self.serve(host);
        let link = Link { guest, host };
        let request = Header {
            buf_alloc: ROOM.into(),
            ..link.header(self, op::REQUEST)
        };
        assert!(self.guest.send(&request, &[]));
        let response = self.expect(op::RESPONSE);
        assert_eq!(response.src_port.get(), host);
        assert_eq!(response.dst_port.get(), guest);
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (link, stream)
    }

    /// A host program that has asked for a port of the guest, and the device's port for it.
    fn ask(&mut self, port: u32) -> (UnixStream, Link) {
        let mut stream = UnixStream::connect(self.path()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
            .write_all(format!("CONNECT {port}\n").as_bytes())
            .unwrap();
        self.run();
        let request = self.expect(op::REQUEST);
        assert_eq!(request.dst_port.get(), port);
        let host = request.src_port.get();
        (stream, Link { guest: port, host })
    }

    fn count(&mut self, name: &str) -> u64 {
        let handle = self.guest.driver.handle.clone();
        let report = std::thread::spawn(move || handle.inspect());
        while !report.is_finished() {
            self.guest.driver.step();
            std::thread::yield_now();
        }
        number(&report.join().unwrap().unwrap(), name)
    }
}

fn device(folder: &tempfile::TempDir, settings: Settings) -> Box<dyn VirtioDevice> {
    let file = SocketFile::listen(&folder.path().join("v")).unwrap();
    Box::new(Vsock::with(CID, file, settings).unwrap())
}

fn number(report: &Report, name: &str) -> u64 {
    match report.find(name) {
        Some(Value::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

/// The ports of a connection.
#[derive(Clone, Copy, Debug)]
struct Link {
    guest: u32,
    host: u32,
}

impl Link {
    fn header(self, machine: &Machine, op: u16) -> Header {
        Header {
            buf_alloc: ROOM.into(),
            ..machine.guest.header(self.guest, self.host, op)
        }
    }

    /// Sends a packet without data and with `flags`.
    fn send(self, machine: &mut Machine, op: u16, flags: u32) {
        let header = Header {
            flags: flags.into(),
            ..self.header(machine, op)
        };
        assert!(machine.guest.send(&header, &[]));
    }

    /// Sends data.
    fn data(self, machine: &mut Machine, data: &[u8]) {
        let header = Header {
            len: u32::try_from(data.len()).unwrap().into(),
            ..self.header(machine, op::RW)
        };
        assert!(machine.guest.send(&header, data));
    }

    /// Tells that the guest has handed on `count` bytes.
    fn credit(self, machine: &mut Machine, room: u32, count: u32) {
        let header = Header {
            buf_alloc: room.into(),
            fwd_cnt: count.into(),
            ..self.header(machine, op::CREDIT_UPDATE)
        };
        assert!(machine.guest.send(&header, &[]));
    }
}

/// What a host program can read now.
fn available(stream: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => all,
        Err(error) if error.kind() == ErrorKind::WouldBlock => all,
        Err(error) => panic!("{error}"),
    }
}

/// Whether a host program's stream has ended.
fn ended(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(0) => true,
        Ok(_) => panic!("more data"),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn it_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    let make = || -> Box<dyn VirtioDevice> {
        number.set(number.get() + 1);
        let path = folder.path().join(format!("v{}", number.get()));
        Box::new(Vsock::new(CID, SocketFile::listen(&path).unwrap()).unwrap())
    };
    conformance::check(&make, 1);
}
