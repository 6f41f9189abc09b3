//! The host's ends of a machine's networks: taps are opened, and each user-mode network gets a
//! process of its own, which ends with the machine.

pub(crate) mod setup;
pub(crate) mod user;

use std::path::PathBuf;

use devices::net::Link;
use devices::net::passt::{Passt, PasstError};
use devices::net::tap::{Tap, TapError};
use vmm::config::{Config, LinkConfig, NetConfig};

use crate::failure::Failure;
use user::{Helper, Starting};

/// Networks whose processes are on their way.
pub(crate) struct Links {
    parts: Vec<Part>,
}

enum Part {
    Tap(devices::net::tap::TapRequest),
    User(Starting),
    Passt(PathBuf, u16),
}

/// What has to live as long as the machine does.
#[derive(Debug)]
pub(crate) struct Helpers(#[expect(dead_code, reason = "dropping it ends them")] Vec<Helper>);

/// Finds what makes no sense in the texts of user-mode networks, and starts nothing.
pub(crate) fn check(config: &Config) -> Result<(), Failure> {
    for (index, net) in config.nets.iter().enumerate() {
        if let LinkConfig::User { mtu, spec } = &net.link {
            user::read(index, net, *mtu, spec)?;
        }
    }
    Ok(())
}

impl Links {
    /// Starts the processes, which get ready while the machine is planned.
    pub(crate) fn start(config: &Config) -> Result<Self, Failure> {
        let start = |(index, net): (usize, &NetConfig)| match &net.link {
            LinkConfig::Tap(request) => Ok(Part::Tap(request.clone())),
            LinkConfig::User { mtu, spec } => {
                let config = user::read(index, net, *mtu, spec)?;
                Starting::spawn(&config).map(Part::User)
            }
            LinkConfig::Passt { path, mtu } => Ok(Part::Passt(path.clone(), *mtu)),
        };
        let parts = config.nets.iter().enumerate().map(start);
        Ok(Self {
            parts: parts.collect::<Result<_, _>>()?,
        })
    }

    /// Opens the taps and waits for the processes.
    pub(crate) fn open(self) -> Result<(Vec<Box<dyn Link>>, Helpers), Failure> {
        let mut links: Vec<Box<dyn Link>> = Vec::with_capacity(self.parts.len());
        let mut helpers = Vec::new();
        for part in self.parts {
            match part {
                Part::Tap(request) => links.push(Box::new(Tap::open(&request)?)),
                Part::Passt(path, mtu) => links.push(Box::new(Passt::connect(&path, mtu)?)),
                Part::User(starting) => {
                    let (link, helper) = starting.ready()?;
                    links.push(Box::new(link));
                    helpers.push(helper);
                }
            }
        }
        Ok((links, Helpers(helpers)))
    }
}

impl From<PasstError> for Failure {
    fn from(error: PasstError) -> Self {
        let hint = format!("start passt before: passt --socket {}", error.path);
        Self::input(error.to_string(), hint)
    }
}

impl From<TapError> for Failure {
    fn from(error: TapError) -> Self {
        Self::input(error.to_string(), error.remedy())
    }
}
