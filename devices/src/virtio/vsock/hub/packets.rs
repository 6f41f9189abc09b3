//! What the guest's packets do to connections.

use rustix::io::Errno;

use super::super::connection::{Connection, Key, Phase, due};
use super::super::counters::bump;
use super::super::wire::{HOST_CID, Header, STREAM, op};
use super::Hub;
use crate::ram::GuestRam;
use crate::virtio::Chain;

impl Hub {
    /// Takes a packet of the guest: how many bytes of data it had.
    pub(in super::super) fn packet(&mut self, ram: &GuestRam, chain: &mut Chain) -> usize {
        let Ok(header) = chain.take_header::<Header>(ram) else {
            bump(&mut self.counters.tx_malformed);
            return 0;
        };
        bump(&mut self.counters.tx_packets);
        if header.src_cid.get() != self.cid {
            // An answer would go to whoever the guest pretends to be.
            bump(&mut self.counters.tx_malformed);
            return 0;
        }
        // 5.10.6.4.2 wants a RST for an unknown type. Nobody is at another context ID.
        if header.dst_cid.get() != HOST_CID || header.kind.get() != STREAM {
            bump(&mut self.counters.violations);
            self.refuse(&header);
            return 0;
        }
        let key = Key {
            host: header.dst_port.get(),
            guest: header.src_port.get(),
        };
        match (self.keys.get(&key).copied(), header.op.get()) {
            (Some(id), op) => self.connected(id, op, &header, ram, chain),
            (None, op::REQUEST) => self.request(key, &header),
            (None, _) => self.refuse(&header),
        }
        usize::try_from(header.len.get()).unwrap_or_default()
    }

    /// Answers a packet that no connection has use for. A RST is never answered.
    fn refuse(&mut self, header: &Header) {
        if header.op.get() != op::RST {
            self.resets.push_back(header.reset());
        }
    }

    /// The guest wants to connect to a host program.
    fn request(&mut self, key: Key, header: &Header) {
        let Some(room) = self.room() else {
            bump(&mut self.counters.conns_over_limit);
            self.refuse(header);
            return;
        };
        let socket = match self.file.connect(key.host) {
            Ok(socket) => socket,
            Err(error) => {
                bump(&mut self.counters.conns_refused);
                self.explain(key.host, error);
                self.refuse(header);
                return;
            }
        };
        let counts = (room, self.settings.first_count);
        let mut connection = Connection::new(key, self.cid, socket, Phase::Open, counts);
        if connection.told(header).is_err() {
            bump(&mut self.counters.violations);
            self.refuse(header);
            return;
        }
        connection.due = due::RESPONSE;
        self.insert(connection);
    }

    /// Why a guest's connection failed, where it is not just that nobody listens.
    fn explain(&self, port: u32, error: Errno) {
        if !matches!(error, Errno::NOENT | Errno::CONNREFUSED) {
            let path = self.path().display();
            self.limit.warn(format_args!(
                "vsock: a guest's connection to {path}_{port} is refused: {error}"
            ));
        }
    }

    /// A packet of a connection.
    fn connected(&mut self, id: u64, op: u16, header: &Header, ram: &GuestRam, chain: &mut Chain) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if op == op::RST {
            self.remove(id, false);
            return;
        }
        let len = header.len.get();
        let good = connection.told(header).is_ok()
            && match (op, connection.phase) {
                (op::RESPONSE, Phase::Asking) => {
                    connection.phase = Phase::Open;
                    connection.greet()
                }
                (op::RW, Phase::Open) => {
                    let good = !connection.ends.guest_sent_all
                        && u64::from(len) <= chain.readable_bytes()
                        && connection.credit.received(len).is_ok();
                    if good {
                        connection.write(ram, chain.readable(), len, &mut self.counters);
                    }
                    good
                }
                (op::CREDIT_UPDATE, Phase::Open) => true,
                (op::CREDIT_REQUEST, Phase::Open) => {
                    connection.due |= due::CREDIT_UPDATE;
                    true
                }
                (op::SHUTDOWN, Phase::Open) => {
                    connection.shut_down(header.flags.get());
                    true
                }
                _ => false,
            };
        if !good {
            bump(&mut self.counters.violations);
            self.kill(id);
            return;
        }
        let ends = connection.ends;
        if op == op::SHUTDOWN && ends.guest_sent_all && ends.guest_is_deaf {
            self.linger(id);
        }
        self.settle(id);
    }

    /// Ends a connection for the guest. What it sent still goes to the host program.
    fn linger(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            self.keys.remove(&connection.key);
            let reset = connection.reset();
            connection.phase = Phase::Lingering;
            connection.due = 0;
            self.resets.push_back(reset);
        }
    }
}
