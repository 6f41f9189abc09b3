//! A guest for tests: frames by hand, and connections through a TCP engine of its own.

pub(crate) mod raw;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::document::Metadata;
use crate::frame::{ETHERNET_BYTES, IPV4, Mac, head};
use crate::responder::{DEFAULT_ADDRESS, MAC, Responder};
use crate::service::{Service, Settings, Version};

pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(crate) const GUEST_MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// How much the guest's engine takes before its program reads.
const WINDOW: usize = 8 << 10;

/// The metadata of all tests: a name, and a text that is longer than buffers are.
pub(crate) fn metadata() -> Metadata {
    let metadata = Metadata::default();
    let long: String = ('a'..='z').cycle().take(40_000).collect();
    metadata
        .put(json!({"latest": {"name": "coracle", "long": long}}))
        .expect("it is short enough");
    metadata
}

/// A responder with the metadata of all tests, and the time at which it begins.
pub(crate) fn responder(version: Version) -> (Responder, Instant) {
    let now = Instant::now();
    let settings = Settings {
        version,
        ..Settings::default()
    };
    let service = Service::new(metadata(), settings, now).expect("random bytes");
    (Responder::new(service, DEFAULT_ADDRESS, 1500, 7, now), now)
}

/// A guest whose network is nothing but a responder.
pub(crate) struct Guest {
    pub(crate) responder: Responder,
    pub(crate) now: Instant,
    started: Instant,
    engine: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    next_port: u16,
}

/// Packets in both directions.
#[derive(Default)]
struct Wire {
    coming: VecDeque<Vec<u8>>,
    going: VecDeque<Vec<u8>>,
}

impl Guest {
    pub(crate) fn new(version: Version) -> Self {
        let (responder, now) = responder(version);
        Self::with(responder, now)
    }

    pub(crate) fn with(responder: Responder, now: Instant) -> Self {
        let mut wire = Wire::default();
        let mut settings = Config::new(HardwareAddress::Ip);
        settings.random_seed = 99;
        let zero = smoltcp::time::Instant::ZERO;
        let mut engine = Interface::new(settings, &mut wire, zero);
        engine.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST.into(), 0)).expect("room");
        });
        Self {
            responder,
            now,
            started: now,
            engine,
            sockets: SocketSet::new(Vec::new()),
            wire,
            next_port: 40_000,
        }
    }

    /// Lets time go by.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.turn();
    }

    /// Moves packets until there are no more.
    pub(crate) fn turn(&mut self) {
        let micros = self.now.duration_since(self.started).as_micros();
        let time = smoltcp::time::Instant::from_micros(i64::try_from(micros).expect("soon"));
        for _ in 0..10_000 {
            self.engine.poll(time, &mut self.wire, &mut self.sockets);
            let mut moved = false;
            while let Some(packet) = self.wire.going.pop_front() {
                let mut frame = head(GUEST_MAC, MAC, IPV4).to_vec();
                frame.extend_from_slice(&packet);
                self.responder.take(&frame, self.now);
                moved = true;
            }
            while let Some(frame) = self.responder.next(self.now) {
                let expected = head(MAC, GUEST_MAC, IPV4);
                assert_eq!(frame[..ETHERNET_BYTES], expected);
                assert!(frame.len() <= ETHERNET_BYTES + 1500, "{}", frame.len());
                self.wire.coming.push_back(frame[ETHERNET_BYTES..].to_vec());
                moved = true;
            }
            if !moved {
                return;
            }
        }
        panic!("packets without an end");
    }

    /// Opens a connection.
    pub(crate) fn connect(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; WINDOW]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let remote = (IpAddress::from(DEFAULT_ADDRESS), 80);
        let context = self.engine.context();
        socket
            .connect(context, remote, self.next_port)
            .expect("a new socket");
        self.next_port += 1;
        let handle = self.sockets.add(socket);
        self.turn();
        handle
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends bytes on a connection, and sees to it that they get there.
    pub(crate) fn send(&mut self, handle: SocketHandle, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Ok(sent) = self.socket(handle).send_slice(bytes) else {
                return;
            };
            bytes = &bytes[sent..];
            self.turn();
        }
    }

    /// What has come on a connection, and will without anything else being sent.
    pub(crate) fn receive(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut all = Vec::new();
        let mut some = [0; WINDOW];
        while let Ok(bytes) = self.socket(handle).recv_slice(&mut some) {
            if bytes == 0 {
                break;
            }
            all.extend_from_slice(&some[..bytes]);
            self.turn();
        }
        all
    }

    pub(crate) fn state(&mut self, handle: SocketHandle) -> State {
        self.socket(handle).state()
    }

    /// The answer to a request of these lines, on a connection of its own that ends with it.
    pub(crate) fn ask(&mut self, lines: &str) -> String {
        let handle = self.connect();
        let text = format!("{lines}\nConnection: close\n\n").replace('\n', "\r\n");
        self.send(handle, text.as_bytes());
        let answer = self.receive(handle);
        self.socket(handle).close();
        self.turn();
        self.sockets.remove(handle);
        String::from_utf8(answer).expect("text")
    }

    /// That a request is answered as ever.
    pub(crate) fn check(&mut self) {
        let answer = self.ask("GET /latest/name HTTP/1.1");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
        assert!(answer.ends_with("\r\n\r\ncoracle"), "{answer:?}");
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Packet;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Packet, Room<'_>)> {
        let packet = self.coming.pop_front()?;
        Some((Packet(packet), Room(&mut self.going)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Room<'_>> {
        Some(Room(&mut self.going))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // All sums are made and looked at.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

pub(crate) struct Packet(Vec<u8>);

impl phy::RxToken for Packet {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

pub(crate) struct Room<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        self.0.push_back(packet);
        result
    }
}
