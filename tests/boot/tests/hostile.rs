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

fn world() -> World {
    World {
        transport: Transport::Mmio,
        base: bare::ops::LOAD,
        hole: MEMORY,
        window: guests::VIRTIO_BASE.into(),
    }
}

/// Plays rows of one device: how many were right.
fn play(rows: &[Row], arguments: &[&str]) -> usize {
    let mut program = Program::new();
    for (number, row) in (0..).zip(rows) {
        let steps = hostile::bare::program(row, world()).expect("playable");
        program.row(number, steps);
    }
    let mut vm = bare::machine(&program).unwrap();
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
            let act = hostile::bare::program(row, world()).unwrap();
            let act = act.get(usize::try_from(failure.step).unwrap());
            format!("{}: {}: {act:?}: {failure}", row.id, row.about)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    answer.passed.len()
}

#[test]
fn rows_are_right_on_a_real_machine() {
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
            .filter(|row| row.only != Some(Transport::Pci))
            .filter(|row| hostile::bare::program(row, world()).is_some())
            .collect();
        let right = play(&rows, arguments);
        println!("hostile on KVM, {}: {right} rows, 0 wrong", subject.name);
        assert_eq!(right, rows.len());
        played += right;
    }
    assert!(played >= 100, "{played}");
}
