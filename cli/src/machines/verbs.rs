//! What `coracle machine` does with machines that run.

use std::time::Duration;

use api::client::{Answer, Client, ClientError};
use api::machine::MachineRecord;
use serde_json::{Value, json};

use super::process::{Process, now_ms};
use super::registry::Registry;
use super::table::{self, Row};
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::print;

/// How long a machine may take to answer. It gives a device half of that.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for one of many in a list.
const GLANCE: Duration = Duration::from_secs(1);

/// How much longer a machine may take to come apart once its time is over.
const GRACE: Duration = Duration::from_secs(15);

const ACTIONS: &str = "/coracle/v1/actions";
const MACHINE: &str = "/coracle/v1/machine";

/// The machines that a command is for.
#[derive(Debug)]
pub(crate) enum Which {
    /// Those of these names.
    Named(Vec<String>),
    /// All that run.
    All,
}

impl Which {
    fn records(&self, registry: &Registry) -> Result<Vec<Result<MachineRecord, Failure>>, Failure> {
        Ok(match self {
            Self::Named(names) => names.iter().map(|name| registry.find(name)).collect(),
            Self::All => registry.all()?.into_iter().map(Ok).collect(),
        })
    }

    /// Does something with each, though it fails with another, and prints the names of those with
    /// which it went well: the first failure.
    fn each(&self, work: impl Fn(&MachineRecord) -> Result<(), Failure>) -> Result<Exit, Failure> {
        let mut failed = None;
        for record in self.records(&Registry::of_user())? {
            let done = record.and_then(|record| work(&record).map(|()| record.name));
            match done {
                Ok(name) => print::out(&format!("{name}\n"))?,
                Err(failure) => {
                    if let Some(earlier) = failed.replace(failure) {
                        // One is told of by who called; the others here.
                        earlier.report();
                    }
                }
            }
        }
        failed.map_or(Ok(Exit::Done), Err)
    }
}

/// Lists the machines that run.
pub(crate) fn list(json: bool, quiet: bool) -> Result<Exit, Failure> {
    let rows: Vec<_> = Registry::of_user().all()?.iter().map(row).collect();
    print::out(&match (json, quiet) {
        (true, _) => print::json(&rows)?,
        (false, true) => rows.iter().map(|row| format!("{}\n", row.name)).collect(),
        (false, false) => table::text(&rows, now_ms()),
    })?;
    Ok(Exit::Done)
}

fn row(record: &MachineRecord) -> Row {
    let answer = Client::connect(&record.socket, GLANCE).and_then(|mut client| client.get(MACHINE));
    let view = answer.map(|answer| answer.json()).unwrap_or_default();
    let text = |name: &str| view.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| view.get(name).and_then(Value::as_u64);
    Row {
        name: record.name.clone(),
        state: text("state").unwrap_or_else(|| "unreachable".to_owned()),
        vcpus: number("vcpus"),
        memory_bytes: number("memory_bytes"),
        kernel: text("kernel"),
        pid: record.pid,
        created_ms: record.created_ms,
        socket: record.socket.display().to_string(),
    }
}

/// Prints all that is known of machines, as JSON.
pub(crate) fn inspect(names: &[String]) -> Result<Exit, Failure> {
    let registry = Registry::of_user();
    let mut all = Vec::new();
    for name in names {
        let record = registry.find(name)?;
        let machine = ask(&record, |client| client.get(MACHINE))?.json();
        // A machine that is not started has no devices yet.
        let devices = ask(&record, |client| client.get("/coracle/v1/devices"));
        let reports = devices.map(|answer| answer.json()).unwrap_or_default();
        all.push(json!({
            "name": record.name,
            "socket": record.socket,
            "created_ms": record.created_ms,
            "machine": machine,
            "devices": reports,
        }));
    }
    print::out(&print::json(&all)?)?;
    Ok(Exit::Done)
}

/// Lets guests stand still, or go on.
pub(crate) fn act(which: &Which, action: &str) -> Result<Exit, Failure> {
    which.each(|record| {
        let body = json!({ "action": action });
        ask(record, |client| client.put(ACTIONS, &body)).map(drop)
    })
}

/// Ends machines as their guests like it, and waits; those that take too long are killed.
pub(crate) fn stop(which: &Which, timeout: Option<Duration>) -> Result<Exit, Failure> {
    which.each(|record| {
        let Some(process) = Process::of(record) else {
            return Ok(());
        };
        let timeout_ms = timeout.map(|timeout| timeout.as_millis());
        let body = match timeout_ms {
            Some(timeout_ms) => json!({ "action": "stop", "timeout_ms": clamp(timeout_ms) }),
            None => json!({ "action": "stop" }),
        };
        gone_or(&process, ask(record, |client| client.put(ACTIONS, &body)))?;
        // Without a word on it, the machine itself knows how long it has.
        let patience = timeout.map_or(Duration::MAX, |timeout| timeout.saturating_add(GRACE));
        if !process.ends_within(patience) {
            process.kill();
        }
        wait_for(&process, record)
    })
}

/// Ends machines at once, and waits for that.
pub(crate) fn kill(which: &Which) -> Result<Exit, Failure> {
    which.each(|record| {
        let Some(process) = Process::of(record) else {
            return Ok(());
        };
        let body = json!({ "action": "kill" });
        // The machine's own way leaves its files in order; one that does not answer has no say.
        let told = ask(record, |client| client.put(ACTIONS, &body));
        if told.is_err() || !process.ends_within(PATIENCE) {
            process.kill();
        }
        wait_for(&process, record)
    })
}

/// Changes a part of a machine.
pub(crate) fn set(name: &str, object: &str, fields: &[String]) -> Result<Exit, Failure> {
    let record = Registry::of_user().find(name)?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if object.is_empty() || !object.bytes().all(good) {
        return Err(Failure::input(
            format!("{object:?} is no part of a machine"),
            "give balloon, cpu, entropy, drives/NAME or network-interfaces/NAME",
        ));
    }
    let mut body = Value::Object(serde_json::Map::new());
    for field in fields {
        insert(&mut body, field)?;
    }
    let path = format!("/coracle/v1/{object}");
    ask(&record, |client| client.patch(&path, &body))?;
    Ok(Exit::Done)
}

/// Puts `a.b=value` into an object. What is no JSON is text, so that sizes need no quotes.
fn insert(body: &mut Value, field: &str) -> Result<(), Failure> {
    let Some((keys, text)) = field.split_once('=').filter(|(keys, _)| !keys.is_empty()) else {
        return Err(Failure::input(
            format!("{field:?} is not KEY=VALUE"),
            "write such as size=64M or limits.iops.size=500",
        ));
    };
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let mut place = body;
    for key in keys.split('.') {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[key];
    }
    *place = value;
    Ok(())
}

/// Prints a machine's counters, as Prometheus reads them.
pub(crate) fn metrics(name: &str) -> Result<Exit, Failure> {
    let record = Registry::of_user().find(name)?;
    let answer = ask(&record, |client| client.get("/coracle/v1/metrics"))?;
    print::out(&String::from_utf8_lossy(&answer.body))?;
    Ok(Exit::Done)
}

/// Prints what happens to a machine until its end, one JSON object a line.
pub(crate) fn events(name: &str) -> Result<Exit, Failure> {
    let record = Registry::of_user().find(name)?;
    let client = Client::connect(&record.socket, PATIENCE);
    let stream = client.and_then(|client| client.stream("/coracle/v1/events"));
    let mut stream = match stream.map_err(|error| unreachable(&record, &error))? {
        Ok(stream) => stream,
        Err(answer) => return Err(refused(&record, &answer)),
    };
    // A connection that breaks is the machine's end too.
    while let Ok(Some(line)) = stream.next_line() {
        print::out(&format!("{line}\n"))?;
    }
    Ok(Exit::Done)
}

/// Asks a machine: its answer, if it is not a refusal.
fn ask(
    record: &MachineRecord,
    request: impl FnOnce(&mut Client) -> Result<Answer, ClientError>,
) -> Result<Answer, Failure> {
    let mut client =
        Client::connect(&record.socket, PATIENCE).map_err(|error| unreachable(record, &error))?;
    let answer = request(&mut client).map_err(|error| unreachable(record, &error))?;
    match answer.is_success() {
        true => Ok(answer),
        false => Err(refused(record, &answer)),
    }
}

fn unreachable(record: &MachineRecord, error: &ClientError) -> Failure {
    Failure::host(
        format!("machine {}: {}", record.name, chain(error)),
        "`coracle machine ls` tells whether it runs; `coracle machine kill` ends it in any case",
    )
}

fn refused(record: &MachineRecord, answer: &Answer) -> Failure {
    let body = answer.json();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let message = format!("machine {}: {}", record.name, text("message"));
    match answer.status {
        400..=499 => Failure::input(message, text("hint")),
        _ => Failure::host(message, text("hint")),
    }
}

/// A machine that ends while it is told to has done as it was told.
fn gone_or<T>(process: &Process, told: Result<T, Failure>) -> Result<(), Failure> {
    match told {
        Err(_) if process.ends_within(Duration::ZERO) => Ok(()),
        told => told.map(drop),
    }
}

fn wait_for(process: &Process, record: &MachineRecord) -> Result<(), Failure> {
    match process.ends_within(PATIENCE) {
        true => Ok(()),
        false => Err(Failure::host(
            format!(
                "machine {}: its process {} does not end",
                record.name, record.pid
            ),
            "the host's storage may hang; it ends when that answers",
        )),
    }
}

fn clamp(milliseconds: u128) -> u64 {
    u64::try_from(milliseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_a_body() {
        let mut body = Value::Null;
        for field in [
            "size=2G",
            "rescan=true",
            "limits.iops.size=500",
            "limits.iops.refill_ms=1000",
            "limits.bandwidth=null",
            "path=/a=b",
        ] {
            insert(&mut body, field).unwrap();
        }
        let expected = json!({
            "size": "2G",
            "rescan": true,
            "limits": {"iops": {"size": 500, "refill_ms": 1000}, "bandwidth": null},
            "path": "/a=b",
        });
        assert_eq!(body, expected);
        for wrong in ["size", "=2G", ""] {
            assert!(insert(&mut body, wrong).is_err(), "{wrong:?}");
        }
    }
}
