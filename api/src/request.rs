//! From an HTTP request to a [`Call`]: what is asked for, in the same words whichever of the two
//! languages it was said in. One file for each object; [`crate::routes`] says which function
//! reads which request. Pure.

pub(crate) mod actions;
pub(crate) mod balloon;
pub(crate) mod boot_source;
mod config_file;
pub(crate) mod cpu;
pub(crate) mod device;
pub(crate) mod drive;
pub(crate) mod entropy;
pub(crate) mod limits;
pub(crate) mod machine;
pub(crate) mod mmds;
pub(crate) mod net;
pub mod note;
pub(crate) mod snapshot;
pub(crate) mod tell;

pub use balloon::{BalloonChange, Hinting};
pub use config_file::read_config;
pub use drive::DriveChange;
pub use limits::{Change, LimitsChange};
pub use mmds::MetadataChange;
pub use net::NetChange;
pub use snapshot::{Restoration, SnapshotFiles};

use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::{ApiError, Code, Dialect};
use crate::firecracker::{BootSource, CacheType, Entropy, Logger, MachineConfigPatch, Metrics};
use crate::http::{Method, Request, Response};
use crate::machine::MachineState;
use crate::routes::{self, Found, Route};
use crate::spec::{
    BalloonSpec, ConsoleBackend, DiskSpec, MachineSpec, MmdsSpec, NetSpec, VsockSpec,
};
use crate::strict;

/// What a request asks of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Tell something that is known.
    Tell(Topic),
    /// The machine and its state.
    Machine,
    /// Describe a part of the machine, which is not started.
    Describe(Part),
    /// Change the metadata that the guest can read.
    ChangeMetadata(MetadataChange),
    /// Start the machine.
    Start,
    /// Write the monitor's log so.
    Log(Logger),
    /// Write counters to a file from now on.
    Count(Metrics),
    /// Write them now.
    FlushMetrics,
    /// Press the power button.
    PressPowerButton,
    /// Let the machine stand still.
    Pause,
    /// Let it go on.
    Resume,
    /// Press the power button, and end the machine if it has not come to its end in time.
    Stop {
        /// The time; none for the one that the machine was started with.
        timeout: Option<Duration>,
    },
    /// End it at once.
    Kill,
    /// Save the machine, which stands still.
    Save(SnapshotFiles),
    /// Make a machine of what was saved.
    Load(Restoration),
    /// Tell what happens from now on.
    Events,
    /// The counters of every device, as Prometheus reads them.
    Metrics,
    /// Change a drive.
    Drive {
        /// Its name.
        id: String,
        /// How.
        change: DriveChange,
    },
    /// Change the limits of a network interface.
    ChangeNet {
        /// Its name.
        id: String,
        /// How.
        change: NetChange,
    },
    /// The guest's account of its memory, in Firecracker's words.
    BalloonStatistics,
    /// How free page hinting stands, in Firecracker's words.
    HintingStatus,
    /// Change the balloon.
    ChangeBalloon(BalloonChange),
    /// Change the limits of the source of random numbers.
    ChangeEntropy(LimitsChange),
    /// Limit what the virtual CPUs use of the host's, in hundredths of one, or not any more.
    LimitCpu(Option<NonZeroU32>),
    /// What every device is and did.
    Devices,
}

/// What can be told in every state of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Who answers, in Firecracker's words.
    Instance,
    /// Which release of Firecracker's API is spoken.
    Version,
    /// The size of the machine, in Firecracker's words.
    MachineConfig,
    /// All that it was made of, in Firecracker's words.
    VmConfig,
    /// The balloon's set-up, in Firecracker's words.
    Balloon,
    /// The metadata that the guest can read.
    Metadata,
}

/// A part of a machine that is not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Machine(Box<MachineSpec>),
    /// CPUs and memory.
    Size(MachineConfigPatch),
    /// The kernel, with its initial RAM disk and command line.
    BootSource(BootSource),
    /// A disk, new or instead of the one of the same name, and what was said of its cache.
    Disk(Box<DiskSpec>, CacheType),
    /// The metadata service.
    Mmds(MmdsSpec),
    /// No disk of this name.
    WithoutDisk(String),
    /// A network interface, new or instead of the one of the same name.
    Net(Box<NetSpec>),
    /// No network interface of this name.
    WithoutNet(String),
    /// The socket device.
    Vsock(VsockSpec),
    /// The source of random numbers.
    Entropy(Entropy),
    /// The balloon.
    Balloon(BalloonSpec),
    /// The console's other end.
    Console(ConsoleBackend),
    /// Nothing that there is not anyway.
    Nothing,
}

/// A request that was understood, or the answer to it.
#[derive(Debug)]
pub enum Read {
    /// To be carried out.
    Call(Call, Dialect),
    /// Answered already: it cannot be carried out.
    Refused(Response),
}

/// Reads a request to a machine in `state`.
#[must_use]
pub fn read(request: &Request, state: MachineState) -> Read {
    let dialect = routes::dialect(&request.path);
    let found = match routes::find(request.method, &request.path) {
        Ok(found) => found,
        Err(missing) => {
            let response = missing.error.response(dialect);
            let names: Vec<_> = missing.methods.iter().map(|one| one.as_str()).collect();
            return Read::Refused(match response.status {
                405 => response.with("Allow", names.join(", ")),
                _ => response,
            });
        }
    };
    match call(request, &found, state) {
        Ok(call) => Read::Call(call, dialect),
        Err(error) => Read::Refused(error.response(dialect)),
    }
}

/// The call that a request is to a machine in `state`.
fn call(request: &Request, found: &Found<'_>, state: MachineState) -> Result<Call, ApiError> {
    let asked = Asked {
        method: request.method,
        id: found.id.unwrap_or_default(),
        body: &request.body,
        dialect: routes::dialect(&request.path),
        state,
    };
    asked.read(found.route)
}

/// Makes a call of a request that a route was found for.
pub(crate) type Reader = fn(&Asked<'_>) -> Result<Call, ApiError>;

/// A request that a route was found for.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    method: Method,
    /// The name in its path; empty where the route has none.
    id: &'a str,
    body: &'a [u8],
    dialect: Dialect,
    state: MachineState,
}

impl Asked<'_> {
    fn read(&self, route: &Route) -> Result<Call, ApiError> {
        if matches!(self.method, Method::Get | Method::Delete) && !self.body.is_empty() {
            let message = match self.dialect {
                Dialect::Firecracker => format!("{} request cannot have a body.", self.method),
                Dialect::Coracle => format!("a {} request takes no body", self.method),
            };
            return Err(ApiError::new(Code::BadBody, message, ""));
        }
        self.must_be_in(route.states)?;
        (route.reader)(self)
    }

    /// Refuses what the machine's state does not allow.
    fn must_be_in(&self, states: &[MachineState]) -> Result<(), ApiError> {
        if states.contains(&self.state) {
            return Ok(());
        }
        if states == routes::PAUSED && self.state == MachineState::Running {
            let message = "the machine runs: what moves cannot be saved";
            return Err(ApiError::new(Code::WrongState, message, "pause it first"));
        }
        let message = match (self.dialect, self.state) {
            (Dialect::Firecracker, MachineState::NotStarted) => {
                "The requested operation is not supported before starting the microVM."
            }
            (Dialect::Firecracker, _) => {
                "The requested operation is not supported after starting the microVM."
            }
            (Dialect::Coracle, MachineState::NotStarted) => "the machine is not started",
            (Dialect::Coracle, _) => "the machine is started already",
        };
        Err(ApiError::new(Code::WrongState, message, ""))
    }

    /// The body, if there is one.
    fn body_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        match self.body {
            [] => Ok(T::default()),
            _ => self.body(),
        }
    }

    /// The body, whose fields are those of `T`.
    fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        if self.body.is_empty() {
            let message = match self.dialect {
                Dialect::Firecracker => format!("Empty {} request.", self.method),
                Dialect::Coracle => format!("a {} request needs a JSON body", self.method),
            };
            return Err(ApiError::new(Code::BadBody, message, ""));
        }
        strict::from_slice(self.body).map_err(|error| {
            let text = error.to_string();
            let message = match self.dialect {
                Dialect::Firecracker => {
                    format!(
                        "An error occurred when deserializing the json body of a request: {text}."
                    )
                }
                Dialect::Coracle => format!("the body cannot be taken: {text}"),
            };
            let error = ApiError::new(Code::BadBody, message, "see docs/api.md for the fields");
            match field_of(&text) {
                Some(field) => error.of_field(field),
                None => error,
            }
        })
    }

    /// Refuses a body that names something else than the path.
    fn must_be_named(&self, field: &str, name: &str) -> Result<(), ApiError> {
        if name == self.id {
            return Ok(());
        }
        let message = format!(
            "The id from the path [{}] does not match the id from the body [{name}]!",
            self.id
        );
        Err(ApiError::new(Code::InvalidValue, message, "").of_field(field))
    }

    /// Refuses a name that Firecracker does not give.
    fn must_be_plain(&self) -> Result<(), ApiError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if self.id.bytes().all(plain) {
            return Ok(());
        }
        let message = "API Resource IDs can only contain alphanumeric characters and underscores.";
        Err(ApiError::new(Code::InvalidValue, message, ""))
    }
}

/// The field that a message of serde's names.
fn field_of(text: &str) -> Option<&str> {
    let named = ["unknown field `", "missing field `", "duplicate field `"];
    let rest = named.iter().find_map(|start| text.strip_prefix(start))?;
    rest.split('`').next()
}

#[cfg(test)]
mod tests;
