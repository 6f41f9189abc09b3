//! Raw mode and its ends, output that nobody takes, input with escapes, pseudoterminals.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize};

use super::*;
use crate::line::{Reports, report_line};

/// A terminal as a user has it: its near end and its far end.
fn user_terminal() -> (File, File) {
    let (pty, [near, ..]) = pty::open().unwrap();
    let far = OpenOptions::new()
        .read(true)
        .write(true)
        .open(pty.path())
        .unwrap();
    let mut modes = tcgetattr(&far).unwrap();
    modes.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    modes.output_modes |= OutputModes::OPOST;
    rustix::termios::tcsetattr(&far, rustix::termios::OptionalActions::Now, &modes).unwrap();
    (near, far)
}

fn is_raw(terminal: &File) -> bool {
    let modes = tcgetattr(terminal).unwrap();
    let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    let input = modes.local_modes.intersects(cooked);
    let output = modes.output_modes.contains(OutputModes::OPOST);
    assert_eq!(input, output, "raw in one direction only");
    !input
}

#[test]
fn raw_mode_ends_when_dropped_and_when_asked_to() {
    let (_near, far) = user_terminal();
    let raw = RawMode::enter(far.as_fd()).unwrap().unwrap();
    assert!(is_raw(&far));
    drop(raw);
    assert!(!is_raw(&far));
    let raw = RawMode::enter(far.as_fd()).unwrap().unwrap();
    raw.restorer().restore();
    assert!(!is_raw(&far));
    raw.restorer().restore();
}

#[test]
fn raw_mode_ends_when_a_thread_panics() {
    let (_near, far) = user_terminal();
    let _raw = RawMode::enter(far.as_fd()).unwrap().unwrap();
    std::thread::spawn(|| panic!("on purpose, to see the terminal restored"))
        .join()
        .unwrap_err();
    assert!(!is_raw(&far));
}

#[test]
fn what_is_no_terminal_has_no_raw_mode() {
    let (reader, _writer) = io::pipe().unwrap();
    assert!(RawMode::enter(reader.as_fd()).unwrap().is_none());
}

#[test]
fn a_closed_pipe_drops_output_instead_of_failing() {
    let (reader, writer) = io::pipe().unwrap();
    let file = File::from(OwnedFd::from(writer));
    let mut output = ConsoleOutput::new(file, "a pipe", WhenFull::Wait).unwrap();
    output.write_all(b"heard").unwrap();
    let mut heard = [0; 5];
    (&reader).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"heard");
    drop(reader);
    for _ in 0..1000 {
        output.clone().write_all(b"lost").unwrap();
    }
    ConsoleOutput::nowhere().write_all(b"lost").unwrap();
}

#[test]
fn a_full_disk_drops_output_instead_of_failing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut output = ConsoleOutput::new(full, "/dev/full", WhenFull::Wait).unwrap();
    output.write_all(b"lost").unwrap();
}

/// A pipe's output as standard output has it.
fn piped() -> (io::PipeReader, ConsoleOutput) {
    let (reader, writer) = io::pipe().unwrap();
    let shared = File::from(OwnedFd::from(writer));
    let file = output::non_blocking(shared.try_clone().unwrap());
    let of_shell = rustix::fs::fcntl_getfl(&shared).unwrap();
    assert!(
        !of_shell.contains(rustix::fs::OFlags::NONBLOCK),
        "left as it was"
    );
    assert!(
        rustix::fs::fcntl_getfl(&file)
            .unwrap()
            .contains(rustix::fs::OFlags::NONBLOCK)
    );
    (
        reader,
        ConsoleOutput::new(file, "a pipe", WhenFull::Wait).unwrap(),
    )
}

#[test]
fn a_slow_reader_loses_nothing() {
    let (reader, mut output) = piped();
    let listener = std::thread::spawn(move || {
        let mut heard = Vec::new();
        (&reader).read_to_end(&mut heard).unwrap();
        heard.len()
    });
    output.write_all(&[7; 1 << 20]).unwrap();
    drop(output);
    assert_eq!(listener.join().unwrap(), 1 << 20);
}

#[test]
fn a_reader_that_stopped_does_not_hold_up_the_end() {
    let (_reader, output) = piped();
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let mut output = output.clone();
            std::thread::spawn(move || output.write_all(&[7; 1 << 20]).unwrap())
        })
        .collect();
    let begun = Instant::now();
    let grace = Duration::from_millis(50);
    output.finish_within(grace);
    output.finish_within(Duration::from_secs(600));
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    assert!(begun.elapsed() >= grace, "as long as it was given");
    assert!(begun.elapsed() < Duration::from_secs(60));
    output.clone().write_all(&[7; 1 << 20]).unwrap();
}

#[test]
fn what_was_taken_in_time_is_whole() {
    let (reader, mut output) = piped();
    output.finish_within(Duration::from_secs(60));
    let listener = std::thread::spawn(move || {
        let mut heard = Vec::new();
        (&reader).read_to_end(&mut heard).unwrap();
        heard.len()
    });
    output.write_all(&[7; 1 << 20]).unwrap();
    drop(output);
    assert_eq!(listener.join().unwrap(), 1 << 20);
}

fn input(text: &[u8], escapes: bool) -> (ConsoleInput, File, Reports<UserRequest>) {
    let (reader, writer) = io::pipe().unwrap();
    File::from(OwnedFd::from(writer)).write_all(text).unwrap();
    let (help_reader, help_writer) = io::pipe().unwrap();
    let help = OwnedFd::from(help_writer).into();
    let output = ConsoleOutput::new(help, "a pipe", WhenFull::Wait).unwrap();
    let (requests, asked) = report_line().unwrap();
    let escapes = escapes.then(|| (EscapeFilter::default(), output));
    let input = ConsoleInput::new(OwnedFd::from(reader).into(), escapes, requests).unwrap();
    (input, OwnedFd::from(help_reader).into(), asked)
}

#[test]
fn escapes_split_over_reads_reach_the_monitor_and_not_the_guest() {
    let (mut input, mut help, asked) = input(b"a\x1dpb\x1d?c\x1d\x1d\x1dq", true);
    let mut bytes = Vec::new();
    while input.read(1, &mut bytes) == InputState::Open {}
    assert_eq!(bytes, b"abc\x1d");
    assert_eq!(asked.take(), Some(UserRequest::PowerButton));
    assert_eq!(asked.take(), Some(UserRequest::Quit));
    assert_eq!(asked.take(), None);
    drop(input);
    let mut printed = String::new();
    help.read_to_string(&mut printed).unwrap();
    assert_eq!(printed, ESCAPE_HELP);
}

#[test]
fn without_a_terminal_all_bytes_pass() {
    let text = b"a\x1dq\x1dp\x1d?";
    let (mut input, _, asked) = input(text, false);
    let mut bytes = Vec::new();
    assert_eq!(input.read(3, &mut bytes), InputState::Open);
    assert_eq!(bytes, &text[..3], "no more than there is room for");
    while input.read(64, &mut bytes) == InputState::Open {}
    assert_eq!(bytes, text);
    assert_eq!(asked.take(), None);
}

#[test]
fn a_pseudoterminal_carries_both_ways_and_outlives_its_readers() {
    let mut terminal = Terminal::pty().unwrap();
    let (requests, _asked) = report_line().unwrap();
    let mut input = terminal.take_input(requests.clone()).unwrap();
    assert!(
        terminal.take_input(requests).is_none(),
        "only one device gets the input"
    );
    let mut bytes = Vec::new();
    for round in 0..2 {
        let path = terminal.pty_path().unwrap();
        let mut user = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        terminal.output().write_all(b"login: ").unwrap();
        let mut seen = [0; 7];
        user.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"login: ");
        user.write_all(b"root\r").unwrap();
        assert_eq!(input.read(64, &mut bytes), InputState::Open);
        assert_eq!(bytes, b"root\r".repeat(round + 1), "and nothing is echoed");
    }
    assert_eq!(
        input.read(64, &mut bytes),
        InputState::Open,
        "nobody there is no end"
    );
    terminal.output().write_all(&vec![b'x'; 1 << 20]).unwrap();
    assert_eq!(
        terminal.window_size(),
        None,
        "no size until somebody gives it one"
    );
    let size = Winsize {
        ws_row: 50,
        ws_col: 132,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal.window.as_ref().unwrap(), size).unwrap();
    assert_eq!(
        terminal.window_size(),
        Some(WindowSize {
            columns: 132,
            rows: 50
        })
    );
}

#[test]
fn files_take_output_and_give_no_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.log");
    std::fs::write(&path, "old and longer than the new text").unwrap();
    let mut terminal = Terminal::file(&path).unwrap();
    terminal.output().write_all(b"booted\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "booted\n");
    let (requests, _asked) = report_line().unwrap();
    assert!(terminal.take_input(requests).is_none());
    assert!(terminal.restorer().is_none() && terminal.pty_path().is_none());
    assert_eq!(terminal.window_size(), None);
    let error = Terminal::file(folder.path()).unwrap_err();
    assert!(error.to_string().contains(folder.path().to_str().unwrap()));
}

#[test]
fn devices_that_share_a_slow_output_lose_nothing_and_keep_their_order() {
    let (mut reader, output) = piped();
    let (mut waiting, mut offering) = (output.clone(), output);
    // As the serial port does: byte by byte, waiting.
    let serial = std::thread::spawn(move || {
        for n in 0..100_000_u32 {
            waiting.write_all(&[n.to_le_bytes()[0] & 0x7f]).unwrap();
        }
    });
    let room = offering.room().unwrap().unwrap();
    let sent: Vec<u8> = (0..100_000_u32)
        .map(|n| n.to_le_bytes()[0] | 0x80)
        .collect();
    let (full, is_full) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        let mut at = 0;
        while at < sent.len() {
            let Offered { written, dropped } = offering.offer(&sent[at..]);
            assert_eq!(dropped, 0);
            at += written;
            if written == 0 {
                full.send(()).unwrap();
                let mut fds = [PollFd::new(&room, PollFlags::OUT)];
                poll(&mut fds, None).unwrap();
            }
        }
    });
    is_full.recv_timeout(Duration::from_secs(10)).unwrap();
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).unwrap();
    serial.join().unwrap();
    other.join().unwrap();
    for bit in [0, 0x80] {
        let of_one: Vec<u8> = heard.iter().copied().filter(|b| b & 0x80 == bit).collect();
        let expected = (0..100_000_u32).map(|n| n.to_le_bytes()[0] & 0x7f | bit);
        assert!(of_one.into_iter().eq(expected), "{bit:#x}");
    }
}

#[test]
fn one_that_waits_keeps_nobody_from_offering() {
    let (_reader, output) = piped();
    let mut waiting = output.clone();
    let writer = std::thread::spawn(move || waiting.write_all(&[7; 1 << 20]).unwrap());
    let mut offering = output.clone();
    while offering.offer(b"x") != Offered::default() {}
    assert_eq!(offering.offer(b"x"), Offered::default(), "at once");
    assert!(!offering.wait_at_the_end(), "it is not the end");
    output.finish_within(Duration::ZERO);
    assert!(!offering.wait_at_the_end(), "and then it is over");
    writer.join().unwrap();
}

#[test]
fn a_terminal_that_hangs_up_ends_input_and_output() {
    let (near, far) = user_terminal();
    let mut output = Terminal::piped_output(far.try_clone().unwrap());
    output.write_all(b"hello").unwrap();
    let mut terminal = Terminal::typing(far);
    let (requests, _asked) = report_line().unwrap();
    let mut input = InputBuffer::new(Box::new(terminal.take_input(requests).unwrap()));
    drop(near);
    // All other handles to the near end are gone with the pseudoterminal's.
    input.read(0);
    assert!(!input.wants(64), "nothing is waited for any more");
    let lost = Offered {
        written: 0,
        dropped: 4,
    };
    assert_eq!(output.offer(b"lost"), lost);
    output.write_all(&[7; 1 << 20]).unwrap();
    assert_eq!(output.room().unwrap().map(drop), None);
}

#[test]
fn an_output_that_blocks_is_offered_no_more_than_it_takes() {
    let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut output = Terminal::piped_output(OwnedFd::from(writer).into());
    let mut sent = 0;
    loop {
        let Offered { written, dropped } = output.offer(&[7; 10_000]);
        assert_eq!(dropped, 0);
        sent += written;
        if written < 10_000 {
            break;
        }
    }
    drop(output);
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).unwrap();
    assert_eq!(heard.len(), sent);
}
