//! `coracle-init`: PID 1 of the embedded guest, and the few commands that it is linked as.
//!
//! One file, several names: as `init` it brings the guest up and supervises the console; as
//! `poweroff` and `reboot` it asks PID 1 to stop; as `sh` it is a small shell for images that
//! carry no other. The monitor is trusted by this program; programs of the guest are not.

mod console;
mod init;
mod mounts;
mod net;
mod power;
mod shell;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    let name = called
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_start_matches('-');
    let arguments: Vec<String> = arguments.collect();
    match name {
        "poweroff" | "halt" => power::ask(power::Request::PowerOff),
        "reboot" => power::ask(power::Request::Reboot),
        "sh" => shell::main(&arguments),
        _ if std::process::id() == 1 => init::main(&arguments),
        _ => {
            eprintln!("{name}: this is PID 1 of a guest; there is one already");
            ExitCode::from(2)
        }
    }
}
