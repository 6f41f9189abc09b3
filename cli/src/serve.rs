//! A monitor whose machine is described through its API: it waits for the start, tries it, and
//! waits again if that fails.

use std::path::Path;

use api::error::{ApiError, Code};
use api::socket::Listener;
use api::spec::MachineSpec;
use vmm::machine::{self, Description, Front, Machine, Preparation, Prepared};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::launch::{Opening, exit_of, front};
use crate::net::Helpers;

/// Serves on the socket at `path` until the machine, which is called `id`, has come to its end.
pub(crate) fn serve(path: &Path, id: Option<String>) -> Result<Exit, Failure> {
    let mut preparation = Preparation::new()?;
    let listener = Listener::bind(path)?;
    let mut front = front(listener, Description::new(id, bare()));
    loop {
        if preparation.serve(&mut front)? == Prepared::Stop {
            return Ok(Exit::Done);
        }
        match start(&front) {
            Ok((mut machine, _helpers)) => {
                machine.serve(front);
                return Ok(exit_of(machine.run()?));
            }
            Err(failure) => front.not_started(failure.into()),
        }
    }
}

/// The machine that nobody has described yet: without devices, as Firecracker's clients expect it.
fn bare() -> MachineSpec {
    MachineSpec {
        memory: Some(api::spec::SizeSpec::Text("128M".to_owned())),
        rng: false,
        ..MachineSpec::default()
    }
}

/// Starts the machine, with what has to live as long as it does.
fn start(front: &Front) -> Result<(Machine, Helpers), Failure> {
    let opening = Opening::begin(front.spec(), front.metadata().clone())?;
    let (setup, helpers) = opening.finish()?;
    Ok((machine::start(setup)?, helpers))
}

/// Why a machine was not started, as an error of the API.
impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let code = match failure.exit {
            Exit::BadInput => Code::InvalidValue,
            _ => Code::HostFailure,
        };
        Self::new(code, failure.message, failure.hint)
    }
}
