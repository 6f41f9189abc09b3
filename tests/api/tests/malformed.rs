//! The corpus of malformed messages against a machine: each in one piece, in small pieces, and
//! behind a good request. Nobody else is delayed, nothing changes, and the guest goes on.

use anyhow::{Context, Result, ensure};
use api::client::Client;
use api_tests::corpus::{self, Row};
use api_tests::raw::{Raw, Reply};
use api_tests::served::Served;
use harness::vm::SHORTLY;
use harness::{guests, skip};
use serde_json::Value;

/// A request that is always answered with 200.
const GOOD: &[u8] = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How a message is sent.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Whole,
    Pieces(usize),
    BehindAGoodOne,
}

fn boot() -> Result<Served> {
    Served::boot(&guests::echo(), |vm| {
        let disk = vm.file("disk", &[0; 1 << 16])?;
        Ok(vm.arg("--disk").arg(disk))
    })
}

/// What a request must not change.
fn seen(client: &mut Client) -> Result<Vec<Value>> {
    let paths = ["/vm/config", "/coracle/v1/machine", "/coracle/v1/devices"];
    paths
        .iter()
        .map(|path| Ok(client.get(path)?.json()))
        .collect()
}

fn play(served: &Served, row: &Row, manner: Manner) -> Result<()> {
    let mut raw = served.raw()?;
    let mut expected = row.statuses.clone();
    let piece = match manner {
        Manner::Whole => usize::MAX,
        Manner::Pieces(piece) => piece,
        Manner::BehindAGoodOne => {
            raw.send(GOOD, usize::MAX);
            expected.insert(0, 200);
            usize::MAX
        }
    };
    raw.send(&row.bytes, piece);
    if row.ends {
        // What follows is nobody's request.
        raw.send(GOOD, usize::MAX);
    }
    for (place, status) in expected.iter().enumerate() {
        let reply = raw.reply()?.context("no answer, and the end")?;
        let came = String::from_utf8_lossy(&reply.body).into_owned();
        ensure!(
            reply.status == *status,
            "{} for {status}: {came}",
            reply.status
        );
        let last = place + 1 == expected.len();
        let closes = row.ends && last;
        ensure!(reply.closes() == closes, "its Connection: {reply:?}");
        if *status != 200 {
            judge(&reply, closes)?;
        }
    }
    if row.ends {
        ensure!(raw.reply()?.is_none(), "the connection goes on");
        return Ok(());
    }
    raw.send(GOOD, usize::MAX);
    let next = raw.reply()?.context("the connection ended")?;
    ensure!(next.status == 200, "then {}", next.status);
    Ok(())
}

/// An error that a client can use.
fn judge(reply: &Reply, malformed: bool) -> Result<()> {
    let body = reply.json()?;
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    ensure!(
        reply.header("content-type") == Some("application/json"),
        "{reply:?}"
    );
    ensure!(!text("message").is_empty(), "no message: {body}");
    ensure!(
        text("message").len() < 1000,
        "a message of {}",
        text("message").len()
    );
    ensure!(body["retryable"] == false, "{body}");
    if malformed {
        ensure!(text("code") == "malformed-request", "{body}");
        ensure!(!text("hint").is_empty(), "no hint: {body}");
    }
    if reply.status == 400 && body.get("fault_message").is_some() {
        ensure!(body["fault_message"] == body["message"], "{body}");
    }
    Ok(())
}

#[test]
fn malformed_messages_are_refused_and_do_no_harm() {
    if skip::without_kvm() {
        return;
    }
    let mut served = boot().unwrap();
    let mut client = served.client().unwrap();
    let before = seen(&mut client).unwrap();
    let mut wrong = Vec::new();
    for row in corpus::rows() {
        let small = if row.bytes.len() < 400 { 1 } else { 997 };
        for manner in [Manner::Whole, Manner::Pieces(small), Manner::BehindAGoodOne] {
            if let Err(error) = play(&served, &row, manner) {
                wrong.push(format!("{} ({manner:?}): {error:#}", row.name));
            }
            // Another client is answered as if nothing was.
            assert_eq!(client.get("/").unwrap().status, 200, "{}", row.name);
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(seen(&mut client).unwrap(), before);
    served.machine.send("a").unwrap();
    served.machine.expect("a", SHORTLY).unwrap();
}

#[test]
fn messages_that_are_cut_off_are_dropped() {
    if skip::without_kvm() {
        return;
    }
    let served = boot().unwrap();
    let mut client = served.client().unwrap();
    let before = seen(&mut client).unwrap();
    for bytes in corpus::cut_off() {
        let mut raw = served.raw().unwrap();
        raw.send(&bytes, usize::MAX);
        raw.finish();
        assert_eq!(raw.reply().unwrap(), None, "{}", bytes.len());
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert_eq!(seen(&mut client).unwrap(), before);
}

#[test]
fn clients_that_go_at_once_are_forgotten() {
    if skip::without_kvm() {
        return;
    }
    let served = boot().unwrap();
    let mut client = served.client().unwrap();
    for row in corpus::rows() {
        let mut raw: Raw = served.raw().unwrap();
        raw.send(&row.bytes, usize::MAX);
        drop(raw);
        assert_eq!(client.get("/").unwrap().status, 200, "{}", row.name);
    }
}
