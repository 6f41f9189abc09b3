//! Requests that take a device's answer: what they wait for, and how they go on.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use api::error::{ApiError, Code};
use api::events::Event;
use api::http::{Media, Response};
use api::machine::{DeviceView, MachineState, ReportValue};
use api::metrics;
use devices::inspect::{Report, Value};
use devices::virtio::slot::{Answer, Inspection};
use devices::virtio::{CommandError, DeviceCommand, SlotGone, SlotHandle};

use super::super::front::{Client, Front};
use super::super::metrics::Counted;
use super::super::pause::Life;
use super::change::{Change, Grown};
use super::gone;
use super::machine::{Device, Effect, Machine};
use crate::snapshot::{SaveError, Saving, Target};

/// How long the first look for an answer waits. A device that has nothing else to do answers
/// within it.
const FIRST_LOOK: Duration = Duration::from_micros(300);

/// How long a device may take to tell the last counters of a machine that ends.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// A request that is being carried out.
#[derive(Debug)]
pub(super) struct Job {
    /// None for the monitor itself, and once it was told that the device does not answer.
    client: Option<Client>,
    /// What it changes.
    pub(super) claim: Option<Claim>,
    pub(super) deadline: Instant,
    work: Work,
    looked: bool,
}

/// What one request changes after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A device, by its place in the machine.
    Device(usize),
    /// Whether the machine runs.
    Life,
}

/// What a job is at.
pub(super) enum Work {
    /// The change of a device, by its place, has not begun.
    Waiting(usize, Change),
    /// A device is being changed.
    Changing(usize, Box<Sequence>),
    /// The machine is being paused, and whether that has begun.
    Pausing {
        /// Whether it has.
        begun: bool,
    },
    /// The machine is to go on.
    Resuming,
    /// The virtual CPUs may use so much of the host's, in hundredths of one.
    Limiting(Option<NonZeroU32>),
    /// The machine is to be saved there, and the saving once it has begun.
    Saving(Target, Option<Saving>),
    /// Devices are asked for their reports.
    Reports(Vec<Asked>, Then),
}

/// A device that is asked for its report.
pub(super) struct Asked {
    /// Its place in the machine.
    place: usize,
    /// None once it has answered, or where it is gone.
    inspection: Option<Inspection>,
    report: Report,
}

/// What is done with reports.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// They are told.
    Tell,
    /// An answer is made of the first one.
    Answer(fn(&Report) -> Result<Response, ApiError>),
    /// They are told as Prometheus reads them.
    Metrics,
    /// Their counters are written to the file for them.
    Count,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting(..) => "Waiting",
            Self::Changing(..) => "Changing",
            Self::Pausing { .. } => "Pausing",
            Self::Resuming => "Resuming",
            Self::Limiting(_) => "Limiting",
            Self::Saving(..) => "Saving",
            Self::Reports(..) => "Reports",
        })
    }
}

impl Work {
    /// Asks all devices for their reports.
    pub(super) fn of_all(machine: &Machine, then: Then) -> Self {
        let devices = machine.devices().iter().enumerate();
        let ask = |(place, device): (usize, &Device)| Asked {
            place,
            inspection: device.handle.begin_inspect().ok(),
            report: Report::new(),
        };
        Self::Reports(devices.map(ask).collect(), then)
    }

    /// Asks the device at `place` for its report.
    pub(super) fn of_one(machine: &Machine, place: usize, then: Then) -> Result<Self, ApiError> {
        let device = machine.devices().get(place).ok_or_else(gone)?;
        let inspection = device.handle.begin_inspect().map_err(|_| gone())?;
        let asked = Asked {
            place,
            inspection: Some(inspection),
            report: Report::new(),
        };
        Ok(Self::Reports(vec![asked], then))
    }
}

impl Then {
    /// Does it with the reports of devices, all of which have come.
    fn perform(
        self,
        asked: &[Asked],
        machine: &Machine,
        front: &mut Front,
        state: MachineState,
    ) -> Result<Response, ApiError> {
        let devices = asked.iter().filter_map(|one| {
            let device = machine.devices().get(one.place)?;
            Some((device, &one.report))
        });
        match self {
            Self::Answer(answerer) => {
                answerer(asked.first().map(|one| &one.report).ok_or_else(gone)?)
            }
            Self::Tell | Self::Metrics => {
                let views = devices.map(|(device, report)| DeviceView {
                    name: device.name.clone(),
                    model: device.model.clone(),
                    report: told(report),
                });
                let views: Vec<_> = views.collect();
                if matches!(self, Self::Tell) {
                    return Ok(Response::json(200, &views));
                }
                let name = front.description.id();
                let text = metrics::text(name, &machine.view(state), &views);
                Ok(Response::text(Media::Metrics, text))
            }
            Self::Count => {
                let counted = devices.map(|(device, report)| Counted {
                    model: &device.model,
                    name: device.called(&front.description.spec),
                    report,
                });
                let counted: Vec<_> = counted.collect();
                match front.metrics.as_mut().map(|file| file.write(&counted)) {
                    Some(Err(error)) => Err(ApiError::new(
                        Code::HostFailure,
                        format!("the metrics' file takes nothing: {error}"),
                        "read the FIFO, or make room on the disk",
                    )),
                    _ => Ok(Response::done()),
                }
            }
        }
    }
}

impl Job {
    pub(super) fn new(
        client: Option<Client>,
        claim: Option<Claim>,
        work: Work,
        deadline: Instant,
    ) -> Self {
        Self {
            client,
            claim,
            deadline,
            work,
            looked: false,
        }
    }

    /// Carries it on: its outcome, once it has one.
    pub(super) fn advance(
        &mut self,
        machine: &mut Machine,
        front: &mut Front,
        life: &mut Life<'_>,
    ) -> Option<Result<Response, ApiError>> {
        let patience = match std::mem::replace(&mut self.looked, true) {
            false => FIRST_LOOK,
            true => Duration::ZERO,
        };
        if let Work::Waiting(place, change) = &self.work {
            let place = *place;
            let device = machine.devices().get(place)?;
            match change.prepare(device) {
                Ok(steps) => {
                    self.work =
                        Work::Changing(place, Box::new(Sequence::new(&device.handle, steps)));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        match &mut self.work {
            Work::Waiting(..) => None,
            Work::Changing(place, sequence) => match sequence.advance(patience)? {
                Ok(effects) => {
                    if let Some(device) = machine.devices().get(*place) {
                        let device = device.name.clone();
                        front.tell(&Event::DeviceChanged { device });
                    }
                    machine.apply(*place, effects, &mut front.description);
                    Some(Ok(Response::done()))
                }
                Err(error) => Some(Err(refusal(&error))),
            },
            Work::Pausing { begun } => {
                let paused = pause(begun, patience, life)?;
                Some(paused.map(|()| Response::done()))
            }
            Work::Resuming => {
                life.resume();
                Some(Ok(Response::done()))
            }
            Work::Limiting(quota) => Some(limit(*quota, machine, front, life)),
            Work::Saving(to, saving) => {
                let saved = save(to, saving, patience, machine, front, life)?;
                Some(
                    saved
                        .map(|()| Response::done())
                        .map_err(|error| unsaved(&error)),
                )
            }
            Work::Reports(asked, then) => Some(match collect(asked, patience)? {
                Ok(()) => then.perform(asked, machine, front, life.state()),
                Err(SlotGone) => Err(gone()),
            }),
        }
    }

    /// Whether nothing will have changed if it is given up now.
    pub(super) fn can_be_dropped(&self) -> bool {
        !matches!(self.work, Work::Changing(..) | Work::Saving(_, Some(_)))
    }

    /// The machine has come to its end: waits that long for what must not be left half done.
    pub(super) fn end_within(&self, patience: Duration) {
        if let Work::Saving(_, Some(saving)) = &self.work {
            // However it ends.
            let _ = saving.within(patience);
        }
    }

    /// Its client, who is answered once.
    pub(super) fn take_client(&mut self, now: bool) -> Option<Client> {
        self.client.take_if(|_| now)
    }

    /// What its client is told when the deadline has passed. A pause that has not come about is
    /// given up.
    pub(super) fn give_up(&self, life: &mut Life<'_>) -> ApiError {
        if let Work::Pausing { begun: true } = self.work {
            let awaited = life.pause.awaits().map(|who| who.to_string());
            life.resume();
            let awaited = awaited.unwrap_or_else(|| "the machine".to_owned());
            return ApiError::new(
                Code::DeviceTimeout,
                format!("{awaited} has not come to rest; the machine runs on"),
                "the host is slow or its storage hangs: try again",
            );
        }
        if let Work::Saving(..) = self.work {
            return ApiError::new(
                Code::DeviceTimeout,
                "the machine is not saved yet; it still may be",
                "the host is slow or its storage hangs: look for the files, or try again",
            );
        }
        let (message, hint) = match self.can_be_dropped() {
            true => (
                "the device does not answer; nothing has changed",
                "the host is slow or its storage hangs: try again",
            ),
            false => (
                "the device has not answered yet; the change may still be made",
                "the host is slow or its storage hangs: see GET /coracle/v1/devices, try again",
            ),
        };
        ApiError::new(Code::DeviceTimeout, message, hint)
    }
}

/// Limits the virtual CPUs.
fn limit(
    quota: Option<NonZeroU32>,
    machine: &mut Machine,
    front: &mut Front,
    life: &Life<'_>,
) -> Result<Response, ApiError> {
    life.limit(quota).map_err(|cause| {
        ApiError::new(
            Code::HostFailure,
            format!("the host gives no timer of a thread's CPU time: {cause}"),
            "check the limit of pending signals: ulimit -i",
        )
    })?;
    machine.cpu_quota = quota;
    let device = "cpu".to_owned();
    front.tell(&Event::DeviceChanged { device });
    Ok(Response::done())
}

/// Carries a pause on. One that something else has ended meanwhile is not begun anew.
fn pause(
    begun: &mut bool,
    patience: Duration,
    life: &mut Life<'_>,
) -> Option<Result<(), ApiError>> {
    if std::mem::replace(begun, true) && life.pause.is_running() {
        return Some(Err(ApiError::new(
            Code::WrongState,
            "the machine was told to stop before it stood still; it runs on",
            "",
        )));
    }
    let paused = life.pause(patience)?;
    Some(paused.map_err(|SlotGone| gone()))
}

/// Carries a saving on.
fn save(
    to: &Target,
    saving: &mut Option<Saving>,
    patience: Duration,
    machine: &Machine,
    front: &Front,
    life: &Life<'_>,
) -> Option<Result<(), SaveError>> {
    let saving = match saving {
        Some(saving) => saving,
        None => {
            if !life.pause.is_paused() {
                return Some(Err(SaveError::Moved));
            }
            let Some(subject) = machine.subject() else {
                return Some(Err(SaveError::Cpus));
            };
            let vcpus = |msrs| life.cpus.save(msrs);
            let spec = front.spec();
            match subject.save(spec, vcpus, life.pause.stillness(), to.clone()) {
                Ok(begun) => saving.insert(begun),
                Err(error) => return Some(Err(error)),
            }
        }
    };
    saving.within(patience)
}

/// Why a machine was not saved, as an error of the API.
fn unsaved(error: &SaveError) -> ApiError {
    let code = match error {
        SaveError::Moved => Code::WrongState,
        _ => Code::HostFailure,
    };
    let mut message = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        message = format!("{message}: {cause}");
    }
    ApiError::new(code, message, error.remedy())
}

/// One command to a device, with what undoes it and what it means for later requests.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) command: DeviceCommand,
    /// Takes it back when a later step fails.
    pub(super) undo: Option<DeviceCommand>,
    /// What was done on the host for it.
    pub(super) grown: Option<Grown>,
    pub(super) effect: Effect,
}

/// Commands to a device, one after the other, all of them or none.
#[derive(Debug)]
pub(super) struct Sequence {
    handle: SlotHandle,
    steps: VecDeque<Step>,
    running: Option<(Result<Answer, SlotGone>, Undo)>,
    done: Vec<Undo>,
}

/// What is left of a step that was handed over.
#[derive(Debug)]
struct Undo {
    command: Option<DeviceCommand>,
    grown: Option<Grown>,
    effect: Effect,
}

impl Sequence {
    pub(super) fn new(handle: &SlotHandle, steps: Vec<Step>) -> Self {
        Self {
            handle: handle.clone(),
            steps: steps.into(),
            running: None,
            done: Vec::new(),
        }
    }

    /// Goes on as far as the device has answered.
    fn advance(&mut self, patience: Duration) -> Option<Result<Vec<Effect>, CommandError>> {
        loop {
            if let Some((answer, _)) = &self.running {
                let answer = match answer {
                    Ok(answer) => answer.within(patience)?,
                    Err(gone) => Err((*gone).into()),
                };
                let (_, undo) = self.running.take()?;
                if let Err(error) = answer {
                    self.take_back(undo);
                    return Some(Err(error));
                }
                self.done.push(undo);
            }
            let Some(step) = self.steps.pop_front() else {
                let done = std::mem::take(&mut self.done);
                return Some(Ok(done.into_iter().map(|undo| undo.effect).collect()));
            };
            let undo = Undo {
                command: step.undo,
                grown: step.grown,
                effect: step.effect,
            };
            self.running = Some((self.handle.begin(step.command), undo));
        }
    }

    /// The device refused a step: nothing of the request stays.
    fn take_back(&mut self, refused: Undo) {
        if let Some(grown) = refused.grown {
            grown.shrink();
        }
        for undo in std::mem::take(&mut self.done).into_iter().rev() {
            if let Some(command) = undo.command {
                // A device that has gone has nothing to take back.
                let _ = self.handle.send(command);
            }
        }
    }
}

/// Takes the reports that have come: none while some are missing.
fn collect(asked: &mut [Asked], patience: Duration) -> Option<Result<(), SlotGone>> {
    for one in asked {
        let Some(inspection) = &mut one.inspection else {
            continue;
        };
        match inspection.within(patience)? {
            Ok(report) => {
                one.report = report;
                one.inspection = None;
            }
            Err(gone) => return Some(Err(gone)),
        }
    }
    Some(Ok(()))
}

/// Writes the counters of a machine that ends, of the devices that still tell them.
pub(super) fn count_at_end(machine: &Machine, front: &mut Front, state: MachineState) {
    if let Work::Reports(mut asked, then) = Work::of_all(machine, Then::Count) {
        // Where one does not answer, the others' counters are better than none.
        let _ = collect(&mut asked, LAST_LOOK);
        if let Err(error) = then.perform(&asked, machine, front, state) {
            log::warn!("{}", error.message);
        }
    }
}

fn told(report: &Report) -> ReportValue {
    let entries = report.entries().iter().map(|(name, value)| {
        let value = match value {
            Value::Text(text) => ReportValue::Text(text.clone()),
            Value::Number(number) => ReportValue::Number(*number),
            Value::Flag(flag) => ReportValue::Flag(*flag),
            Value::Part(part) => told(part),
        };
        (name.clone(), value)
    });
    ReportValue::Part(entries.collect())
}

/// A device's refusal as an error of the API.
fn refusal(error: &CommandError) -> ApiError {
    match error {
        CommandError::NotSupported => ApiError::new(
            Code::NotSupported,
            error.to_string(),
            "GET /coracle/v1/devices tells what the machine has",
        ),
        CommandError::NoDriver => ApiError::new(
            Code::NoDriver,
            error.to_string(),
            "try again when the guest has loaded its driver",
        ),
        CommandError::Invalid(_) => ApiError::new(Code::InvalidValue, error.to_string(), ""),
        CommandError::Host(cause) => ApiError::new(
            Code::HostFailure,
            format!("{error}: {cause}"),
            "the monitor's log may tell more",
        ),
        CommandError::Gone(_) => gone(),
    }
}
