//! `coracle`: Linux in a microVM, from one command.
#![forbid(unsafe_code)]

mod disk;
mod embedded;
mod exit;
mod failure;
mod flags;
mod input;
mod kernel_check;
mod launch;
mod logger;
mod machines;
mod net;
mod print;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use exit::Exit;
use failure::Failure;
use flags::Command;

fn main() -> ExitCode {
    let exit = match run(std::env::args_os()) {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    };
    exit.into()
}

fn run(arguments: impl Iterator<Item = OsString>) -> Result<Exit, Failure> {
    match flags::parse(arguments)? {
        Command::Api(flags) => flags.run(),
        Command::Boot(flags) => flags.run(),
        Command::Disk(flags) => flags.run(),
        Command::Doctor(flags) => flags.run(),
        Command::Kernel(flags) => flags.run(),
        Command::Machine(flags) => flags.run(),
        Command::Net(flags) => flags.run(),
        Command::Usernet(level) => net::user::serve(level.as_deref()),
        Command::Version(flags) => flags.run(),
        Command::Vmm(flags) => flags.run(),
        Command::Help(text) => print::out(&text).map(|()| Exit::Done),
    }
}
