//! What of a machine's API outlives its start: its clients, and what is known of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use api::error::{ApiError, Code, Dialect};
use api::events::{self, Event};
use api::firecracker::{Logger, Metrics};
use api::http::Response;
use api::machine::MachineState;
use api::request::{self, Call, Read, note};
use api::server::{Server, Ticket};
use api::spec::MachineSpec;
use mmds::Metadata;

use super::description::Description;
use super::metrics::MetricsFile;

/// Who is to be answered, and in which language.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) ticket: Ticket,
    pub(super) dialect: Dialect,
    /// Whether it is to be told that it asks in a way that will go.
    deprecated: bool,
}

/// Sets the log of the process up, which is not the machine's.
pub(super) type SetLogger = fn(&Logger) -> Result<(), ApiError>;

/// The side of a machine that its API's clients see, whatever the machine's state.
#[derive(Debug)]
pub struct Front {
    pub(super) server: Server,
    pub(super) description: Description,
    pub(super) set_logger: SetLogger,
    /// Where counters are written, if a client wants them.
    pub(super) metrics: Option<MetricsFile>,
    /// Who has asked for the start. The answer waits for how it goes.
    pub(super) starter: Option<Client>,
    /// How many events there have been.
    events: u64,
}

impl Front {
    /// Serves those who connect to `server`.
    #[must_use]
    pub fn new(server: Server, description: Description, set_logger: SetLogger) -> Self {
        Self {
            server,
            description,
            set_logger,
            metrics: None,
            starter: None,
            events: 0,
        }
    }

    /// The machine as it is described now.
    #[must_use]
    pub fn spec(&self) -> &MachineSpec {
        self.description.spec()
    }

    /// The machine is another than was described.
    pub fn describe(&mut self, spec: MachineSpec) {
        self.description.spec = spec;
    }

    /// The metadata of the machine.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        self.description.metadata()
    }

    /// The next call to a machine in `state`. Requests that make none are answered on the way.
    pub(super) fn take(&mut self, state: MachineState) -> Option<(Call, Client)> {
        while let Some((ticket, request)) = self.server.take() {
            // Looked at here, since the line takes time to make.
            if log::log_enabled!(log::Level::Info) {
                let described = note::described(&request);
                log::info!("The API server received a {described}.");
            }
            match request::read(&request, state) {
                Read::Refused(response) => self.send(ticket, &response),
                Read::Call(call, dialect) => {
                    let deprecated = note::deprecated(&request);
                    if let Some(what) = deprecated {
                        log::warn!("{what}");
                    }
                    let client = Client {
                        ticket,
                        dialect,
                        deprecated: deprecated.is_some(),
                    };
                    return Some((call, client));
                }
            }
        }
        None
    }

    /// Answers with what happens from now on, beginning with the machine's state.
    pub(super) fn follow(&mut self, client: Client, state: MachineState) {
        let line = events::line(self.events, now_ms(), &Event::State { state });
        self.server.stream(client.ticket, &line);
    }

    /// Tells those who follow what has happened.
    pub(super) fn tell(&mut self, event: &Event) {
        self.events = self.events.saturating_add(1);
        let line = events::line(self.events, now_ms(), event);
        self.server.publish(&line);
    }

    /// Tells who asked for it that the machine is there, and runs or stands still.
    pub(crate) fn started(&mut self, state: MachineState) {
        self.tell(&Event::State { state });
        if let Some(client) = self.starter.take() {
            self.answer(client, Ok(Response::done()));
        }
    }

    /// Tells who asked for it why the machine was not started.
    pub fn not_started(&mut self, error: ApiError) {
        if let Some(client) = self.starter.take() {
            self.answer(client, Err(error));
        }
    }

    /// Writes counters to a file from now on.
    ///
    /// # Errors
    /// When there is such a file already, or it can't be written.
    pub fn count(&mut self, wanted: &Metrics) -> Result<(), ApiError> {
        if self.metrics.is_some() {
            return Err(ApiError::new(
                Code::WrongState,
                "the metrics have a file already",
                "give metrics_path once",
            ));
        }
        self.metrics = Some(MetricsFile::open(&wanted.metrics_path)?);
        Ok(())
    }

    /// Answers a client once.
    pub(super) fn answer(&mut self, client: Client, outcome: Result<Response, ApiError>) {
        let mut response = outcome.unwrap_or_else(|error| error.response(client.dialect));
        if client.deprecated {
            response = response.with("Deprecation", "true");
        }
        self.send(client.ticket, &response);
    }

    fn send(&mut self, ticket: Ticket, response: &Response) {
        if log::log_enabled!(log::Level::Info) {
            log::info!("{}", response.described());
        }
        self.server.answer(ticket, response);
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
