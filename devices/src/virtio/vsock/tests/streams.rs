//! Streams: exact to the byte, whatever their pieces, and their ends.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[test]
fn the_guest_ends_its_half_first() {
    let mut machine = Machine::new();
    machine.guest.give(16, &LINUX);
    let (link, mut stream) = machine.connect(1, 2);
    link.data(&mut machine, b"question");
    link.send(&mut machine, op::SHUTDOWN, SHUTDOWN_SEND);
    assert_eq!(available(&mut stream), b"question");
    assert!(ended(&mut stream));
    stream.write_all(b"answer").unwrap();
    machine.run();
    assert_eq!(machine.packet().1, b"answer");
    stream.shutdown(Shutdown::Write).unwrap();
    machine.run();
    let shutdown = machine.expect(op::SHUTDOWN);
    assert_ne!(shutdown.flags.get() & SHUTDOWN_SEND, 0);
    link.send(&mut machine, op::SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    machine.expect(op::RST);
    machine.nothing_more();
    assert_eq!(machine.count("connections"), 0);
    assert_eq!(machine.count("conns_killed"), 0);
}

#[test]
fn the_host_program_ends_its_half_first() {
    let mut machine = Machine::new();
    machine.guest.give(16, &LINUX);
    let (link, mut stream) = machine.connect(1, 2);
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    machine.run();
    assert_eq!(machine.packet().1, b"question");
    let shutdown = machine.expect(op::SHUTDOWN);
    assert_eq!(shutdown.flags.get(), SHUTDOWN_SEND);
    link.data(&mut machine, b"answer");
    link.data(&mut machine, b" and more");
    assert_eq!(available(&mut stream), b"answer and more");
    link.send(&mut machine, op::SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    machine.expect(op::RST);
    assert!(ended(&mut stream));
}

#[test]
fn the_host_program_stops_reading() {
    let mut machine = Machine::new();
    machine.guest.give(16, &LINUX);
    let (link, mut stream) = machine.connect(1, 2);
    stream.shutdown(Shutdown::Read).unwrap();
    link.data(&mut machine, b"lost");
    let shutdown = machine.expect(op::SHUTDOWN);
    assert_eq!(shutdown.flags.get(), SHUTDOWN_RECEIVE);
    // What was under way is lost without harm.
    link.data(&mut machine, b"lost too");
    stream.write_all(b"still here").unwrap();
    machine.run();
    assert_eq!(machine.packet().1, b"still here");
    drop(stream);
    machine.run();
    let shutdown = machine.expect(op::SHUTDOWN);
    assert_eq!(shutdown.flags.get(), SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    link.send(&mut machine, op::RST, 0);
    machine.nothing_more();
}

#[test]
fn the_guest_stops_reading() {
    let mut machine = Machine::new();
    machine.guest.give(16, &LINUX);
    let (link, mut stream) = machine.connect(1, 2);
    link.send(&mut machine, op::SHUTDOWN, SHUTDOWN_RECEIVE);
    assert_eq!(
        stream.write(b"x").unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    machine.run();
    machine.nothing_more();
    link.data(&mut machine, b"still here");
    assert_eq!(available(&mut stream), b"still here");
    assert!(!ended(&mut stream));
    link.send(&mut machine, op::SHUTDOWN, SHUTDOWN_SEND);
    machine.expect(op::RST);
    assert!(ended(&mut stream));
}

#[test]
fn a_host_program_that_leaves_is_told_and_waited_for() {
    let settings = Settings {
        close_time: Duration::ZERO,
        ..Settings::default()
    };
    let mut machine = Machine::with(settings);
    machine.guest.give(16, &LINUX);
    let (_, mut stream) = machine.connect(1, 2);
    stream.write_all(b"last words").unwrap();
    drop(stream);
    machine.run();
    assert_eq!(machine.packet().1, b"last words");
    machine.expect(op::SHUTDOWN);
    // The guest never answers.
    while machine.count("connections") > 0 {
        machine.run();
    }
    machine.expect(op::RST);
    machine.nothing_more();
}

#[test]
fn a_slow_host_program_gets_all_that_a_guest_left_behind() {
    let mut machine = Machine::new();
    machine.guest.give(16, &LINUX);
    let (link, mut stream) = machine.connect(1, 2);
    let mut sent = 0;
    while machine.count("tx_bytes_waiting") == 0 {
        link.data(&mut machine, &[9; 10_000]);
        sent += 10_000;
        while machine.guest.receive().is_some() {}
        machine.guest.give(4, &LINUX);
    }
    link.send(&mut machine, op::SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    machine.expect(op::RST);
    // The guest may use the port again at once.
    let request = link.header(&machine, op::REQUEST);
    assert!(machine.guest.send(&request, &[]));
    let (answer, _) = machine.packet();
    assert_eq!(answer.op.get(), op::RST, "the listener is gone");
    let mut got = 0;
    while !ended_or(&mut stream, &mut got) {
        machine.run();
    }
    assert_eq!(got, sent);
    machine.run();
    assert_eq!(machine.count("connections"), 0);
}

/// Reads what is there: whether the stream has ended.
fn ended_or(stream: &mut UnixStream, got: &mut usize) -> bool {
    let mut chunk = [0; 3000];
    match stream.read(&mut chunk) {
        Ok(0) => true,
        Ok(len) => {
            *got += len;
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

#[test]
fn credit_is_asked_for_once() {
    let mut machine = Machine::new();
    machine.guest.give(16, &LINUX);
    let (link, mut stream) = machine.connect(1, 2);
    link.credit(&mut machine, 2000, 0);
    stream.write_all(&[3; 5000]).unwrap();
    machine.run();
    assert_eq!(machine.packet().1.len(), 2000);
    machine.expect(op::CREDIT_REQUEST);
    machine.nothing_more();
    link.credit(&mut machine, 2000, 800);
    machine.run();
    assert_eq!(machine.packet().1.len(), 800);
    machine.expect(op::CREDIT_REQUEST);
    link.credit(&mut machine, 2000, 800);
    machine.run();
    machine.nothing_more();
    assert!(!machine.guest.driver.step(), "it waits");
    link.credit(&mut machine, 20_000, 2800);
    machine.run();
    assert_eq!(machine.packet().1.len(), 2200);
    machine.nothing_more();
    // The same the other way.
    link.data(&mut machine, b"abc");
    link.send(&mut machine, op::CREDIT_REQUEST, 0);
    let update = machine.expect(op::CREDIT_UPDATE);
    assert_eq!((update.buf_alloc.get(), update.fwd_cnt.get()), (ROOM, 3));
}

/// A guest that keeps to the rules, and a host program: what each has sent and got.
struct Pipe {
    machine: Machine,
    link: Link,
    stream: UnixStream,
    // The guest's credit.
    first: u32,
    room: u32,
    got: Vec<u8>,
    read: usize,
    told: usize,
    sent: usize,
    peer_room: usize,
    peer_forwarded: u32,
    // The host program's.
    host_sent: usize,
    host_got: Vec<u8>,
    data: Vec<u8>,
}

impl Pipe {
    fn new(first: u32, room: u32, data: Vec<u8>) -> Self {
        let settings = Settings {
            first_count: first,
            ..Settings::default()
        };
        let mut machine = Machine::with(settings);
        machine.guest.give(1, &[44, 100]);
        let listener = machine.serve(2);
        let link = Link { guest: 1, host: 2 };
        let request = Header {
            buf_alloc: room.into(),
            fwd_cnt: first.into(),
            ..link.header(&machine, op::REQUEST)
        };
        assert!(machine.guest.send(&request, &[]));
        let response = machine.expect(op::RESPONSE);
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        Self {
            machine,
            link,
            stream,
            first,
            room,
            got: Vec::new(),
            read: 0,
            told: 0,
            sent: 0,
            peer_room: response.buf_alloc.get().try_into().unwrap(),
            peer_forwarded: response.fwd_cnt.get(),
            host_sent: 0,
            host_got: Vec::new(),
            data,
        }
    }

    fn done(&self) -> bool {
        self.host_got.len() == self.data.len() && self.got.len() == self.data.len()
    }

    fn at(&self, count: usize) -> u32 {
        let count = u32::try_from(count & 0xffff_ffff).unwrap();
        self.first.wrapping_add(count)
    }

    fn header(&mut self, op: u16) -> Header {
        self.told = self.read;
        Header {
            buf_alloc: self.room.into(),
            fwd_cnt: self.at(self.read).into(),
            ..self.link.header(&self.machine, op)
        }
    }

    /// The guest sends what it may, at most `size`, cut at `cuts`.
    fn guest_sends(&mut self, size: usize, cuts: &[usize]) {
        let under_way = self.at(self.sent).wrapping_sub(self.peer_forwarded);
        let free = self.peer_room - usize::try_from(under_way).unwrap();
        let len = size.min(free).min(self.data.len() - self.sent);
        if len == 0 {
            return;
        }
        let header = Header {
            len: u32::try_from(len).unwrap().into(),
            ..self.header(op::RW)
        };
        let data = self.data[self.sent..self.sent + len].to_vec();
        self.machine.guest.add_packet(&header, &data, cuts);
        assert_eq!(self.machine.guest.ring(), 1);
        self.sent += len;
    }

    /// The guest takes packets, hands `size` bytes on and gives a buffer of these pieces.
    fn guest_receives(&mut self, size: usize, shape: &[u32]) {
        while let Some((header, data)) = self.machine.guest.receive() {
            assert_ne!(header.op.get(), op::RST);
            self.peer_forwarded = header.fwd_cnt.get();
            self.got.extend(data);
            assert!(self.got.len() - self.read <= usize::try_from(self.room).unwrap());
            if header.op.get() == op::CREDIT_REQUEST {
                let update = self.header(op::CREDIT_UPDATE);
                assert!(self.machine.guest.send(&update, &[]));
            }
        }
        self.read = self.got.len().min(self.read + size);
        // As Linux does: told when little is free as far as the other side knows, or all is.
        let room = usize::try_from(self.room).unwrap();
        let all = self.read == self.got.len() && self.read > self.told;
        if all || room - (self.read - self.told) < room / 2 + 1 {
            let update = self.header(op::CREDIT_UPDATE);
            assert!(self.machine.guest.send(&update, &[]));
        }
        if self.machine.guest.given() < 8 {
            self.machine.guest.give(1, shape);
        }
    }

    fn host_moves(&mut self, write: usize, read: usize) {
        let left = &self.data[self.host_sent..];
        match self.stream.write(&left[..write.min(left.len())]) {
            Ok(len) => self.host_sent += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let mut chunk = vec![0; read];
        match self.stream.read(&mut chunk) {
            Ok(len) => self.host_got.extend(&chunk[..len]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        self.machine.run();
    }

    fn check(&self) {
        assert!(
            self.host_got == self.data,
            "the host program got something else"
        );
        assert!(self.got == self.data, "the guest got something else");
    }
}

/// Bytes that repeat nowhere near.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..len).map(|_| next()).collect()
}

#[derive(Clone, Debug)]
enum Step {
    GuestSends(usize, Vec<usize>),
    GuestReceives(usize, Vec<u32>),
    HostMoves(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let cuts = prop::collection::vec(1_usize..4000, 0..6);
    let shape = prop::collection::vec(1_u32..5000, 1..6);
    prop_oneof![
        (1_usize..70_000, cuts).prop_map(|(size, cuts)| Step::GuestSends(size, cuts)),
        (0_usize..70_000, shape).prop_map(|(size, shape)| Step::GuestReceives(size, shape)),
        (0_usize..300_000, 0_usize..100_000).prop_map(|(w, r)| Step::HostMoves(w, r)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A stream is a pipe, both ways at once, under any credit and any pieces, and wherever the
    /// counters of credit stand.
    #[test]
    fn a_stream_is_a_pipe(
        before_the_turn in 0_u32..2_000_000,
        room in prop_oneof![1_u32..2000, 2000_u32..300_000],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        // So that a guest with little room is not at it for ever.
        let amount = (usize::try_from(room).unwrap() * 300).min(600_000);
        let mut pipe = Pipe::new(0_u32.wrapping_sub(before_the_turn), room, bytes(amount));
        let mut steps: VecDeque<Step> = steps.into();
        for count in 0_u32.. {
            if pipe.done() {
                break;
            }
            prop_assert!(count < 400_000, "it stands still");
            // The same again and again, with something of everything between.
            let step = steps.pop_front().unwrap();
            match &step {
                Step::GuestSends(size, cuts) => pipe.guest_sends(*size, cuts),
                Step::GuestReceives(size, shape) => pipe.guest_receives(*size, shape),
                Step::HostMoves(write, read) => pipe.host_moves(*write, *read),
            }
            steps.push_back(step);
            if count % 16 == 15 {
                pipe.guest_sends(50_000, &[]);
                pipe.guest_receives(100_000, &[44, 4096]);
                pipe.host_moves(100_000, 100_000);
            }
        }
        pipe.check();
    }
}

#[test]
fn thirty_two_mebibytes_both_ways_over_the_turn_of_the_counters() {
    let mut pipe = Pipe::new(u32::MAX - (9 << 20), ROOM, bytes(32 << 20));
    let mut rounds = 0;
    while !pipe.done() {
        rounds += 1;
        assert!(rounds < 100_000, "it stands still");
        pipe.guest_sends(65_536, &[44, 32_768]);
        for _ in 0..8 {
            pipe.guest_receives(65_536, &[44, 16_384]);
        }
        pipe.host_moves(200_000, 200_000);
    }
    pipe.check();
}
