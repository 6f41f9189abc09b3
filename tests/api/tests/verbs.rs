//! Eight clients that ask at random, all at once, against a model: they describe a machine, one of
//! them starts it, they change it. Every answer is the one that it must be, and at the end the
//! machine is what the model says.

use anyhow::{Context, Result, bail, ensure};
use api::client::{Answer, Client, ClientError};
use api_tests::model::{self, Ask, Dice, Drive, Expect, Image};
use api_tests::monitor::Monitor;
use harness::vm::SHORTLY;
use harness::{guests, skip};
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

const CLIENTS: usize = 8;
/// Requests of each client before the start and after it.
const REQUESTS: [usize; 2] = [2_000, 8_000];
static IMAGE: [u8; 64 << 10] = [0; 64 << 10];

/// A client and its drive.
struct Asker {
    socket: PathBuf,
    client: Option<Client>,
    dice: Dice,
    drive: Drive,
    place: usize,
}

impl Asker {
    fn run(&mut self, requests: usize, started: bool) -> Result<()> {
        for number in 0..requests {
            let ask = match self.dice.below(4) {
                0 => model::anything(&mut self.dice, started),
                1 if !started => self.drive.look(self.place),
                _ if started => self.drive.ask(&mut self.dice, self.place),
                _ => self.drive.describe(&mut self.dice),
            };
            self.check(&ask).with_context(|| {
                let place = self.place;
                format!("request {number} at drive {place}, started: {started}: {ask:?}")
            })?;
            if self.dice.once_in(100) {
                self.client = None;
            }
        }
        self.check(&self.drive.look(self.place))
    }

    fn check(&mut self, ask: &Ask) -> Result<()> {
        let answer = self.answer(ask)?;
        let body = answer.json();
        match &ask.expect {
            Expect::Done => ensure!(
                answer.status == 204 && answer.body.is_empty(),
                "{}: {body}",
                answer.status
            ),
            Expect::Shows(at, value) => ensure!(
                answer.status == 200
                    && body
                        .pointer(at)
                        .is_some_and(|told| model::says(told, value)),
                "{}: {body}",
                answer.status
            ),
            Expect::Refused(status, code) => ensure!(
                answer.status == *status && body["code"] == *code,
                "{}: {body}",
                answer.status
            ),
        }
        ensure!(answer.keep_alive, "the connection ends");
        Ok(())
    }

    /// The answer, of as many connections as it takes to find a place.
    fn answer(&mut self, ask: &Ask) -> Result<Answer> {
        let body = ask.body.as_deref().map(str::as_bytes);
        for _ in 0..10_000 {
            let client = match &mut self.client {
                Some(client) => client,
                none => none.insert(Client::connect(&self.socket, SHORTLY)?),
            };
            match client.request(ask.method, &ask.path, body) {
                Ok(answer) if answer.status == 503 => self.client = None,
                // Told that there is no place before it could ask.
                Err(ClientError::Io(_)) => self.client = None,
                answer => return Ok(answer?),
            }
        }
        bail!("there is never a place");
    }
}

/// All at once, each with its own drive.
fn run(askers: &mut [Asker], requests: usize, started: bool) -> Result<()> {
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let run = |asker| scope.spawn(move || Asker::run(asker, requests, started));
        let threads: Vec<_> = askers.iter_mut().map(run).collect();
        let outcomes = threads.into_iter().map(ScopedJoinHandle::join);
        outcomes.collect()
    });
    for outcome in outcomes {
        outcome.ok().context("a thread")??;
    }
    Ok(())
}

fn asker(monitor: &Monitor, seed: u64, place: usize) -> Result<Asker> {
    let images = ["a", "b", "c"].map(|name| -> Result<Image> {
        let path = monitor.file(&format!("{name}{place}"), &IMAGE)?;
        Ok(Image {
            path,
            bytes: IMAGE.len() as u64,
        })
    });
    let images = images.into_iter().collect::<Result<Vec<_>>>()?;
    let drive = Drive::new(format!("drive{place}"), images);
    monitor.put(&format!("/drives/{}", drive.id), &drive.first())?;
    Ok(Asker {
        socket: monitor.socket(),
        client: None,
        dice: Dice::new(seed.wrapping_mul(CLIENTS as u64) + place as u64),
        drive,
        place,
    })
}

fn length(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

#[test]
fn random_requests_of_eight_clients_are_answered_as_the_model_says() {
    if skip::without_kvm() {
        return;
    }
    let monitor = Monitor::start(&[]).unwrap();
    let seed = u64::from(std::process::id());
    let askers = (0..CLIENTS).map(|place| asker(&monitor, seed, place));
    let mut askers: Vec<_> = askers.collect::<Result<_>>().unwrap();
    let [before, after] = REQUESTS;
    let judge =
        |outcome: Result<()>| outcome.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    judge(run(&mut askers, before, false));
    judge(monitor.boot(&guests::halt()));
    judge(run(&mut askers, after, true));
    for image in askers.iter().flat_map(|asker| &asker.drive.images) {
        assert_eq!(length(&image.path).unwrap(), image.bytes, "seed {seed}");
    }
}
