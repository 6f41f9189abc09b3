//! A model of what a machine answers: for every request that a client may draw, the answer that it
//! must get, and what the machine must tell afterwards.

mod dice;
mod drive;

pub use dice::Dice;
pub use drive::{Drive, Image};

use api::http::Method;
use serde_json::Value;

/// A request and what must come of it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The body, for those that have one.
    pub body: Option<String>,
    /// The answer.
    pub expect: Expect,
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// 204, without a body.
    Done,
    /// 200, and at this pointer (RFC 6901) this value; an object may have more fields.
    Shows(String, Value),
    /// The status and the code of an error.
    Refused(u16, &'static str),
}

impl Ask {
    fn new(method: Method, path: impl Into<String>, body: Option<Value>, expect: Expect) -> Self {
        Self {
            method,
            path: path.into(),
            body: body.map(|body| body.to_string()),
            expect,
        }
    }
}

/// Whether `told` says what is `wanted`: an object may have more fields.
#[must_use]
pub fn says(told: &Value, wanted: &Value) -> bool {
    match (told, wanted) {
        (Value::Object(told), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| told.get(name).is_some_and(|told| says(told, value))),
        (told, wanted) => told == wanted,
    }
}

/// One of the requests that belong to no device, to a machine that is started or is not.
#[must_use]
pub fn anything(dice: &mut Dice, started: bool) -> Ask {
    use Expect::{Refused, Shows};
    let get = |path: &str, at: &str, value: &str| {
        Ask::new(Method::Get, path, None, Shows(at.into(), value.into()))
    };
    let no = |method, path: &str, body: Option<Value>, status, code| {
        Ask::new(method, path, body, Refused(status, code))
    };
    let body = || Some(serde_json::json!({}));
    let (theirs, ours) = match started {
        true => ("Running", "running"),
        false => ("Not started", "not-started"),
    };
    let version = api::firecracker::COMPATIBLE_VERSION;
    match dice.below(15) {
        0 => get("/", "/state", theirs),
        1 => get("/version", "/firecracker_version", version),
        2 => get("/machine-config", "/huge_pages", "None"),
        3 => get("/coracle/v1/machine", "/state", ours),
        4 if started => get("/coracle/v1/devices", "/0/name", "disk0"),
        4 => no(Method::Get, "/coracle/v1/devices", None, 409, "wrong-state"),
        5 => no(Method::Get, "/nope", None, 400, "unknown-path"),
        6 => no(Method::Delete, "/", None, 400, "method-not-allowed"),
        7 => no(Method::Put, "/version", body(), 400, "method-not-allowed"),
        8 => no(Method::Get, "/version", body(), 400, "bad-body"),
        9 => no(Method::Get, "/coracle/v1/nope", None, 404, "unknown-path"),
        10 => no(
            Method::Delete,
            "/coracle/v1/machine",
            None,
            405,
            "method-not-allowed",
        ),
        11 if started => no(
            Method::Patch,
            "/coracle/v1/balloon",
            body(),
            404,
            "unknown-device",
        ),
        11 => no(
            Method::Patch,
            "/coracle/v1/balloon",
            body(),
            409,
            "wrong-state",
        ),
        12 => no(Method::Get, "/balloon", None, 400, "unknown-device"),
        13 if started => {
            let size = Some(serde_json::json!({"vcpu_count": 1, "mem_size_mib": 128}));
            no(Method::Put, "/machine-config", size, 400, "wrong-state")
        }
        13 => {
            let size = Some(serde_json::json!({"vcpu_count": 0, "mem_size_mib": 128}));
            no(Method::Put, "/machine-config", size, 400, "invalid-value")
        }
        _ => no(Method::Put, "/actions", body(), 400, "bad-body"),
    }
}
