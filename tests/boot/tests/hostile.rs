//! Rows of the hostile table on a real machine, played by the bare test guest.

use boot_tests::code;
use harness::bare::answer::Answer;
use harness::bare::ops::Program;
use harness::{bare, guests, skip};
use hostile::lower::World;
use hostile::{Row, Transport, rows};
use std::time::Duration;

/// The memory of the machine, which [`bare::machine`] gives it.
const MEMORY: u64 = 64 << 20;
/// All rows of one device in one machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the first device of a machine is.
fn world(transport: Transport) -> World {
    let (window, config) = match transport {
        Transport::Mmio => (guests::VIRTIO_BASE.into(), None),
        // Device 1 of the bus, behind the host bridge.
        Transport::Pci => (0xd100_8000, Some(0xe000_0000 + (1 << 15))),
    };
    World {
        transport,
        base: bare::ops::LOAD,
        hole: MEMORY,
        window,
        config,
    }
}

/// Plays rows of one device: how many were right.
fn play(rows: &[Row], transport: Transport, arguments: &[&str]) -> usize {
    let mut program = Program::new();
    for (number, row) in (0..).zip(rows) {
        let steps = hostile::bare::program(row, world(transport)).expect("playable");
        program.row(number, steps);
    }
    let vm = bare::machine(&program).unwrap();
    let mut vm = vm.args(&["--transport", transport.name()]);
    for argument in arguments {
        vm = match argument.strip_prefix("{disk}") {
            Some(options) => {
                let mut disk = vm
                    .file("disk", &rows::disk_image())
                    .unwrap()
                    .into_os_string();
                disk.push(options);
                vm.arg(disk)
            }
            None => vm.arg(argument),
        };
    }
    let exit = vm.boot().unwrap().exit(PATIENCE).unwrap();
    assert_eq!(exit.code, Some(code::POWERED_OFF), "{exit:?}");
    let answer = Answer::parse(&exit.stdout).unwrap();
    let wrong: Vec<_> = answer
        .failed
        .iter()
        .map(|failure| {
            let row = &rows[usize::try_from(failure.row).unwrap()];
            let act = hostile::bare::program(row, world(transport)).unwrap();
            let act = act.get(usize::try_from(failure.step).unwrap());
            format!("{}: {}: {act:?}: {failure}", row.id, row.about)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    answer.passed.len()
}

#[test]
fn rows_are_right_over_mmio() {
    all_rows(Transport::Mmio);
}

#[test]
fn rows_are_right_over_pci() {
    all_rows(Transport::Pci);
}

fn all_rows(transport: Transport) {
    if skip::without_kvm() {
        return;
    }
    let mut played = 0;
    for subject in rows::subjects() {
        let Some(arguments) = subject.boot else {
            continue;
        };
        let rows: Vec<Row> = rows::all()
            .into_iter()
            .filter(|row| row.subject.name == subject.name)
            .filter(|row| row.only.is_none_or(|only| only == transport))
            .filter(|row| hostile::bare::program(row, world(transport)).is_some())
            .collect();
        let right = play(&rows, transport, arguments);
        let name = transport.name();
        println!("hostile on KVM, {name} {subject:?}: {right} rows, 0 wrong");
        assert_eq!(right, rows.len());
        played += right;
    }
    assert!(played >= 100, "{played}");
}
