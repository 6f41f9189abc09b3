//! What is answered to whom: Firecracker's metadata service, versions 1 and 2.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use crate::counters::{Counters, bump};
use crate::document::Metadata;
use crate::http::{Ask, Reply};
use crate::token::{LONGEST, SHORTEST, Tokens};

/// Where tokens are asked for.
const TOKEN_PATH: &str = "/latest/api/token";

/// How metadata is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// By anybody. Tokens are given too, and not asked for.
    #[default]
    V1,
    /// With a token.
    V2,
}

/// How a service is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether a token is needed.
    pub version: Version,
    /// Answers are text whatever the request accepts, as EC2 gives them.
    pub imds_compat: bool,
}

/// A machine's metadata service; copies are one.
#[derive(Clone, Debug)]
pub struct Service {
    metadata: Metadata,
    settings: Settings,
    tokens: Arc<Tokens>,
}

impl Service {
    /// The service that tells of `metadata`.
    ///
    /// # Errors
    /// When the host has no random bytes.
    pub fn new(metadata: Metadata, settings: Settings, now: Instant) -> std::io::Result<Self> {
        Ok(Self {
            metadata,
            settings,
            tokens: Arc::new(Tokens::new(now)?),
        })
    }

    /// The answer to a request.
    pub(crate) fn answer(&self, ask: &Ask<'_>, counters: &mut Counters, now: Instant) -> Reply {
        bump(&mut counters.requests);
        match ask.method {
            "GET" => match self.check(ask, counters, now) {
                Some(refusal) => refusal,
                None => self.read(ask),
            },
            "PUT" => self.token(ask, now),
            _ => Reply {
                header: Some(("Allow", "GET, PUT".to_owned())),
                ..Reply::text(405, "Not allowed HTTP method.")
            },
        }
    }

    /// Why a request may not read, if it may not.
    fn check(&self, ask: &Ask<'_>, counters: &mut Counters, now: Instant) -> Option<Reply> {
        let about = match ask.token {
            Some(token) if self.tokens.is_good(token, now) => return None,
            Some(_) => {
                bump(&mut counters.invalid_token);
                "MMDS token not valid."
            }
            None => {
                bump(&mut counters.no_token);
                "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` \
                 header to specify the session token."
            }
        };
        (self.settings.version == Version::V2).then(|| Reply::text(401, about))
    }

    fn read(&self, ask: &Ask<'_>) -> Reply {
        let document = self.metadata.get();
        let document = document.as_deref().unwrap_or(&Value::Null);
        let Some(value) = find(document, ask.path) else {
            return missing(ask.path);
        };
        if ask.json && !self.settings.imds_compat {
            return Reply {
                json: true,
                ..Reply::text(200, value.to_string())
            };
        }
        match text(value) {
            Some(text) => Reply::text(200, text),
            None => Reply::text(
                501,
                "Cannot retrieve value. The value has an unsupported type.",
            ),
        }
    }

    fn token(&self, ask: &Ask<'_>, now: Instant) -> Reply {
        if ask.forwarded {
            return Reply::text(
                400,
                "Tokens are not given to proxies: the request has an X-Forwarded-For header.",
            );
        }
        if !names(ask.path).eq(names(TOKEN_PATH)) || ask.path.ends_with('/') {
            return missing(ask.path);
        }
        let Some((name, value)) = ask.seconds else {
            return Reply::text(
                400,
                "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or \
                 `X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.",
            );
        };
        let seconds = std::str::from_utf8(value).ok();
        let seconds: Option<u32> = seconds.and_then(|digits| digits.parse().ok());
        let token = seconds.and_then(|seconds| Some((seconds, self.tokens.issue(seconds, now)?)));
        match token {
            Some((seconds, token)) => Reply {
                header: Some((name, seconds.to_string())),
                ..Reply::text(200, token)
            },
            None => Reply::text(
                400,
                format!(
                    "Invalid time to live value provided for token: {}. Please provide a value \
                     between {SHORTEST} and {LONGEST}.",
                    String::from_utf8_lossy(value)
                ),
            ),
        }
    }
}

fn missing(path: &str) -> Reply {
    Reply::text(404, format!("Resource not found: {path}."))
}

/// The names in a path. Several slashes are one.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// What a path names: each of its names is a step into the document, written as in a JSON pointer
/// (RFC 6901), so that `~1` is a slash and `~0` a tilde.
fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    names(path).try_fold(document, |value, name| match value {
        Value::Object(map) if name.contains('~') => {
            map.get(&name.replace("~1", "/").replace("~0", "~"))
        }
        Value::Object(map) => map.get(name),
        Value::Array(list) => list.get(place(name)?),
        _ => None,
    })
}

/// A place in a list: digits without a zero in front.
fn place(name: &str) -> Option<usize> {
    let plain = name == "0" || !name.starts_with(['0', '+']);
    plain.then(|| name.parse().ok())?
}

/// A value as EC2's service writes it: a text as it is, of an object the names, with a slash behind
/// those that lead further. The others have no such form.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(map) => {
            let lines = map.iter().map(|(name, value)| {
                let slash = if value.is_object() { "/" } else { "" };
                format!("{name}{slash}")
            });
            Some(lines.collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
