//! How connections come about, from either side, and how they don't.

use super::*;

#[test]
fn a_guest_connects_to_a_host_program() {
    let mut machine = Machine::new();
    machine.guest.give(8, &LINUX);
    let (link, mut stream) = machine.connect(1234, 52);
    link.data(&mut machine, b"hello");
    assert_eq!(available(&mut stream), b"hello");
    stream.write_all(b"welcome").unwrap();
    machine.run();
    let (header, data) = machine.packet();
    assert_eq!(
        (header.op.get(), data.as_slice()),
        (op::RW, &b"welcome"[..])
    );
    assert_eq!(header.fwd_cnt.get(), 5);
    assert_eq!(header.buf_alloc.get(), ROOM);
    assert_eq!(machine.count("connections"), 1);
    link.send(&mut machine, op::RST, 0);
    assert!(ended(&mut stream));
    machine.nothing_more();
    assert_eq!(machine.count("connections"), 0);
}

#[test]
fn nobody_listens() {
    let mut machine = Machine::new();
    machine.guest.give(4, &LINUX);
    drop(machine.serve(7));
    for port in [7, 8, u32::MAX] {
        let link = Link {
            guest: 1,
            host: port,
        };
        link.send(&mut machine, op::REQUEST, 0);
        let reset = machine.expect(op::RST);
        assert_eq!((reset.src_port.get(), reset.dst_port.get()), (port, 1));
    }
    assert_eq!(machine.count("conns_refused"), 3);
    assert_eq!(machine.count("connections"), 0);
}

#[test]
fn a_host_program_connects_to_the_guest() {
    let mut machine = Machine::new();
    machine.guest.give(8, &LINUX);
    let (mut stream, link) = machine.ask(52);
    assert_eq!(link.host, 1 << 30);
    assert_eq!(available(&mut stream), b"");
    link.send(&mut machine, op::RESPONSE, 0);
    let line = format!("OK {}\n", link.host);
    assert_eq!(available(&mut stream), line.as_bytes());
    link.data(&mut machine, b"data");
    assert_eq!(available(&mut stream), b"data");
    let (mut other, again) = machine.ask(52);
    assert_eq!(again.host, link.host + 1);
    again.send(&mut machine, op::RST, 0);
    assert!(ended(&mut other));
    machine.nothing_more();
}

#[test]
fn a_line_may_come_in_pieces_and_with_data_behind_it() {
    let mut machine = Machine::new();
    machine.guest.give(8, &LINUX);
    let mut stream = UnixStream::connect(machine.path()).unwrap();
    for piece in ["CON", "NEC", "T 5", "2"] {
        stream.write_all(piece.as_bytes()).unwrap();
        machine.run();
        machine.nothing_more();
    }
    stream.write_all(b"\nGET / and so on").unwrap();
    machine.run();
    let request = machine.expect(op::REQUEST);
    let link = Link {
        guest: 52,
        host: request.src_port.get(),
    };
    machine.nothing_more();
    link.send(&mut machine, op::RESPONSE, 0);
    let (header, data) = machine.packet();
    assert_eq!(
        (header.op.get(), data.as_slice()),
        (op::RW, &b"GET / and so on"[..])
    );
}

#[test]
fn lines_that_are_none_end_the_connection() {
    let mut machine = Machine::new();
    machine.guest.give(8, &LINUX);
    for text in [
        "GET / HTTP/1.1\r\n",
        "CONNECT\n",
        "CONNECT x\n",
        &"C".repeat(500),
        "\n",
    ] {
        let mut stream = UnixStream::connect(machine.path()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        machine.run();
        assert!(ended(&mut stream), "{text:?}");
    }
    let quiet = UnixStream::connect(machine.path()).unwrap();
    machine.run();
    assert_eq!(machine.count("handshakes"), 1);
    drop(quiet);
    machine.run();
    assert_eq!(machine.count("handshakes"), 0);
    assert_eq!(machine.count("handshakes_failed"), 6);
    machine.nothing_more();
}

#[test]
fn without_a_driver_host_programs_are_turned_away_and_later_they_are_not() {
    let mut machine = Machine::new();
    machine.guest.driver.reset();
    let mut stream = UnixStream::connect(machine.path()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream.write_all(b"CONNECT 1\n").unwrap();
    machine.run();
    assert!(ended(&mut stream));
    machine.guest.driver.start(u64::MAX);
    machine.guest.give(1, &LINUX);
    machine.ask(1);
}

#[test]
fn half_open_handshakes_time_out() {
    let settings = Settings {
        greeting_time: Duration::ZERO,
        answer_time: Duration::ZERO,
        ..Settings::default()
    };
    let mut machine = Machine::with(settings);
    machine.guest.give(8, &LINUX);
    let mut silent = UnixStream::connect(machine.path()).unwrap();
    silent.set_nonblocking(true).unwrap();
    while !ended(&mut silent) {
        machine.run();
    }
    assert_eq!(machine.count("handshakes_failed"), 1);
    // The same with a line, but no answer.
    let mut stream = UnixStream::connect(machine.path()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream.write_all(b"CONNECT 9\n").unwrap();
    while !ended(&mut stream) {
        machine.run();
    }
    if machine.count("conns_killed") == 1 {
        machine.expect(op::REQUEST);
        machine.expect(op::RST);
    }
    machine.nothing_more();
}

/// Time limits are for those who begin or end: what is open may be silent for as long as it likes.
#[test]
fn open_connections_have_no_time_limit() {
    let settings = Settings {
        greeting_time: Duration::from_millis(200),
        answer_time: Duration::from_millis(200),
        close_time: Duration::ZERO,
        ..Settings::default()
    };
    let mut machine = Machine::with(settings);
    machine.guest.give(32, &LINUX);
    let (of_guest, mut served) = machine.connect(1, 2);
    let (mut asking, of_host) = machine.ask(9);
    of_host.send(&mut machine, op::RESPONSE, 0);
    machine.run();
    // One that is silent from the beginning shows that the limits have passed.
    let mut silent = UnixStream::connect(machine.path()).unwrap();
    silent.set_nonblocking(true).unwrap();
    while !ended(&mut silent) {
        machine.run();
    }
    assert_eq!(machine.count("connections"), 2);
    of_guest.data(&mut machine, b"still");
    of_host.data(&mut machine, b"there");
    machine.run();
    assert_eq!(available(&mut served), b"still");
    let greeting = available(&mut asking);
    assert!(greeting.starts_with(b"OK ") && greeting.ends_with(b"\nthere"));
}

#[test]
fn the_number_of_everything_is_bounded() {
    let settings = Settings {
        connections: 6,
        greetings: 3,
        ..Settings::default()
    };
    let mut machine = Machine::with(settings);
    machine.guest.give(32, &LINUX);
    let open = || UnixStream::connect(machine.path()).unwrap();
    let mut silent: Vec<UnixStream> = (0..5).map(|_| open()).collect();
    machine.run();
    assert_eq!(machine.count("handshakes"), 3);
    assert_eq!(machine.count("conns_over_limit"), 2);
    for stream in &mut silent {
        stream.set_nonblocking(true).unwrap();
    }
    assert!(ended(&mut silent[4]) && !ended(&mut silent[0]));
    let listener = machine.serve(5);
    for port in 0..8 {
        let link = Link {
            guest: port,
            host: 5,
        };
        link.send(&mut machine, op::REQUEST, 0);
        machine.expect(if port < 6 { op::RESPONSE } else { op::RST });
    }
    assert_eq!(machine.count("conns_over_limit"), 4);
    // What was accepted and not yet asked for finds no room any more.
    silent[0].write_all(b"CONNECT 1\n").unwrap();
    machine.run();
    assert!(ended(&mut silent[0]));
    machine.nothing_more();
    drop(listener);
    Link { guest: 0, host: 5 }.send(&mut machine, op::RST, 0);
    let again = Link { guest: 90, host: 5 };
    again.send(&mut machine, op::REQUEST, 0);
    machine.expect(op::RST);
    assert_eq!(machine.count("conns_refused"), 1);
}

#[test]
fn rooms_shrink_as_connections_grow_many() {
    let settings = Settings {
        connections: 8,
        room: 1000,
        small_room: 100,
        total_room: 3000,
        ..Settings::default()
    };
    let mut machine = Machine::with(settings);
    machine.guest.give(32, &LINUX);
    let _listener = machine.serve(5);
    let mut rooms = Vec::new();
    for port in 0..9 {
        let link = Link {
            guest: port,
            host: 5,
        };
        link.send(&mut machine, op::REQUEST, 0);
        let (answer, _) = machine.packet();
        if answer.op.get() == op::RESPONSE {
            rooms.push(answer.buf_alloc.get());
        }
    }
    assert_eq!(rooms, [1000, 1000, 100, 100, 100, 100, 100, 100]);
}

#[test]
fn a_reset_of_the_device_ends_all() {
    let mut machine = Machine::new();
    machine.guest.give(8, &LINUX);
    let (_, mut stream) = machine.connect(1, 2);
    let (mut other, _) = machine.ask(3);
    machine.guest.driver.reset();
    assert!(ended(&mut stream) && ended(&mut other));
    assert_eq!(machine.count("connections"), 0);
    assert!(machine.path().exists());
    let path = machine.path();
    let Machine { guest, folder } = machine;
    drop(guest);
    assert!(!path.exists());
    drop(folder);
}

#[test]
fn a_transport_reset_is_told_once_the_guest_can_hear_it() {
    let mut machine = Machine::new();
    machine.guest.give(8, &LINUX);
    let (_, mut stream) = machine.connect(1, 2);
    machine
        .guest
        .driver
        .handle
        .send(DeviceCommand::ResetTransport)
        .unwrap();
    machine.run();
    assert!(ended(&mut stream));
    machine.nothing_more();
    let driver = &mut machine.guest.driver;
    let tiny = driver.room(3);
    assert_eq!(driver.request(2, &[tiny]), Some(3), "too small to tell");
    let room = driver.room(8);
    driver.ram.write_bytes(room.at, &[0xff; 8]).unwrap();
    assert_eq!(driver.request(2, &[room]), Some(4));
    assert_eq!(driver.bytes(room), [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let more = driver.room(8);
    assert_eq!(driver.request(2, &[more]), None);
    // New connections work as ever.
    machine.connect(1, 3);
    machine.guest.driver.reset();
    let handle = machine.guest.driver.handle.clone();
    let asked = std::thread::spawn(move || handle.ask(DeviceCommand::ResetTransport));
    while !asked.is_finished() {
        machine.guest.driver.step();
    }
    assert!(matches!(asked.join().unwrap(), Err(CommandError::NoDriver)));
}
