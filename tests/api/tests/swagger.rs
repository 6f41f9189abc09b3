//! Firecracker's operations, right and wrong ones, in every phase of a machine's life.

use anyhow::{Context, Result, ensure};
use api::client::{Answer, Client};
use api::http::Method;
use api_tests::monitor::Monitor;
use api_tests::swagger::{Manner, OPERATIONS, Operation, Phase};
use harness::{guests, skip};
use serde_json::{Value, json};

/// A machine in a phase, with what an operation works on.
fn machine(phase: Phase, path: &str) -> Result<Monitor> {
    let monitor = Monitor::start(&[])?;
    for name in ["a.img", "b.img", "c.img"] {
        monitor.file(name, &[0; 1 << 16])?;
    }
    monitor.file("kernel", &guests::halt())?;
    monitor.file("initrd", &[0; 512])?;
    let size = json!({"vcpu_count": 1, "mem_size_mib": 32});
    monitor.put("/machine-config", &size)?;
    if path.starts_with("/balloon") {
        let balloon =
            json!({"amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1});
        monitor.put("/balloon", &balloon)?;
    }
    if path == "/mmds" {
        monitor.put(path, &json!({"a": 1}))?;
    }
    if phase != Phase::Fresh {
        let image = monitor.folder().join("c.img");
        let drive = json!({"drive_id": "d0", "is_root_device": false, "path_on_host": image});
        monitor.put("/drives/d0", &drive)?;
        monitor.boot(&guests::halt())?;
    }
    if phase == Phase::Paused {
        let paused = monitor.ask(Method::Patch, "/vm", &json!({"state": "Paused"}))?;
        ensure!(paused.status == 204, "pausing: {}", paused.json());
    }
    Ok(monitor)
}

fn ask(
    monitor: &Monitor,
    client: &mut Client,
    operation: &Operation,
    body: Option<&str>,
) -> Result<Answer> {
    let folder = monitor.folder().display().to_string();
    let body = body.map(|body| body.replace("\"W/", &format!("\"{folder}/")));
    let body = body.as_deref().map(str::as_bytes);
    Ok(client.request(operation.method, operation.path, body)?)
}

/// Everything that a client can see of a machine.
fn seen(client: &mut Client) -> Result<Value> {
    Ok(client.get("/vm/config")?.json())
}

fn refused(answer: &Answer) -> Result<()> {
    let body = answer.json();
    ensure!(answer.status == 400, "{}: {body}", answer.status);
    let message = body["fault_message"].as_str().unwrap_or_default();
    ensure!(!message.is_empty(), "no fault_message: {body}");
    Ok(())
}

fn played(phase: Phase, operation: &Operation) -> Result<usize> {
    let monitor = machine(phase, operation.path)?;
    let mut client = monitor.client()?;
    let before = seen(&mut client)?;
    let wrong = operation.wrong();
    for made in &wrong {
        let answer = ask(&monitor, &mut client, operation, made.body.as_deref())?;
        refused(&answer).with_context(|| format!("{}, {:?}", made.what, made.body))?;
    }
    ensure!(
        seen(&mut client)? == before,
        "a wrong request changes something"
    );
    let reads = operation.method == Method::Get;
    for all in [false, true] {
        // A change of nothing says nothing.
        let body = operation.body(all).to_string();
        let body = Some(body.as_str()).filter(|_| !reads);
        let answer = ask(&monitor, &mut client, operation, body)?;
        let said = answer.json();
        let again = all && operation.manner == Manner::Once;
        match (operation.phases.contains(&phase) && !again, reads) {
            (false, _) => refused(&answer).with_context(|| format!("{body:?}"))?,
            (true, false) => ensure!(
                answer.status == 204 && answer.body.is_empty(),
                "{body:?}: {} {said}",
                answer.status
            ),
            (true, true) => {
                ensure!(answer.status == 200, "{}: {said}", answer.status);
                let missing = operation.keys.iter().find(|key| said.get(key).is_none());
                ensure!(missing.is_none(), "no {missing:?}: {said}");
            }
        }
    }
    Ok(wrong.len() + 2)
}

fn all(phase: Phase) {
    if skip::without_kvm() {
        return;
    }
    let mut wrong = Vec::new();
    let mut requests = 0;
    for operation in OPERATIONS {
        match played(phase, operation) {
            Ok(count) => requests += count,
            Err(error) => wrong.push(format!(
                "{} {}: {error:#}",
                operation.method, operation.path
            )),
        }
    }
    assert!(wrong.is_empty(), "{phase:?}:\n{}", wrong.join("\n"));
    assert!(requests >= 60, "{requests}");
    println!(
        "{} operations, {requests} requests: {phase:?}",
        OPERATIONS.len()
    );
}

#[test]
fn before_the_start() {
    all(Phase::Fresh);
}

#[test]
fn while_the_guest_runs() {
    all(Phase::Running);
}

#[test]
fn while_the_guest_is_paused() {
    all(Phase::Paused);
}

/// Methods that a path does not have are refused in every phase.
#[test]
fn other_methods() {
    if skip::without_kvm() {
        return;
    }
    let methods = [Method::Get, Method::Put, Method::Patch, Method::Post];
    for phase in [Phase::Fresh, Phase::Running] {
        let monitor = machine(phase, "").unwrap();
        let mut client = monitor.client().unwrap();
        for operation in OPERATIONS {
            for method in methods {
                let mut same = OPERATIONS.iter().filter(|one| one.path == operation.path);
                // Drives are named differently before and after the start.
                let known = same.any(|one| one.method == method);
                if known || operation.path.starts_with("/drives") || operation.path == "/balloon" {
                    continue;
                }
                let body = (method != Method::Get).then_some(b"{}".as_slice());
                let answer = client.request(method, operation.path, body).unwrap();
                let name = format!("{method} {}", operation.path);
                refused(&answer).with_context(|| name).unwrap();
            }
        }
    }
}
