//! What is said of a request besides its answer: its line in the log, and whether it asks in a way
//! that Firecracker wants to be rid of.

use serde_json::{Map, Value};

use crate::http::{Method, Request};

/// The most of a body that a line of the log has.
const MOST_LETTERS: usize = 1000;

/// What ends the paths whose bodies stay out of the log: a guest's secrets may be in them.
const SECRET: [&str; 2] = ["/mmds", "/metadata"];

/// A request as the log has it, in Firecracker's words.
#[must_use]
pub fn described(request: &Request) -> String {
    let Request {
        method, path, body, ..
    } = request;
    let method = match method {
        Method::Get => "Get",
        Method::Put => "Put",
        Method::Patch => "Patch",
        other => other.as_str(),
    };
    let line = format!("{method} request on {path:?}");
    if body.is_empty() || SECRET.iter().any(|end| path.ends_with(end)) {
        return line;
    }
    // Cut off before it is judged as text, so that a long body costs no more than a short one.
    let start = body.get(..MOST_LETTERS).unwrap_or(body);
    let more = if start.len() < body.len() { "…" } else { "" };
    format!(
        "{line} with body {:?}{more}",
        String::from_utf8_lossy(start)
    )
}

/// What of a request is deprecated.
#[must_use]
pub fn deprecated(request: &Request) -> Option<&'static str> {
    let fields = || serde_json::from_slice::<Map<String, Value>>(&request.body).ok();
    let has = |field| {
        fields()?
            .get(field)
            .filter(|value| !value.is_null())
            .map(drop)
    };
    match (request.method, request.path.as_str()) {
        (Method::Put, "/machine-config") => {
            has("cpu_template")?;
            Some("PUT /machine-config: cpu_template field is deprecated.")
        }
        (Method::Patch, "/machine-config") => {
            has("cpu_template")?;
            Some("PATCH /machine-config: cpu_template field is deprecated.")
        }
        (Method::Put, "/vsock") => {
            has("vsock_id")?;
            Some("PUT /vsock: vsock_id field is deprecated.")
        }
        (Method::Put, "/mmds/config") => {
            let first = fields()?
                .get("version")
                .is_none_or(|version| version == "V1");
            first.then_some("PUT /mmds/config: V1 is deprecated. Use V2 instead.")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str, body: &str) -> Request {
        Request {
            method,
            path: path.into(),
            body: body.into(),
            keep_alive: true,
        }
    }

    #[test]
    fn lines_of_the_log() {
        for (asked, line) in [
            (request(Method::Get, "/", ""), "Get request on \"/\""),
            (
                request(Method::Put, "/actions", "{\"a\": 1}\n"),
                "Put request on \"/actions\" with body \"{\\\"a\\\": 1}\\n\"",
            ),
            (
                request(Method::Patch, "/mmds", "{\"key\": \"secret\"}"),
                "Patch request on \"/mmds\"",
            ),
            (
                request(Method::Put, "/coracle/v1/metadata", "{}"),
                "Put request on \"/coracle/v1/metadata\"",
            ),
        ] {
            assert_eq!(described(&asked), line);
        }
        let long = described(&request(Method::Put, "/x\ny", &"a".repeat(50_000)));
        assert!(long.len() < 1100 && long.ends_with("\"…") && !long.contains('\n'));
    }

    #[test]
    fn what_is_deprecated() {
        for (method, path, body, is_so) in [
            (
                Method::Put,
                "/machine-config",
                r#"{"cpu_template": "T2"}"#,
                true,
            ),
            (
                Method::Patch,
                "/machine-config",
                r#"{"cpu_template": "None"}"#,
                true,
            ),
            (
                Method::Put,
                "/machine-config",
                r#"{"cpu_template": null}"#,
                false,
            ),
            (
                Method::Put,
                "/machine-config",
                r#"{"vcpu_count": 1}"#,
                false,
            ),
            (Method::Put, "/machine-config", "{", false),
            (Method::Put, "/vsock", r#"{"vsock_id": "v"}"#, true),
            (Method::Put, "/vsock", r#"{"guest_cid": 3}"#, false),
            (
                Method::Put,
                "/mmds/config",
                r#"{"network_interfaces": ["a"]}"#,
                true,
            ),
            (Method::Put, "/mmds/config", r#"{"version": "V1"}"#, true),
            (Method::Put, "/mmds/config", r#"{"version": "V2"}"#, false),
            (Method::Put, "/mmds", r#"{"vsock_id": "v"}"#, false),
        ] {
            let told = deprecated(&request(method, path, body));
            assert_eq!(told.is_some(), is_so, "{path} {body}");
        }
    }
}
