//! A monitor whose machine is described through its API: it waits for the start, tries it, and
//! waits again if that fails.

use std::path::{Path, PathBuf};

use api::error::{ApiError, Code};
use api::firecracker::{COMPATIBLE_VERSION, Metrics};
use api::request::Restoration;
use api::server::{Limits, Server};
use api::socket::Listener;
use api::spec::{MachineSpec, SizeSpec, Transport};
use vmm::machine::{self, Description, Front, Machine, Metadata, Preparation, Prepared};
use vmm::snapshot::Target;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::flags::mmds;
use crate::launch::{self, Opening, exit_of};
use crate::net::Helpers;
use crate::{input, logger};

/// How a monitor serves.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where the API is, if anywhere.
    pub(crate) api_sock: Option<PathBuf>,
    /// The machine's name.
    pub(crate) id: Option<String>,
    /// A file that describes the machine, which is then started at once.
    pub(crate) config_file: Option<PathBuf>,
    /// Where counters are written.
    pub(crate) metrics_path: Option<PathBuf>,
    /// A file of metadata that the guest can read.
    pub(crate) metadata: Option<PathBuf>,
    /// How much metadata there may be.
    pub(crate) most_metadata_bytes: Option<usize>,
    /// How long a request's body may be.
    pub(crate) most_body_bytes: Option<usize>,
    /// Whether the virtio devices are on a PCI bus.
    pub(crate) pci: bool,
    /// Whether to end as Firecracker does: at once when asked to, and with its exit codes.
    pub(crate) firecracker: bool,
}

/// Serves until the machine has come to its end.
pub(crate) fn serve(settings: &Settings) -> Result<Exit, Failure> {
    let firecracker = settings.firecracker;
    if firecracker {
        log::info!("Running Firecracker v{COMPATIBLE_VERSION}");
    }
    let mut preparation = Preparation::new()?;
    let mut front = front(settings)?;
    if let Some(path) = &settings.metrics_path {
        front.count(&Metrics::at(path))?;
    }
    let mut next = None;
    if let Some(path) = &settings.config_file {
        configure(&mut front, path)?;
        next = Some(Prepared::Start);
    }
    loop {
        let begun = match next.take() {
            Some(prepared) => prepared,
            None => preparation.serve(&mut front)?,
        };
        let started = match begun {
            Prepared::Stop => return Ok(Exit::Done),
            Prepared::Start => start(&front),
            Prepared::Load(from) => restore(&mut front, &from),
        };
        match started {
            Ok((mut machine, _helpers)) => {
                machine.serve(front);
                let ended = exit_of(machine.run()?);
                return Ok(if firecracker { Exit::Done } else { ended });
            }
            // Nobody waits for an answer about what a file describes.
            Err(failure) if settings.config_file.is_some() => return Err(failure),
            Err(failure) => front.not_started(failure.into()),
        }
    }
}

fn front(settings: &Settings) -> Result<Front, Failure> {
    let listener = settings
        .api_sock
        .as_deref()
        .map(Listener::bind)
        .transpose()?;
    let mut limits = Limits::default();
    limits.body = settings.most_body_bytes.unwrap_or(limits.body);
    let metadata = Metadata::new(settings.most_metadata_bytes.unwrap_or(limits.body));
    if let Some(path) = &settings.metadata {
        mmds::fill(&metadata, path)?;
    }
    let server = Server::new(listener, limits);
    let description = Description::new(settings.id.clone(), bare(settings));
    let description = description.with_metadata(metadata);
    Ok(Front::new(server, description, logger::set_up))
}

/// The machine that nobody has described yet: without devices, as Firecracker's clients expect it.
fn bare(settings: &Settings) -> MachineSpec {
    let machine = MachineSpec {
        memory: Some(SizeSpec::Text("128M".to_owned())),
        rng: false,
        ..MachineSpec::default()
    };
    MachineSpec {
        transport: match settings.pci {
            true => Transport::Pci,
            false => machine.transport,
        },
        stop_timeout_ms: match settings.firecracker {
            true => 0,
            false => machine.stop_timeout_ms,
        },
        ..machine
    }
}

fn configure(front: &mut Front, path: &Path) -> Result<(), Failure> {
    let text = input::read(
        "config file",
        path,
        "give a JSON file that describes a machine",
    )?;
    front.configure(text.as_bytes()).map_err(|error| {
        let message = format!("config file {}: {}", path.display(), error.message);
        Failure::input(message, error.hint)
    })
}

/// Starts the machine, with what has to live as long as it does.
fn start(front: &Front) -> Result<(Machine, Helpers), Failure> {
    let opening = Opening::begin(front.spec(), front.metadata().clone())?;
    let (setup, helpers) = opening.finish()?;
    Ok((machine::start(setup)?, helpers))
}

/// Makes the machine of what was saved.
fn restore(front: &mut Front, from: &Restoration) -> Result<(Machine, Helpers), Failure> {
    let files = Target {
        state: from.files.state.clone(),
        memory: from.files.memory.clone(),
    };
    let metadata = front.metadata().clone();
    let change = |spec: &mut MachineSpec| from.change(spec).map_err(Failure::from);
    let (mut machine, spec, helpers) = launch::restore(&files, metadata, change)?;
    front.describe(spec);
    if from.resume {
        machine.resume();
    }
    Ok((machine, helpers))
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

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::input(error.message, error.hint)
    }
}
