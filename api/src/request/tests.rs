//! Requests of both languages, as tables of bodies.

use super::*;
use crate::limits::{BucketSpec, LimitsSpec};

fn request(method: Method, path: &str, body: &str) -> Request {
    Request {
        method,
        path: path.to_owned(),
        body: body.as_bytes().to_vec(),
        keep_alive: true,
    }
}

fn read_running(method: Method, path: &str, body: &str) -> Read {
    read(&request(method, path, body), MachineState::Running)
}

fn called(method: Method, path: &str, body: &str) -> Call {
    match read_running(method, path, body) {
        Read::Call(call, _) => call,
        Read::Refused(response) => {
            panic!("{path} {body}: {}", String::from_utf8_lossy(&response.body))
        }
    }
}

/// Status, code and field of a refusal.
fn refused(method: Method, path: &str, body: &str) -> (u16, String, String) {
    match read_running(method, path, body) {
        Read::Call(call, _) => panic!("{path} {body}: {call:?}"),
        Read::Refused(response) => {
            let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
            let theirs = routes::dialect(path) == Dialect::Firecracker;
            assert_eq!(json["fault_message"].is_string(), theirs);
            assert!(!text("message").is_empty());
            (response.status, text("code"), text("field"))
        }
    }
}

fn bucket(size: u64, refill_ms: u64, burst: u64) -> Change<BucketSpec> {
    Change::Set(BucketSpec {
        size,
        refill_ms,
        burst,
    })
}

#[test]
fn both_languages_ask_for_the_same() {
    let theirs = called(
        Method::Patch,
        "/drives/d1",
        r#"{"drive_id": "d1", "path_on_host": "/a", "rate_limiter":
            {"bandwidth": {"size": 9, "refill_time": 100, "one_time_burst": 7},
             "ops": {"size": 0, "refill_time": 1}}}"#,
    );
    let ours = called(
        Method::Patch,
        "/coracle/v1/drives/d1",
        r#"{"path": "/a", "limits":
            {"bandwidth": {"size": 9, "refill_ms": 100, "burst": 7}, "iops": null}}"#,
    );
    let limits = LimitsChange {
        bandwidth: bucket(9, 100, 7),
        iops: Change::Remove,
    };
    let expected = Call::Drive {
        id: "d1".into(),
        change: DriveChange {
            path: Some("/a".into()),
            limits,
            ..DriveChange::default()
        },
    };
    assert_eq!(theirs, expected);
    assert_eq!(ours, expected);
    let size = called(Method::Patch, "/balloon", r#"{"amount_mib": 8}"#);
    let same = called(Method::Patch, "/coracle/v1/balloon", r#"{"size": 8388608}"#);
    let change = |as_firecracker| {
        Call::ChangeBalloon(BalloonChange {
            size: Some(crate::spec::SizeSpec::Bytes(8 << 20)),
            as_firecracker,
            ..BalloonChange::default()
        })
    };
    assert_eq!((size, same), (change(true), change(false)));
}

#[test]
fn a_quota_is_said_even_where_it_goes() {
    let path = "/coracle/v1/cpu";
    for (body, quota) in [(r#"{"quota": 150}"#, 150), (r#"{"quota": null}"#, 0)] {
        let call = called(Method::Patch, path, body);
        assert_eq!(call, Call::LimitCpu(NonZeroU32::new(quota)));
    }
    for (body, status, field) in [
        ("{}", 400, "quota"),
        (r#"{"quota": -1}"#, 400, ""),
        (r#"{"quota": "150%"}"#, 400, ""),
        (r#"{"quota": 4294967296}"#, 400, ""),
        (r#"{"quota": 0}"#, 422, "quota"),
    ] {
        let (told, _, of) = refused(Method::Patch, path, body);
        assert_eq!((told, of.as_str()), (status, field), "{body}");
    }
}

#[test]
fn what_is_not_said_stays() {
    let change = |body| match called(Method::Patch, "/coracle/v1/drives/d", body) {
        Call::Drive { change, .. } => change,
        other => panic!("{other:?}"),
    };
    assert_eq!(change("{}"), DriveChange::default());
    let limits = change(r#"{"limits": {"iops": {"size": 1, "refill_ms": 2}}}"#).limits;
    let before = LimitsSpec {
        bandwidth: Some(BucketSpec {
            size: 5,
            refill_ms: 5,
            burst: 5,
        }),
        iops: None,
    };
    let after = limits.apply(before);
    assert_eq!(after.bandwidth, before.bandwidth);
    assert_eq!(after.iops.map(|one| one.refill_ms), Some(2));
    let none = change(r#"{"limits": {"bandwidth": null, "iops": null}}"#).limits;
    assert_eq!(none.apply(after), LimitsSpec::default());
    let short = change(r#"{"limits": {"bandwidth": {"size": "2M"}}}"#).limits;
    assert_eq!(short.bandwidth, bucket(2 << 20, 1000, 0));
    let grown = change(r#"{"size": "2G", "rescan": true}"#);
    assert_eq!(grown.size.unwrap().bytes(), Ok(2 << 30));
    let theirs = called(Method::Patch, "/drives/d", r#"{"drive_id": "d"}"#);
    let same = Call::Drive {
        id: "d".into(),
        change: DriveChange::default(),
    };
    assert_eq!(theirs, same);
}

#[test]
fn bodies_that_are_refused() {
    let deep = "[".repeat(100_000);
    let bad = [
        "",
        "{",
        "null",
        "[]",
        "\"a\"",
        "{} {}",
        r#"{"drive_id": "d", "x": 1}"#,
        r#"{"path_on_host": "/a"}"#,
        r#"{"drive_id": "other"}"#,
        r#"{"drive_id": 1}"#,
        r#"{"drive_id": "d", "drive_id": "d"}"#,
        r#"{"drive_id": "d", "rate_limiter": {"ops": {"size": 1}}}"#,
        r#"{"drive_id": "d", "rate_limiter": {"ops": {"size": -1, "refill_time": 1}}}"#,
        r#"{"drive_id": "d", "rate_limiter": {"ops": {"size": 1e400, "refill_time": 1}}}"#,
        r#"{"drive_id": "d", "rate_limiter": {"ops": {"size": 18446744073709551616,
            "refill_time": 1}}}"#,
        r#"{"drive_id": "d", "rate_limiter": {"nope": 1}}"#,
        "{\"drive_id\": \"d\", \"path_on_host\": \"\u{1}\"}",
        &deep,
    ];
    for body in bad {
        let (status, ..) = refused(Method::Patch, "/drives/d", body);
        assert_eq!(status, 400, "{body}");
    }
    let invalid = request(Method::Patch, "/drives/d", "");
    let invalid = Request {
        body: b"{\"drive_id\": \"\xff\"}".to_vec(),
        ..invalid
    };
    assert!(matches!(
        read(&invalid, MachineState::Running),
        Read::Refused(_)
    ));
    let ours = [
        ("{", 400, "bad-body", ""),
        (r#"{"paths": "/a"}"#, 400, "bad-body", "paths"),
        (r#"{"limits": {"x": 1}}"#, 400, "bad-body", "x"),
        (r#"{"limits": null}"#, 400, "bad-body", ""),
        (
            r#"{"limits": {"iops": {"size": "many"}}}"#,
            400,
            "bad-body",
            "",
        ),
        (
            r#"{"limits": {"iops": {"burst": 1}}}"#,
            400,
            "bad-body",
            "size",
        ),
        (
            r#"{"limits": {"bandwidth": {"size": 0, "refill_ms": 1}}}"#,
            422,
            "invalid-value",
            "limits.bandwidth.size",
        ),
        (
            r#"{"limits": {"iops": {"size": 1, "refill_ms": 0}}}"#,
            422,
            "invalid-value",
            "limits.iops.refill_ms",
        ),
    ];
    for (body, status, code, field) in ours {
        let came = refused(Method::Patch, "/coracle/v1/drives/d", body);
        assert_eq!(came, (status, code.to_owned(), field.to_owned()), "{body}");
    }
}

#[test]
fn methods_and_bodies_go_together() {
    for path in ["/", "/version", "/coracle/v1/machine"] {
        assert_eq!(refused(Method::Get, path, "{}").0, 400);
    }
    assert_eq!(refused(Method::Put, "/", "{}").0, 400);
    assert_eq!(refused(Method::Get, "/actions", "").0, 400);
    assert_eq!(refused(Method::Post, "/coracle/v1/machine", "{}").0, 405);
    assert_eq!(refused(Method::Get, "/coracle/v1/nope", "").0, 404);
    match read_running(Method::Delete, "/coracle/v1/machine", "") {
        Read::Refused(response) => {
            assert!(response.headers.contains(&("Allow", "GET, PUT".to_owned())));
        }
        Read::Call(call, _) => panic!("{call:?}"),
    }
}

#[test]
fn actions() {
    let act = |name: &str| format!(r#"{{"action_type": "{name}"}}"#);
    let pressed = called(Method::Put, "/actions", &act("SendCtrlAltDel"));
    assert_eq!(pressed, Call::PressPowerButton);
    let flushed = called(Method::Put, "/actions", &act("FlushMetrics"));
    assert_eq!(flushed, Call::FlushMetrics);
    for (name, code) in [("InstanceStart", "wrong-state"), ("Nope", "bad-body")] {
        assert_eq!(refused(Method::Put, "/actions", &act(name)).1, code);
    }
}

#[test]
fn states_are_judged() {
    let change = request(Method::Patch, "/drives/d", r#"{"drive_id": "d"}"#);
    for (state, allowed) in [
        (MachineState::NotStarted, false),
        (MachineState::Running, true),
        (MachineState::Paused, true),
    ] {
        let call = matches!(read(&change, state), Read::Call(..));
        assert_eq!(call, allowed, "{state:?}");
    }
}
