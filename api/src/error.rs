//! Errors of the API: a closed set of codes, each with its status, and sentences that say what is
//! wrong and what to do.

use std::borrow::Cow;

use serde::Serialize;

use crate::http::{Malformed, Response};

/// Which of the two languages of the API a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Firecracker's paths, bodies and answers: nearly every error is 400, with a `fault_message`.
    Firecracker,
    /// Ours, below `/coracle/v1`: the status says what kind of error it is.
    Coracle,
}

/// The most of a client's own words that it is told in an error.
const MOST_LETTERS: usize = 400;

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The bytes are no HTTP request that is answered.
    MalformedRequest,
    /// The client took too long to send a request.
    SlowRequest,
    /// As many clients as there can be are connected.
    TooManyConnections,
    /// Nothing is at this path.
    UnknownPath,
    /// The path is there and has no such method.
    MethodNotAllowed,
    /// The body is not what belongs there: no JSON, an unknown field, a wrong type.
    BadBody,
    /// A value that cannot be taken.
    InvalidValue,
    /// There would be more of it than there may be.
    TooLarge,
    /// The machine has no such device.
    UnknownDevice,
    /// The device cannot do that.
    NotSupported,
    /// The guest's driver is not there or did not accept what it takes.
    NoDriver,
    /// The machine's state does not allow it.
    WrongState,
    /// Another request is changing the device.
    DeviceBusy,
    /// A file of the host cannot be used.
    BadFile,
    /// The host failed.
    HostFailure,
    /// The device did not answer in time.
    DeviceTimeout,
}

impl Code {
    /// The status in our dialect.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedRequest | Self::BadBody => 400,
            Self::UnknownPath | Self::UnknownDevice => 404,
            Self::MethodNotAllowed => 405,
            Self::SlowRequest => 408,
            Self::NotSupported | Self::NoDriver | Self::WrongState | Self::DeviceBusy => 409,
            Self::TooLarge => 413,
            Self::InvalidValue | Self::BadFile => 422,
            Self::HostFailure => 500,
            Self::TooManyConnections => 503,
            Self::DeviceTimeout => 504,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::SlowRequest
                | Self::TooManyConnections
                | Self::NoDriver
                | Self::WrongState
                | Self::DeviceBusy
                | Self::DeviceTimeout
        )
    }
}

/// A request that was not carried out. Nothing has changed then, unless the message says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What kind it is.
    pub code: Code,
    /// The field of the body that is wrong, where it is one.
    pub field: Option<String>,
    /// What is wrong, in a sentence without its full stop.
    pub message: String,
    /// What to do, in a sentence without its full stop; may be empty.
    pub hint: String,
}

/// The error as it is written.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Error))]
pub(crate) struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_message: Option<&'a str>,
    code: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'a str,
    retryable: bool,
}

impl ApiError {
    /// An error without a field.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            field: None,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The error, of a field.
    #[must_use]
    pub fn of_field(self, field: impl Into<String>) -> Self {
        let field = Some(field.into());
        Self { field, ..self }
    }

    /// The answer in the language of the request.
    #[must_use]
    pub fn response(&self, dialect: Dialect) -> Response {
        match dialect {
            // The one kind that it tells from the others.
            Dialect::Firecracker if self.code == Code::TooLarge => self.written(413, true),
            Dialect::Firecracker => self.written(400, true),
            Dialect::Coracle => self.written(self.code.status(), false),
        }
    }

    /// The answer to a client whose language is not known; whichever it is, it finds its words.
    #[must_use]
    pub fn plain(&self, status: u16) -> Response {
        self.written(status, true)
    }

    fn written(&self, status: u16, fault_message: bool) -> Response {
        let message = &*shortened(&self.message);
        let field = self.field.as_deref().map(shortened);
        let body = Body {
            fault_message: fault_message.then_some(message),
            code: self.code,
            field: field.as_deref(),
            message,
            hint: &self.hint,
            retryable: self.code.retryable(),
        };
        Response::json(status, &body)
    }
}

/// The text without its middle, where it is long: its beginning says what is wrong, its end where.
fn shortened(text: &str) -> Cow<'_, str> {
    let letters = text.chars().count();
    if letters <= MOST_LETTERS {
        return text.into();
    }
    let half = MOST_LETTERS / 2;
    let first: String = text.chars().take(half).collect();
    let last: String = text.chars().skip(letters.saturating_sub(half)).collect();
    format!("{first} … {last}").into()
}

impl From<Malformed> for ApiError {
    fn from(error: Malformed) -> Self {
        Self::new(Code::MalformedRequest, error.to_string(), error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response) -> &str {
        std::str::from_utf8(&response.body).unwrap()
    }

    #[test]
    fn an_error_in_both_languages() {
        let error = ApiError::new(
            Code::UnknownDevice,
            "there is no disk d",
            "see GET /vm/config",
        )
        .of_field("drive_id");
        let theirs = error.response(Dialect::Firecracker);
        assert_eq!(theirs.status, 400);
        assert_eq!(
            text(&theirs),
            "{\"fault_message\":\"there is no disk d\",\"code\":\"unknown-device\",\
             \"field\":\"drive_id\",\"message\":\"there is no disk d\",\
             \"hint\":\"see GET /vm/config\",\"retryable\":false}"
        );
        let ours = error.response(Dialect::Coracle);
        assert_eq!(ours.status, 404);
        assert!(!text(&ours).contains("fault_message"));
    }

    #[test]
    fn a_long_text_is_told_by_its_ends() {
        let long = format!("unknown field `{}`, see line 1", "é".repeat(10_000));
        let told = shortened(&long);
        assert!(told.starts_with("unknown field `é") && told.ends_with("é`, see line 1"));
        assert_eq!(told.chars().count(), MOST_LETTERS + " … ".len() - 2);
        let short = "é".repeat(MOST_LETTERS);
        assert_eq!(shortened(&short), short.as_str());
        let error = ApiError::new(Code::BadBody, long, "").of_field("é".repeat(10_000));
        assert!(error.response(Dialect::Firecracker).body.len() < 4 * 1000);
    }
}
