//! `coracle net`: what a host's networks lack, and taps for guests.

use std::path::Path;

use clap::{Args, Subcommand};
use devices::net::tap::TapRequest;
use vmm::host::net::{NetFacts, judge_net};

use super::{doctor, number};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::net::setup::{self, Bridge, Wanted};
use crate::print;

/// Find out what a host's networks lack, and set up taps
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    Doctor(Doctor),
    Setup(Setup),
}

/// Tell whether a tap can be had, what is around it, and what mends the rest
#[derive(Debug, Args)]
struct Doctor {
    /// The tap; it is opened, or made and removed again [default: any]
    #[arg(value_name = "TAP")]
    tap: Option<String>,

    /// With so many queues
    #[arg(long, value_name = "N", default_value = "1")]
    queues: String,

    /// With packets of so many bytes
    #[arg(long, value_name = "BYTES")]
    mtu: Option<String>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Print the commands that make a tap for a guest, or run them as root
///
/// Without --bridge the tap has a network of its own, whose packets leave by the host's address
/// (NAT). With --bridge it is a port of that bridge, which is made if there is none; with both
/// flags the bridge has the network and the address.
#[derive(Debug, Args)]
struct Setup {
    /// The tap
    #[arg(long, value_name = "TAP", default_value = "vm0")]
    tap: String,

    /// The network of tap or bridge, by the host's address in it [default: 172.31.0.1/24]
    #[arg(long, value_name = "ADDRESS/BITS")]
    nat: Option<String>,

    /// The bridge that the tap is a port of
    #[arg(long, value_name = "BRIDGE")]
    bridge: Option<String>,

    /// Who may use the tap [default: $SUDO_USER, else $USER]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Queues that a guest can have
    #[arg(long, value_name = "N", default_value = "1")]
    queues: String,

    /// Largest packet
    #[arg(long, value_name = "BYTES")]
    mtu: Option<String>,

    /// Run the commands, as root
    #[arg(long)]
    apply: bool,

    /// The commands that take it all away again
    #[arg(long)]
    undo: bool,
}

impl Flags {
    /// Does what was asked.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        match &self.command {
            Commands::Doctor(flags) => flags.run(),
            Commands::Setup(flags) => flags.run(),
        }
    }
}

fn small(field: &str, text: &str) -> Result<u16, Failure> {
    let hint = "give a number from 1 to 65535";
    let number = u16::try_from(number(field, text, hint)?).ok();
    let number = number.filter(|number| *number > 0);
    number.ok_or_else(|| Failure::input(format!("{field} {text}: not between 1 and 65535"), hint))
}

impl Doctor {
    fn run(&self) -> Result<Exit, Failure> {
        let mtu = self.mtu.as_deref().map(|text| small("mtu", text));
        let request = TapRequest {
            name: self.tap.clone(),
            fds: Vec::new(),
            queues: small("queues", &self.queues)?,
            mtu: mtu.transpose()?,
        };
        let report = judge_net(&NetFacts::gather(Path::new("/"), &request));
        let text = match self.json {
            true => print::json(&report)?,
            false => doctor::table(&report.checks),
        };
        print::out(&text)?;
        Ok(if report.ready { Exit::Done } else { Exit::Host })
    }
}

impl Setup {
    fn run(&self) -> Result<Exit, Failure> {
        let steps = setup::steps(&self.wanted()?)?;
        match (self.apply, self.undo) {
            (false, false) => print::out(&setup::script(&steps))?,
            (false, true) => print::out(&setup::undo_script(&steps))?,
            (true, false) => setup::apply(&steps)?,
            (true, true) => setup::undo(&steps)?,
        }
        Ok(Exit::Done)
    }

    fn wanted(&self) -> Result<Wanted, Failure> {
        let somebody = |name: &&str| std::env::var(name).ok().filter(|user| !user.is_empty());
        let user = self.user.clone();
        let user = user.or_else(|| ["SUDO_USER", "USER"].iter().find_map(somebody));
        let mtu = self.mtu.as_deref().map(|text| small("mtu", text));
        let bridge = self.bridge.clone();
        let there = bridge.as_deref().map_or(Bridge::Missing, |bridge| {
            Bridge::find(Path::new("/sys/class/net"), bridge, &self.tap)
        });
        Ok(Wanted {
            tap: self.tap.clone(),
            nat: self.nat.clone(),
            bridge,
            there,
            user: user.unwrap_or_else(|| "root".into()),
            queues: small("queues", &self.queues)?,
            mtu: mtu.transpose()?,
        })
    }
}
