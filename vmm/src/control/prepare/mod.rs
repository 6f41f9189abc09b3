//! The API before the start: requests describe the machine until one asks for its start.

mod check;
mod describe;

use std::os::fd::AsFd as _;
use std::time::Instant;

use api::error::{ApiError, Code, Dialect};
use api::http::Response;
use api::machine::MachineState;
use api::request::{self, Call, Restoration};
use rustix::event::{PollFd, PollFlags};

use super::front::{Client, Front};
use super::{ControlError, wait_for};
use crate::machine::{HostConsole, MachineError};
use crate::sys::Signals;

/// How the time before the start ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// A client asks for the start. It is answered by the machine that starts, or by
    /// [`Front::not_started`].
    Start,
    /// A client asks for a machine of what was saved. It is answered in the same way.
    Load(Restoration),
    /// A signal asks for the end.
    Stop,
}

/// Waits for the start of a machine, as often as it takes for one to succeed.
#[derive(Debug)]
pub struct Preparation {
    signals: Signals,
}

impl Preparation {
    /// From here on, stop signals are heard by [`serve`](Self::serve). To be called before other
    /// threads exist.
    ///
    /// # Errors
    /// The host's reason.
    pub fn new() -> Result<Self, MachineError> {
        let signals = HostConsole::take_over_signals()?;
        Ok(Self { signals })
    }

    /// Serves the clients until the start or the end.
    ///
    /// # Errors
    /// When the host does not let it wait.
    pub fn serve(&mut self, front: &mut Front) -> Result<Prepared, ControlError> {
        loop {
            let ready = self.wait(front)?;
            while let Some(signal) = self.signals.next() {
                if HostConsole::stops(signal) {
                    return Ok(Prepared::Stop);
                }
            }
            if let Some(prepared) = turn(front, &ready) {
                return Ok(prepared);
            }
        }
    }

    fn wait(&self, front: &Front) -> Result<Vec<PollFlags>, ControlError> {
        let signals = self.signals.as_fd();
        let mut fds = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
        front.server.watch(&mut fds);
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        wait_for(&mut fds, front.server.deadline().map(left))?;
        Ok(fds.iter().skip(1).map(PollFd::revents).collect())
    }
}

/// Serves the clients once; `ready` is what poll said of their descriptors.
fn turn(front: &mut Front, ready: &[PollFlags]) -> Option<Prepared> {
    front.server.turn(ready, Instant::now());
    while let Some((call, client)) = front.take(MachineState::NotStarted) {
        let prepared = carry_out(front, call, client);
        if prepared.is_some() {
            return prepared;
        }
    }
    None
}

/// Does what a client asks for; the start is for another to do.
fn carry_out(front: &mut Front, call: Call, client: Client) -> Option<Prepared> {
    let outcome = match call {
        Call::Events => {
            front.follow(client, MachineState::NotStarted);
            return None;
        }
        Call::Start => match may_start(front, client.dialect) {
            Ok(()) => {
                front.starter = Some(client);
                return Some(Prepared::Start);
            }
            Err(error) => Err(error),
        },
        Call::Load(from) => match front.description.is_untouched() {
            true => {
                front.starter = Some(client);
                return Some(Prepared::Load(from));
            }
            false => Err(ApiError::new(
                Code::WrongState,
                "a machine is described already, what was saved is another",
                "load the snapshot into a monitor that was told nothing but its logger and metrics",
            )),
        },
        call => told(front, call),
    };
    front.answer(client, outcome);
    None
}

/// The answer to a call.
fn told(front: &mut Front, call: Call) -> Result<Response, ApiError> {
    let description = &mut front.description;
    match call {
        Call::Tell(topic) => description.tell(topic, MachineState::NotStarted),
        Call::Machine => Ok(Response::json(200, &description.view())),
        Call::Describe(part) => description.describe(part).map(|()| Response::done()),
        Call::ChangeMetadata(change) => description.change_metadata(change),
        Call::Count(wanted) => front.count(&wanted).map(|()| Response::done()),
        Call::Log(logger) => (front.set_logger)(&logger).map(|()| Response::done()),
        // The table of routes lets none of these through before the start.
        Call::Start
        | Call::Load(_)
        | Call::Save(_)
        | Call::PressPowerButton
        | Call::FlushMetrics
        | Call::Events
        | Call::Pause
        | Call::Resume
        | Call::Stop { .. }
        | Call::Kill
        | Call::Metrics
        | Call::Drive { .. }
        | Call::ChangeNet { .. }
        | Call::BalloonStatistics
        | Call::HintingStatus
        | Call::ChangeBalloon(_)
        | Call::ChangeEntropy(_)
        | Call::LimitCpu(_)
        | Call::Devices => {
            let message = "the machine is not started";
            Err(ApiError::new(Code::WrongState, message, ""))
        }
    }
}

impl Front {
    /// Describes the machine as a configuration file of Firecracker's does.
    ///
    /// # Errors
    /// What is wrong with the first part that cannot be had.
    pub fn configure(&mut self, text: &[u8]) -> Result<(), ApiError> {
        for call in request::read_config(text)? {
            told(self, call)?;
        }
        Ok(())
    }
}

/// Who speaks Firecracker's language means a kernel of its own.
fn may_start(front: &Front, dialect: Dialect) -> Result<(), ApiError> {
    match dialect {
        Dialect::Firecracker if front.spec().kernel.is_none() => Err(ApiError::new(
            Code::WrongState,
            "Cannot start microvm without kernel configuration.",
            "PUT /boot-source first, or start the built-in guest by PUT /coracle/v1/actions",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
