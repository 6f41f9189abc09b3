//! What a hundred thousand requests leave behind.

use anyhow::{Context, Result, ensure};
use api_tests::served::Served;
use harness::{guests, skip};

const REQUESTS: usize = 100_000;
const MOST_GROWTH_KIB: u64 = 1024;

/// Good and bad requests of every size that keep the connection.
fn requests() -> Vec<(Vec<u8>, u16)> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    let patch = |path: &str, body: &str| {
        let len = body.len();
        format!("PATCH {path} HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}").into_bytes()
    };
    let limits = r#"{"limits": {"iops": {"size": 1000}}}"#;
    vec![
        (get("/"), 200),
        (get("/vm/config"), 200),
        (get("/coracle/v1/devices"), 200),
        (get("/nope"), 400),
        (patch("/coracle/v1/entropy", limits), 204),
        (patch("/coracle/v1/entropy", "nope"), 400),
        (patch("/coracle/v1/entropy", &"[".repeat(20_000)), 400),
        (get(&format!("/{}", "a".repeat(4000))), 400),
    ]
}

fn ask(served: &Served, count: usize) -> Result<()> {
    let requests = requests();
    let mut rounds = 0;
    while rounds < count {
        let mut raw = served.raw()?;
        for (bytes, status) in requests.iter().cycle().take(800) {
            raw.send(bytes, usize::MAX);
            let reply = raw.reply()?.context("the connection ended")?;
            ensure!(reply.status == *status, "{reply:?}");
        }
        rounds += 800;
    }
    Ok(())
}

#[test]
fn a_hundred_thousand_requests_leave_nothing_behind() {
    if skip::without_kvm() {
        return;
    }
    let served = Served::boot(&guests::halt(), Ok).unwrap();
    ask(&served, 4000).unwrap();
    let resident = || served.machine.process.status_kib("VmRSS").unwrap();
    let before = resident();
    ask(&served, REQUESTS).unwrap();
    let after = resident();
    let growth = after.saturating_sub(before);
    assert!(growth < MOST_GROWTH_KIB, "from {before} to {after} KiB");
}
