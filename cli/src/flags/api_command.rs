//! `coracle api`: the API as programs read it. The documents are made of the types, by a test of
//! the crate `api`, and are part of the program as they were committed.

use clap::{Args, Subcommand};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::print;

/// Describe the API of a machine to programs
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    Openapi(Openapi),
}

/// Print the OpenAPI document
#[derive(Debug, Args)]
struct Openapi {
    /// Of which language: coracle or firecracker
    #[arg(long, value_name = "NAME", default_value = "coracle")]
    dialect: String,
}

impl Flags {
    /// Prints it.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let Commands::Openapi(flags) = &self.command;
        print::out(document(&flags.dialect)?)?;
        Ok(Exit::Done)
    }
}

fn document(dialect: &str) -> Result<&'static str, Failure> {
    match dialect {
        "coracle" => Ok(include_str!("../../../resources/openapi/coracle.json")),
        "firecracker" => Ok(include_str!("../../../resources/openapi/firecracker.json")),
        other => Err(Failure::input(
            format!("--dialect {other:?} is none of the API's languages"),
            "give coracle or firecracker",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_documents_are_there() {
        for (dialect, path) in [
            ("coracle", "/coracle/v1/machine"),
            ("firecracker", "/machine-config"),
        ] {
            let text = document(dialect).unwrap();
            let document: serde_json::Value = serde_json::from_str(text).unwrap();
            assert!(document["paths"].get(path).is_some(), "{dialect}");
        }
        assert!(document("Coracle").is_err());
    }
}
