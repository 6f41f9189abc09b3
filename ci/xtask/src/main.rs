//! `cargo xtask`: the one tool that checks, tests, measures and builds; reads and writes the
//! repository and its target directory, nothing else.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod clients;
mod deps;
mod fuzz;
mod kernel;
mod lab;
mod repo;
mod steps;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Every check, test, benchmark and build step of Coracle.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Formatting, clippy, tidy and dependency edges; builds no test
    Check,
    /// Everything: checks, unit tests, boot tests on /dev/kvm, the lab
    Test,
    /// Rules of style that no compiler checks
    Tidy,
    /// Which crate may depend on which
    Deps,
    /// Measure what is promised; prints figures beside their limits
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Programs of others against the API: published clients of Firecracker, and schemathesis
    ApiClients {
        /// Requests that schemathesis makes of each operation in each state of the machine
        #[arg(long, default_value_t = 1000)]
        cases: u32,
    },
    /// Boot guests on stock KVM inside an emulator
    Lab {
        /// Only cases whose name contains this; long ones run when no other has such a name
        #[arg(default_value = "")]
        filter: String,
    },
    /// Run one fuzz target of tests/fuzz for a number of seconds (needs the nightly toolchain)
    Fuzz {
        /// A target of tests/fuzz, or `list`
        target: String,
        /// How long to run
        #[arg(default_value_t = 60)]
        seconds: u32,
    },
    /// Build a guest kernel: the arguments go to resources/kernel/build.sh
    Kernel {
        /// Arguments of resources/kernel/build.sh
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Check => check::check(),
        Task::Test => check::test(),
        Task::Tidy => tidy::run(),
        Task::Deps => deps::run(),
        Task::Bench { bench } => bench::run(&bench),
        Task::ApiClients { cases } => clients::run(cases),
        Task::Lab { filter } => lab::run(&filter),
        Task::Fuzz { target, seconds } => fuzz::run(&target, seconds),
        Task::Kernel { arguments } => kernel::run(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
