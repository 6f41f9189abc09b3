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
use api::events;
use api::http::Response;
use api::machine::MachineState;
use api::request::{Call, SnapshotFiles};
use api::spec::SizeSpec;
use devices::tty::UserRequest;
use devices::virtio::SlotHandle;
use rustix::event::{PollFd, PollFlags};

use super::front::{Client, Front};
use super::metrics::MetricsFile;
use super::pause::Life;
use super::stop::Event;
use crate::snapshot::{Subject, Target};
use change::Change;
use job::{Claim, Job, Then, Work};
use machine::Machine;

/// How long a device may take to answer before its client is told that it does not.
const DEVICE_PATIENCE: Duration = Duration::from_secs(5);

/// How long the memory of a machine may take to be written before its client is told that it does.
const SAVE_PATIENCE: Duration = Duration::from_secs(600);

/// How long a machine that comes to its end while it is saved waits for the writer to take back
/// what it has begun.
const SAVE_GRACE: Duration = Duration::from_secs(5);

/// How often the answer of a device that takes its time is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What follows from a call.
#[derive(Debug)]
enum Begun {
    /// Its answer is known.
    Told(Response),
    /// The machine's life goes on with it.
    Event(Event),
    /// The client follows what happens.
    Stream,
    /// It takes its time, and what is changed is its own meanwhile.
    Work(Option<Claim>, Box<Work>),
}

/// The API of one machine.
#[derive(Debug)]
pub(crate) struct Api {
    front: Front,
    machine: Machine,
    /// What is being carried out, oldest first.
    jobs: VecDeque<Job>,
    state: MachineState,
    now: Instant,
}

impl Api {
    /// The API of the machine `subject`, whose devices are reached through `handles`.
    pub(crate) fn new(
        mut front: Front,
        subject: Subject,
        handles: Vec<(String, SlotHandle)>,
    ) -> Self {
        // What was left to the monitor to choose is known now.
        let memory = SizeSpec::Bytes(subject.blueprint.memory.bytes);
        let machine = Machine::new(subject, handles);
        front.description.spec.memory.get_or_insert(memory);
        Self {
            front,
            machine,
            jobs: VecDeque::new(),
            state: MachineState::Running,
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
    pub(crate) fn turn(
        &mut self,
        ready: &[PollFlags],
        now: Instant,
        life: &mut Life<'_>,
    ) -> Vec<Event> {
        self.now = now;
        self.note_state(life);
        self.front.server.turn(ready, now);
        let mut events = Vec::new();
        while let Some((call, client)) = self.front.take(self.state) {
            events.extend(self.begin(call, client));
        }
        self.count();
        self.go_on(life);
        self.note_state(life);
        events
    }

    /// Tells those who follow what has happened.
    pub(crate) fn tell(&mut self, event: &events::Event) {
        self.front.tell(event);
    }

    /// The machine is at its end: so is what its clients follow. A last line of counters tells
    /// what was counted since the one before.
    pub(crate) fn end(&mut self, how: events::End) {
        if self.front.metrics.is_some() {
            job::count_at_end(&self.machine, &mut self.front, self.state);
        }
        self.jobs.iter().for_each(|job| job.end_within(SAVE_GRACE));
        self.front.tell(&events::Event::Ended { how });
        self.front.server.end_streams();
    }

    fn note_state(&mut self, life: &Life<'_>) {
        let state = life.state();
        if std::mem::replace(&mut self.state, state) != state {
            self.front.tell(&events::Event::State { state });
        }
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
            Ok(Begun::Stream) => {
                self.front.follow(client, self.state);
                return None;
            }
            Ok(Begun::Work(claim, work)) => {
                let patience = match *work {
                    Work::Saving(..) => SAVE_PATIENCE,
                    _ => DEVICE_PATIENCE,
                };
                let deadline = self.now + patience;
                self.jobs
                    .push_back(Job::new(Some(client), claim, *work, deadline));
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
        let work = |claim, work| Ok(Begun::Work(claim, Box::new(work)));
        let change = |place, change| work(Some(Claim::Device(place)), Work::Waiting(place, change));
        let event = |event| Ok(Begun::Event(event));
        match call {
            Call::Tell(topic) => told(self.front.description.tell(topic, self.state)?),
            Call::ChangeMetadata(change) => told(self.front.description.change_metadata(change)?),
            Call::Machine => told(Response::json(200, &machine.view(self.state))),
            Call::Events => Ok(Begun::Stream),
            Call::PressPowerButton => event(Event::Request(UserRequest::PowerButton)),
            Call::Pause => work(Some(Claim::Life), Work::Pausing { begun: false }),
            Call::Resume => work(Some(Claim::Life), Work::Resuming),
            Call::Save(SnapshotFiles { state, memory }) => {
                let to = Target { state, memory };
                work(Some(Claim::Life), Work::Saving(to, None))
            }
            Call::Stop { timeout } => event(Event::Stop(timeout)),
            Call::Kill => event(Event::Request(UserRequest::Quit)),
            Call::Drive { id, change: wanted } => {
                change(machine.drive(&id)?, Change::Drive(wanted))
            }
            Call::ChangeNet { id, change: wanted } => {
                let place = machine.net(&id, self.front.spec())?;
                change(place, Change::Net(wanted))
            }
            Call::ChangeEntropy(wanted) => {
                change(machine.of_model(machine::ENTROPY)?, Change::Limits(wanted))
            }
            Call::ChangeBalloon(wanted) => {
                change(machine.of_model(machine::BALLOON)?, Change::Balloon(wanted))
            }
            Call::LimitCpu(quota) => work(Some(Claim::Life), Work::Limiting(quota)),
            Call::Devices => work(None, Work::of_all(machine, Then::Tell)),
            Call::Metrics => work(None, Work::of_all(machine, Then::Metrics)),
            Call::FlushMetrics if self.front.metrics.is_none() => Err(no_metrics()),
            Call::FlushMetrics => work(None, Work::of_all(machine, Then::Count)),
            Call::BalloonStatistics => {
                let place = machine.of_model(machine::BALLOON)?;
                machine.has_statistics(place)?;
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
            Call::Describe(_) | Call::Start | Call::Load(_) | Call::Log(_) | Call::Count(_) => {
                let message = "the machine is started already";
                Err(ApiError::new(Code::WrongState, message, ""))
            }
        }
    }

    /// Carries the jobs on. A device is changed by one request after the other.
    fn go_on(&mut self, life: &mut Life<'_>) {
        let mut busy = Vec::new();
        for mut job in std::mem::take(&mut self.jobs) {
            let blocked = job.claim.is_some_and(|claim| busy.contains(&claim));
            let outcome = match blocked {
                true => None,
                false => job.advance(&mut self.machine, &mut self.front, life),
            };
            let late = self.now >= job.deadline;
            let (outcome, over) = match outcome {
                Some(outcome) => (Some(outcome), true),
                None if late => (Some(Err(job.give_up(life))), job.can_be_dropped()),
                None => (None, false),
            };
            if let Some((outcome, client)) = outcome.zip(job.take_client(over || late)) {
                self.front.answer(client, outcome);
            }
            if !over {
                busy.extend(job.claim);
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
