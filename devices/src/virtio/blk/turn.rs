//! A turn of the block device on its loop: takes requests, has them carried out, gives them back.

use std::time::{Duration, Instant};

use super::request::{Failure, PIECE_BYTES, Request, Step, Taken, Wrong};
use super::wire::Status;
use super::{Block, Line, Running};
use crate::disk::engine::{Begun, Engine, Finished, Operation, Task};
use crate::disk::{Disk, SECTOR_BYTES, TransferError};
use crate::ram::GuestRam;
use crate::virtio::{Progress, Span};

/// A turn of the loop ends after this many requests or bytes.
pub(super) const REQUESTS_A_TURN: usize = 64;
const BYTES_A_TURN: u64 = 8 << 20;
/// What giving back or zeroing a range counts for, against moving its bytes.
const RANGE_DISCOUNT: u64 = 32;
/// How many requests of one queue are served before the next queue is looked at, and before the
/// driver hears of them.
const REQUESTS_A_LINE: usize = 16;
/// A transfer of so much takes longer than a driver that polls should wait for what is done.
const LONG_BYTES: u64 = 32 << 10;
/// How long the engine is waited for until it is asked to give up what it has.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a turn may still do.
#[derive(Debug)]
struct Budget {
    requests: usize,
    bytes: u64,
}

impl Budget {
    fn new() -> Self {
        Self {
            requests: REQUESTS_A_TURN,
            bytes: BYTES_A_TURN,
        }
    }

    fn is_used_up(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }

    fn pay(&mut self, step: Step) {
        let cost = match step.task {
            Task::Read | Task::Write => step.len,
            Task::Discard | Task::Zero { .. } => step.len / RANGE_DISCOUNT,
            Task::Flush => 0,
        };
        self.bytes = self.bytes.saturating_sub(cost);
    }
}

/// What became of a request that was worked on.
enum Went {
    /// It is over, or in the air.
    On,
    /// It cannot go on now.
    Held(Request, Why),
}

/// Why a request cannot go on now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    /// This turn has done enough.
    Enough,
    /// The engine has no room, and tells when it has.
    Full,
    /// Its tokens are not there, and a timer tells when they are.
    Tokens,
}

/// How one step went.
enum Stepped {
    Done,
    Failed(Failure),
    /// The engine has it, under this tag.
    Flying(u16),
    Full,
}

impl Block {
    /// Does what there is to do, within bounds.
    pub(super) fn turn(&mut self) -> Progress {
        let Some(mut running) = self.running.take() else {
            return Progress::Idle;
        };
        let mut budget = Budget::new();
        let progress = loop {
            let busy = self.pass(&mut running, &mut budget);
            if busy {
                self.patience.worked();
            }
            if budget.is_used_up() {
                break Progress::More;
            }
            if !busy && !self.patience.look_again() && !arm(&mut running) {
                break Progress::Idle;
            }
        };
        self.running = Some(running);
        progress
    }

    /// The same, from outside of the queues' calls.
    pub(super) fn go_on(&mut self) {
        if self.turn() == Progress::More {
            self.throttle.look_again();
        }
    }

    /// One look at everything: whether there was anything to do.
    fn pass(&mut self, running: &mut Running, budget: &mut Budget) -> bool {
        let mut busy = self.reap(running);
        busy |= self.serve_landed(running, budget);
        for line in 0..running.lines.len() {
            busy |= self.serve(running, line, budget);
        }
        busy |= self.submit(running);
        busy |= self.reap(running);
        busy |= self.has_more();
        if busy {
            for line in running.lines.iter_mut().flatten() {
                line.queue.notify();
            }
        }
        busy
    }

    /// Goes on with what has landed.
    fn serve_landed(&mut self, running: &mut Running, budget: &mut Budget) -> bool {
        let mut busy = false;
        while !budget.is_used_up() {
            let Some(request) = self.flight.landed.pop_front() else {
                break;
            };
            match self.work(running, request, budget) {
                Went::On => busy = true,
                Went::Held(request, _) => {
                    self.flight.landed.push_front(request);
                    break;
                }
            }
        }
        busy
    }

    /// Serves one queue: whether there was anything to do.
    fn serve(&mut self, running: &mut Running, index: usize, budget: &mut Budget) -> bool {
        let mut busy = self.take(running, index, budget);
        for _ in 0..REQUESTS_A_LINE {
            if budget.bytes == 0 {
                break;
            }
            let line = running.lines.get_mut(index).and_then(Option::as_mut);
            let Some(taken) = line.and_then(|line| line.taken.pop_front()) else {
                break;
            };
            let request = match taken {
                Taken::Request(request) => request,
                Taken::Wrong(wrong) => {
                    self.turn_away(running, index, wrong);
                    busy = true;
                    continue;
                }
            };
            match self.work(running, request, budget) {
                Went::On => busy = true,
                Went::Held(request, why) => {
                    busy |= why == Why::Enough;
                    if let Some(Some(line)) = running.lines.get_mut(index) {
                        line.taken.push_front(Taken::Request(request));
                    }
                    break;
                }
            }
        }
        busy
    }

    /// Takes some requests of a queue, several at once: their memory comes from another CPU, which
    /// is waited for once instead of each time.
    fn take(&mut self, running: &mut Running, index: usize, budget: &mut Budget) -> bool {
        let terms = self.terms(running);
        let Some(Some(line)) = running.lines.get_mut(index) else {
            return false;
        };
        let write_back = || self.write_back(terms.features);
        let room = REQUESTS_A_LINE.saturating_sub(line.taken.len());
        for _ in 0..room.min(budget.requests) {
            let chain = if line.taken.is_empty() && line.chains.is_empty() {
                // A queue that is broken says so itself.
                line.queue.poll().ok().flatten()
            } else {
                line.queue.poll_behind()
            };
            let Some(chain) = chain else {
                break;
            };
            if let Some(header) = chain.readable().first() {
                running.ram.prefetch(header.at);
            }
            line.chains.push(chain);
        }
        budget.requests = budget.requests.saturating_sub(line.chains.len());
        let busy = !line.chains.is_empty();
        for chain in line.chains.drain(..) {
            let taken = Request::parse(index, chain, &running.ram, terms, write_back);
            line.taken.push_back(taken);
        }
        busy
    }

    /// Answers what is no request.
    fn turn_away(&mut self, running: &mut Running, index: usize, wrong: Wrong) {
        let counter = if wrong.is_malformed() {
            &mut self.counters.malformed
        } else {
            &mut self.counters.refused
        };
        *counter = counter.saturating_add(1);
        let (chain, written) = wrong.end(&running.ram);
        if let Some(Some(line)) = running.lines.get_mut(index) {
            line.queue.complete(chain, written);
        }
    }

    /// Does of a request what can be done now.
    fn work(&mut self, running: &mut Running, mut request: Request, budget: &mut Budget) -> Went {
        if !is_live(running, &request) {
            self.abandon(running, request);
            return Went::On;
        }
        loop {
            let next = request.next(self.piece_bytes());
            if !self.charge(&mut request, next) {
                return Went::Held(request, Why::Tokens);
            }
            let Some(step) = next else {
                break;
            };
            if budget.bytes == 0 {
                return Went::Held(request, Why::Enough);
            }
            budget.pay(step);
            match self.step(running, &request, step) {
                Stepped::Done => request.advance(step),
                Stepped::Failed(failure) => {
                    self.finish(running, request, &Err(failure));
                    return Went::On;
                }
                Stepped::Flying(tag) => {
                    self.flight.take_off(tag, (request, step));
                    return Went::On;
                }
                Stepped::Full => return Went::Held(request, Why::Full),
            }
        }
        self.finish(running, request, &Ok(()));
        Went::On
    }

    /// How much of a transfer is done at once: never more than a limit lets through at once, so
    /// that large requests feel it too.
    fn piece_bytes(&self) -> u64 {
        let portion = self.throttle.portion();
        let sectors = portion.saturating_sub(portion % SECTOR_BYTES);
        PIECE_BYTES.min(sectors.max(SECTOR_BYTES))
    }

    /// Whether anything that was taken has not been given back.
    pub(super) fn has_taken(&self) -> bool {
        let mut lines = self.running.iter().flat_map(|running| &running.lines);
        self.flight.count() > 0 || lines.any(|line| line.as_ref().is_some_and(Line::has_taken))
    }

    /// Whether the limits let a step through. A pause does not wait for them.
    fn charge(&mut self, request: &mut Request, step: Option<Step>) -> bool {
        if self.paused {
            return true;
        }
        let (bytes, operations) = request.price(step);
        let may = self.throttle.take(bytes, operations);
        if may {
            request.pay(bytes);
        } else if !std::mem::replace(&mut request.waited, true) {
            self.counters.throttled = self.counters.throttled.saturating_add(1);
        }
        may
    }

    fn step(&mut self, running: &mut Running, request: &Request, step: Step) -> Stepped {
        // The disk may have become smaller since the request was judged.
        if step.offset.saturating_add(step.len) > self.geometry.bytes {
            return Stepped::Failed(Failure::Refused(Status::IoError));
        }
        let spans = request.spans(step);
        if self.flight.has_engine() {
            let Some(tag) = self.flight.tag() else {
                return Stepped::Full;
            };
            match self.begin(&running.ram, tag, step, &spans) {
                Begun::Running => return Stepped::Flying(tag),
                Begun::Over(result) => return stepped(step, result),
                // The disk's own methods take it while nothing else runs.
                Begun::Refused => self.drain(running),
            }
        }
        let result = execute(self.disk.as_mut(), step, &running.ram, &spans);
        stepped(step, result)
    }

    /// Hands a step to the engine.
    fn begin(&mut self, ram: &GuestRam, tag: u16, step: Step, spans: &[Span]) -> Begun {
        let operation = Operation {
            task: step.task,
            offset: step.offset,
            len: step.len,
            ram,
            spans,
        };
        match self.disk.engine() {
            Some(engine) => engine.begin(tag, &operation),
            None => Begun::Refused,
        }
    }

    /// Starts what the engine was given: whether that left something for this thread to do.
    fn submit(&mut self, running: &mut Running) -> bool {
        if !self.flight.is_flying() {
            return false;
        }
        let submitted = self.disk.engine().map_or(Ok(()), Engine::submit);
        if let Err(error) = &submitted {
            self.lose_engine(running, error);
            self.drain(running);
        }
        submitted.is_err()
    }

    /// Whether something in the air goes on only when the engine is told to.
    fn has_more(&mut self) -> bool {
        self.flight.is_flying() && self.disk.engine().is_some_and(|engine| engine.has_more())
    }

    /// The engine takes no more.
    fn lose_engine(&mut self, running: &mut Running, error: &std::io::Error) {
        running.interrupt.warn(format_args!(
            "the host takes no more work ({error}); engine=sync is used"
        ));
        self.flight.give_up_engine();
    }

    /// Takes in what the engine has finished: whether there was anything.
    fn reap(&mut self, running: &mut Running) -> bool {
        if !self.flight.is_flying() {
            return false;
        }
        let mut done = std::mem::take(&mut self.flight.ended);
        if let Some(engine) = self.disk.engine() {
            engine.finished(&mut done);
        }
        let any = !done.is_empty();
        for Finished { tag, result } in done.drain(..) {
            let Some((mut request, step)) = self.flight.land(tag) else {
                continue;
            };
            match result {
                Err(error) => self.finish(running, request, &Err(failure(step.task, error))),
                Ok(()) => {
                    request.advance(step);
                    if request.next(PIECE_BYTES).is_some() {
                        self.flight.landed.push_back(request);
                    } else {
                        self.finish(running, request, &Ok(()));
                    }
                }
            }
        }
        self.flight.ended = done;
        any
    }

    /// Waits until the engine has nothing in the air. What has more to do has landed then.
    fn drain(&mut self, running: &mut Running) {
        let began = Instant::now();
        let mut cancelled = false;
        loop {
            self.reap(running);
            let Some(engine) = self.disk.engine() else {
                break;
            };
            if let Err(error) = engine.submit()
                && self.flight.has_engine()
            {
                self.lose_engine(running, &error);
                continue;
            }
            // What the engine cannot go on with does not count as running.
            if engine.running() == 0 {
                break;
            }
            engine.wait(LOOK_AGAIN);
            if !cancelled && began.elapsed() > PATIENCE {
                engine.cancel();
                cancelled = true;
            }
        }
        self.reap(running);
        // What an engine that was lost never began is done within the call.
        let grounded = self.flight.crash().into_iter();
        let grounded = grounded.map(|(request, _)| request);
        self.flight.landed.extend(grounded);
    }

    /// Waits until nothing is in the air, and tells the driver of what has ended.
    pub(super) fn land(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        if self.flight.is_flying() {
            self.drain(&mut running);
        }
        for line in running.lines.iter_mut().flatten() {
            line.queue.notify();
        }
        self.running = Some(running);
    }

    /// Waits until nothing is in the air, and forgets everything that its driver still waits for.
    pub(super) fn drop_all(&mut self) {
        self.land();
        self.flight.landed.clear();
    }

    /// Gives a request back with its result.
    fn finish(&mut self, running: &mut Running, request: Request, result: &Result<(), Failure>) {
        if !is_live(running, &request) {
            return self.abandon(running, request);
        }
        let tally = request.tally();
        self.counters.count(result, tally);
        if let Err(Failure::Host(task, error)) = result {
            let (doing, cause) = (name(*task), &error.error);
            running
                .interrupt
                .warn(format_args!("the host cannot {doing} the disk: {cause}"));
        }
        let index = request.line;
        let is_long =
            matches!(tally, Some((Task::Read | Task::Write, bytes)) if bytes >= LONG_BYTES);
        let (chain, written) = request.end(&running.ram, &self.id, result);
        if let Some(Some(line)) = running.lines.get_mut(index) {
            line.queue.complete(chain, written);
            // Half of what was there: the driver sends more while the other half is worked on.
            if is_long && usize::from(line.queue.unpublished()) >= line.taken.len() {
                line.queue.publish();
            }
        }
    }

    /// Lets go of a request whose queue was taken back: its memory is the driver's again.
    fn abandon(&mut self, running: &mut Running, request: Request) {
        let index = request.line;
        let chain = request.abandon();
        if let Some(Some(line)) = running.lines.get_mut(index) {
            line.queue.complete(chain, 0);
        }
    }
}

fn is_live(running: &Running, request: &Request) -> bool {
    let line = running.lines.get(request.line).and_then(Option::as_ref);
    line.is_some_and(|line| line.queue.is_live())
}

/// Asks all drivers to ring for what comes next: whether something has come already. A queue whose
/// request waits is not asked for more.
fn arm(running: &mut Running) -> bool {
    let mut more = false;
    for line in running.lines.iter_mut().flatten() {
        if line.taken.is_empty() {
            // A queue that is broken says so itself.
            more |= line.queue.arm().unwrap_or(false);
        }
    }
    more
}

/// Does a step within the call.
fn execute(
    disk: &mut dyn Disk,
    step: Step,
    ram: &GuestRam,
    spans: &[Span],
) -> Result<(), TransferError> {
    let whole = |error| TransferError { done: 0, error };
    match step.task {
        Task::Read => disk.read(step.offset, ram, spans),
        Task::Write => disk.write(step.offset, ram, spans),
        Task::Flush => disk.flush().map_err(whole),
        Task::Discard => disk.discard(step.offset, step.len).map_err(whole),
        Task::Zero { unmap } => disk
            .write_zeroes(step.offset, step.len, unmap)
            .map_err(whole),
    }
}

fn stepped(step: Step, result: Result<(), TransferError>) -> Stepped {
    match result {
        Ok(()) => Stepped::Done,
        Err(error) => Stepped::Failed(failure(step.task, error)),
    }
}

fn failure(task: Task, error: TransferError) -> Failure {
    let of_ranges = matches!(task, Task::Discard | Task::Zero { .. });
    if of_ranges && error.error.kind() == std::io::ErrorKind::Unsupported {
        return Failure::Refused(Status::Unsupported);
    }
    Failure::Host(task, error)
}

fn name(task: Task) -> &'static str {
    match task {
        Task::Read => "read",
        Task::Write => "write",
        Task::Flush => "flush",
        Task::Discard => "discard",
        Task::Zero { .. } => "zero",
    }
}
