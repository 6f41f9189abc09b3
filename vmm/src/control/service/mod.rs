//! The machine's API: requests become commands to devices, their answers become responses.
//!
//! It runs on the control thread and waits for no device: a command is handed over and its answer
//! looked for in later turns, until a deadline. What a request needs of the host (a file to open)
//! is done before anything changes, so a request that fails changes nothing.

mod balloon;
mod change;
mod job;
mod machine;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use api::error::{ApiError, Code};
use api::http::Response;
use api::machine::MachineState;
use api::request::{self, Call, Read};
use api::spec::SizeSpec;
use devices::tty::UserRequest;
use devices::virtio::SlotHandle;
use rustix::event::{PollFd, PollFlags};

use super::front::{Client, Front};
use super::metrics::MetricsFile;
use super::stop::Event;
use crate::blueprint::Blueprint;
use change::Change;
use job::{Job, Then, Work};
use machine::Machine;

/// How long a device may take to answer before its client is told that it does not.
const DEVICE_PATIENCE: Duration = Duration::from_secs(5);

/// How often the answer of a device that takes its time is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The state of a machine whose vCPUs run.
const STATE: MachineState = MachineState::Running;

/// What follows from a call.
#[derive(Debug)]
enum Begun {
    /// Its answer is known.
    Told(Response),
    /// The machine's life goes on with it.
    Event(Event),
    /// A device is to be asked, which the place names if it is changed.
    Work(Option<usize>, Box<Work>),
}

/// The API of one machine.
#[derive(Debug)]
pub(crate) struct Api {
    front: Front,
    machine: Machine,
    /// What is being carried out, oldest first.
    jobs: VecDeque<Job>,
    now: Instant,
}

impl Api {
    /// The API of the machine that was built from `blueprint`.
    pub(crate) fn new(
        mut front: Front,
        blueprint: &Blueprint,
        handles: Vec<(String, SlotHandle)>,
    ) -> Self {
        let machine = Machine::new(blueprint, handles);
        // What was left to the monitor to choose is known now.
        let memory = SizeSpec::Bytes(blueprint.memory.bytes);
        front.description.spec.memory.get_or_insert(memory);
        Self {
            front,
            machine,
            jobs: VecDeque::new(),
            now: Instant::now(),
        }
    }

    /// Adds the descriptors to be polled, and for what.
    pub(crate) fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        self.front.server.watch(fds);
    }

    /// When the next turn is due whatever the descriptors do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let look = self.now.checked_add(LOOK_AGAIN);
        let look = look.filter(|_| !self.jobs.is_empty());
        let metrics = self.front.metrics.as_ref().map(MetricsFile::due);
        let server = self.front.server.deadline();
        server.into_iter().chain(look).chain(metrics).min()
    }

    /// Serves the clients; `ready` is what poll said of the descriptors of `watch`. What the
    /// machine's life is to know comes back.
    pub(crate) fn turn(&mut self, ready: &[PollFlags], now: Instant) -> Vec<Event> {
        self.now = now;
        self.front.server.turn(ready, now);
        let mut events = Vec::new();
        while let Some((ticket, request)) = self.front.server.take() {
            match request::read(&request, STATE) {
                Read::Refused(response) => self.front.server.answer(ticket, &response),
                Read::Call(call, dialect) => {
                    let client = Client { ticket, dialect };
                    events.extend(self.begin(call, client));
                }
            }
        }
        self.count();
        self.go_on();
        events
    }

    /// Writes counters when they are due.
    fn count(&mut self) {
        if let Some(metrics) = &mut self.front.metrics
            && self.now >= metrics.due()
        {
            metrics.begun(self.now);
            let work = Work::of_all(&self.machine, Then::Count);
            let deadline = self.now + DEVICE_PATIENCE;
            self.jobs.push_back(Job::new(None, None, work, deadline));
        }
    }

    /// Answers what can be answered at once and makes a job of the rest.
    fn begin(&mut self, call: Call, client: Client) -> Option<Event> {
        let mut event = None;
        let outcome = match self.judge(call) {
            Ok(Begun::Told(response)) => Ok(response),
            Ok(Begun::Event(happened)) => {
                event = Some(happened);
                Ok(Response::done())
            }
            Ok(Begun::Work(device, work)) => {
                let deadline = self.now + DEVICE_PATIENCE;
                self.jobs
                    .push_back(Job::new(Some(client), device, *work, deadline));
                return None;
            }
            Err(error) => Err(error),
        };
        self.front.answer(client, outcome);
        event
    }

    fn judge(&self, call: Call) -> Result<Begun, ApiError> {
        let machine = &self.machine;
        let told = |response| Ok(Begun::Told(response));
        let work = |place, work| Ok(Begun::Work(place, Box::new(work)));
        let change = |place, change| work(Some(place), Work::Waiting(change));
        match call {
            Call::Tell(topic) => told(self.front.description.tell(topic, STATE)?),
            Call::ChangeMetadata(change) => told(self.front.description.change_metadata(change)?),
            Call::Machine => told(Response::json(200, &machine.view())),
            Call::PressPowerButton => Ok(Begun::Event(Event::Request(UserRequest::PowerButton))),
            Call::Drive { id, change: wanted } => {
                change(machine.drive(&id)?, Change::Drive(wanted))
            }
            Call::ChangeEntropy(wanted) => {
                change(machine.of_model(machine::ENTROPY)?, Change::Limits(wanted))
            }
            Call::ChangeBalloon(wanted) => {
                change(machine.of_model(machine::BALLOON)?, Change::Balloon(wanted))
            }
            Call::Devices => work(None, Work::of_all(machine, Then::Tell)),
            Call::FlushMetrics if self.front.metrics.is_none() => Err(no_metrics()),
            Call::FlushMetrics => work(None, Work::of_all(machine, Then::Count)),
            Call::BalloonStatistics => {
                let place = machine.of_model(machine::BALLOON)?;
                work(
                    None,
                    Work::of_one(machine, place, Then::Answer(balloon::statistics))?,
                )
            }
            Call::HintingStatus => {
                let place = machine.of_model(machine::BALLOON)?;
                work(
                    None,
                    Work::of_one(machine, place, Then::Answer(balloon::hinting))?,
                )
            }
            // The table of routes lets none of these through after the start.
            Call::Describe(_) | Call::Start | Call::Log(_) | Call::Count(_) => Err(ApiError::new(
                Code::WrongState,
                "the machine is started already",
                "",
            )),
        }
    }

    /// Carries the jobs on. A device is changed by one request after the other.
    fn go_on(&mut self) {
        let mut busy = Vec::new();
        for mut job in std::mem::take(&mut self.jobs) {
            let blocked = job.device.is_some_and(|place| busy.contains(&place));
            let outcome = match blocked {
                true => None,
                false => job.advance(&mut self.machine, &mut self.front),
            };
            let late = self.now >= job.deadline;
            let (outcome, over) = match outcome {
                Some(outcome) => (Some(outcome), true),
                None if late => (Some(Err(job.too_late())), job.can_be_dropped()),
                None => (None, false),
            };
            if let Some((outcome, client)) = outcome.zip(job.take_client(over || late)) {
                self.front.answer(client, outcome);
            }
            if !over {
                busy.extend(job.device);
                self.jobs.push_back(job);
            }
        }
    }
}

fn no_metrics() -> ApiError {
    ApiError::new(
        Code::NotSupported,
        "this machine writes no metrics",
        "PUT /metrics before the start; GET /coracle/v1/devices has each device's counters",
    )
}

fn gone() -> ApiError {
    ApiError::new(
        Code::HostFailure,
        "the device is gone: the machine is at its end",
        "",
    )
}

#[cfg(test)]
mod tests;
