//! The harness itself: images, waiting, terminals.

use harness::asm::Asm;
use harness::elf::{ENTRY, Elf};
use harness::pty::OnTerminal;
use harness::{guests, output::Output};
use std::process::Command;
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(10);

#[test]
fn code_is_the_documented_bytes() {
    let code = Asm::new().out_to(0x64, 0xfe);
    let again = code.here();
    let code = code.hlt().jump(again).finish();
    assert_eq!(
        code,
        [0x66, 0xba, 0x64, 0, 0xb0, 0xfe, 0xee, 0xf4, 0xeb, 0xfd]
    );
}

#[test]
fn images_have_entry_and_code_where_they_say() {
    let code = vec![1, 2, 3];
    let image = Elf::of(code.clone()).image();
    assert_eq!(image.get(..4), Some(&b"\x7fELF"[..]));
    assert_eq!(image.get(24..32), Some(&ENTRY.to_le_bytes()[..]));
    assert!(image.ends_with(&code));
    assert!(guests::virtio_probe().len() < 0x2000);
}

#[test]
fn output_is_waited_for_in_order() {
    let output = Output::collect(&b"one two"[..]);
    let end = output.wait_for(b"one", 0, SHORT).unwrap();
    assert_eq!(output.wait_for(b"one", end, SHORT), None);
    assert_eq!(output.wait_for(b"two", end, SHORT), Some(7));
    assert!(output.wait_for_end(SHORT));
}

#[test]
fn a_program_on_a_terminal_sees_its_size_and_keys() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "stty size; read line; echo got $line; stty -icanon -echo; exit 3",
    ]);
    let mut program = OnTerminal::start(&command, 101, 33).unwrap();
    program.expect("33 101", SHORT).unwrap();
    assert!(!program.is_raw().unwrap());
    program.type_keys(b"hello\n").unwrap();
    program.expect("got hello", SHORT).unwrap();
    assert_eq!(program.exit(SHORT).unwrap().code(), Some(3));
    assert!(program.is_raw().unwrap());
    assert!(!program.is_as_before().unwrap());
}
