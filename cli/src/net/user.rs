//! The process of a user-mode network: started before the machine, told what to be by a line of
//! JSON, heard of by a line, and ended by the end of its socket.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::spec::{EgressSpec, UserNetSpec};
use devices::net::frames::{self, Frames};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use usernet::{
    Action, BadText, Cidr, Config, Dns, Offloads, Policy, Publish, Rule, Subnet4, Subnet6,
};
use vmm::config::NetConfig;

use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::logger;

/// The hidden command that is such a process.
pub(crate) const COMMAND: &str = "__usernet";
/// What it says once it is set up.
const READY: &str = "ready";
/// How long it may take to be.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to pass on what the guest sent last.
const GRACE: Duration = Duration::from_secs(1);
/// The port of name servers.
const DNS_PORT: u16 = 53;

/// Reads the texts of a user-mode network.
///
/// # Errors
/// When one of them means nothing.
pub(crate) fn read(
    index: usize,
    net: &NetConfig,
    mtu: u16,
    spec: &UserNetSpec,
) -> Result<Config, Failure> {
    let publish = spec.publish.iter().map(|text| text.parse::<Publish>());
    let publish = publish.collect::<Result<_, _>>().map_err(bad("publish"))?;
    let rules = spec.egress.iter().map(|rule| match rule {
        EgressSpec::Allow(text) => Rule::parse(Action::Allow, text).map_err(bad("allow")),
        EgressSpec::Deny(text) => Rule::parse(Action::Deny, text).map_err(bad("deny")),
    });
    // Several networks of one machine lie beside each other.
    let place = u8::try_from(index).unwrap_or(u8::MAX);
    Ok(Config {
        subnet4: subnet(spec.subnet.as_deref(), place)?,
        subnet6: spec.ipv6.then(|| beside(place)),
        guest_mac: Some(net.mac.0),
        mtu,
        publish,
        policy: Policy {
            rules: rules.collect::<Result<_, _>>()?,
            host: spec.host,
            ..Policy::default()
        },
        dns: Dns {
            servers: spec
                .dns
                .iter()
                .map(|text| server(text))
                .collect::<Result<_, _>>()?,
            ..Dns::default()
        },
        // The guest's driver says what it takes once it is there.
        offloads: Offloads {
            checksum: false,
            tso4: false,
            tso6: false,
        },
        ..Config::default()
    })
}

fn bad(field: &'static str) -> impl Fn(BadText) -> Failure {
    move |BadText { text, why }| {
        Failure::input(format!("net {field} {text:?}: not understood"), why)
    }
}

fn subnet(text: Option<&str>, place: u8) -> Result<Subnet4, Failure> {
    let Some(text) = text else {
        let [a, b, c, d] = Subnet4::default().network.octets();
        let network = [a, b, c.saturating_add(place), d];
        return Ok(Subnet4::usual(network.into(), Subnet4::default().prefix));
    };
    let refuse = |why: &'static str| {
        let text = text.to_owned();
        bad("subnet")(BadText { text, why })
    };
    let net: Cidr = text.parse().map_err(bad("subnet"))?;
    let IpAddr::V4(network) = net.address else {
        return Err(refuse("give an IPv4 network such as 10.0.2.0/24"));
    };
    if !(8..=28).contains(&net.prefix) {
        return Err(refuse(
            "give a network of 8 to 28 bits, such as 10.0.2.0/24",
        ));
    }
    let hosts = u32::MAX.checked_shr(net.prefix.into()).unwrap_or(0);
    match network.to_bits() & hosts {
        0 => Ok(Subnet4::usual(network, net.prefix)),
        _ => Err(refuse(
            "give the network's first address, such as 10.0.2.0/24",
        )),
    }
}

fn beside(place: u8) -> Subnet6 {
    let mut segments = Subnet6::default().network.segments();
    segments[3] = place.into();
    Subnet6 {
        network: segments.into(),
    }
}

fn server(text: &str) -> Result<SocketAddr, Failure> {
    let address = text.parse::<IpAddr>();
    let with_port = address.map(|address| SocketAddr::new(address, DNS_PORT));
    with_port.or_else(|_| text.parse()).map_err(|_| {
        let why = "give the address of a name server, such as 9.9.9.9 or [2620:fe::fe]:53";
        let text = text.to_owned();
        bad("dns")(BadText { text, why })
    })
}

/// A process that is on its way.
#[derive(Debug)]
pub(crate) struct Starting {
    helper: Helper,
    frames: OwnedFd,
    mtu: u16,
}

/// The process of a network. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    /// None as soon as the process is to end.
    control: Option<UnixStream>,
}

impl Starting {
    /// Starts the process and tells it what to be.
    ///
    /// # Errors
    /// When the host has no process or descriptor left.
    pub(crate) fn spawn(config: &Config) -> Result<Self, Failure> {
        let (frames, theirs) = frames::pair().map_err(failed("making its socket"))?;
        let (control, their_control) = UnixStream::pair().map_err(failed("making its socket"))?;
        let child = Command::new("/proc/self/exe")
            .arg0("coracle")
            .arg(COMMAND)
            .arg(log::max_level().as_str().to_ascii_lowercase())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(OwnedFd::from(their_control)))
            // Keys of the terminal are for the machine.
            .process_group(0)
            .spawn()
            .map_err(failed("starting its process"))?;
        let mut helper = Helper {
            child,
            control: Some(control),
        };
        let mut text = serde_json::to_string(config)
            .map_err(std::io::Error::from)
            .map_err(failed("writing its configuration"))?;
        text.push('\n');
        if let Some(control) = &mut helper.control {
            // A process that ended at once is noticed when it is waited for.
            let _ = control.write_all(text.as_bytes());
        }
        Ok(Self {
            helper,
            frames,
            mtu: config.mtu,
        })
    }

    /// Waits until the network is set up.
    ///
    /// # Errors
    /// What the process says is wrong.
    pub(crate) fn ready(self) -> Result<(Frames, Helper), Failure> {
        let mut line = String::new();
        if let Some(control) = &self.helper.control {
            let limited = control.set_read_timeout(Some(PATIENCE));
            limited.map_err(failed("waiting for its process"))?;
            let read = BufReader::new(control).read_line(&mut line);
            read.map_err(failed("waiting for its process"))?;
        }
        match line.trim_end() {
            READY => {
                let link = Frames::new(self.frames, "user", self.mtu);
                Ok((link, self.helper))
            }
            "" => Err(Failure::host(
                "user-mode network: its process ended at once",
                "see what it said above",
            )),
            problem => {
                let (problem, remedy) = problem.split_once("; ").unwrap_or((problem, ""));
                Err(Failure::input(problem, remedy))
            }
        }
    }
}

fn failed(attempt: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |cause| {
        let reason = devices::host::reason(&cause);
        let message = format!("user-mode network: {attempt} failed: {reason}");
        Failure::host(message, "`coracle doctor` tells what this host lacks")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The end of the socket ends the process, after what the guest sent last.
        self.control = None;
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
        if let (Ok(ended), Ok(grace)) = (ended, Timespec::try_from(GRACE)) {
            let mut wait = [PollFd::new(&ended, PollFlags::IN)];
            let _ = poll(&mut wait, Some(&grace));
        }
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the network: its frames on standard input, its control on standard output.
///
/// # Errors
/// When nobody told it what to be.
pub(crate) fn serve(level: Option<&str>) -> Result<Exit, Failure> {
    logger::start(level)?;
    // Else the host lists it as `exe`.
    let _ = rustix::thread::set_name(c"coracle-usernet");
    let taken = failed("taking over its sockets");
    let again = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(&taken);
    let frames = again(std::io::stdin().as_fd())?;
    let control = again(std::io::stdout().as_fd())?;
    let mut back = UnixStream::from(again(control.as_fd())?);
    let mut line = String::new();
    BufReader::new(&back).read_line(&mut line).map_err(&taken)?;
    let config: Config = serde_json::from_str(&line).map_err(|error| {
        let message = format!("user-mode network: its configuration: {error}");
        Failure::input(message, "this command is for `coracle boot --net user`")
    })?;
    match usernet::serve(frames, Some(control), &config) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            let text = chain(&error).replace('\n', " ");
            // Whoever waits for the start says it; later there is only the log.
            if matches!(error, usernet::ServeError::Host { .. }) {
                log::error!("{text}");
            }
            let _ = back.write_all(format!("{text}\n").as_bytes());
            Ok(Exit::Host)
        }
    }
}

#[cfg(test)]
mod tests {
    use api::spec::{MachineSpec, NetSpec};
    use vmm::config::{Config as MachineConfig, LinkConfig};

    use super::*;

    fn read_at(index: usize, spec: UserNetSpec) -> Result<Config, Failure> {
        let net = NetSpec {
            user: spec,
            ..NetSpec::default()
        };
        let machine = MachineSpec {
            nets: vec![net],
            ..MachineSpec::default()
        };
        let config = MachineConfig::try_from(&machine).unwrap();
        let net = &config.nets[0];
        match &net.link {
            LinkConfig::User { mtu, spec } => read(index, net, *mtu, spec),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_become_a_configuration() {
        let config = read_at(0, UserNetSpec::default()).unwrap();
        assert_eq!(config.subnet4, Subnet4::default());
        assert_eq!(config.subnet6, Some(Subnet6::default()));
        assert_eq!(config.mtu, 1500);
        assert!(config.guest_mac.is_some() && !config.policy.host);
        let second = read_at(1, UserNetSpec::default()).unwrap();
        assert_eq!(second.subnet4.guest.to_string(), "10.0.3.15");
        assert_eq!(second.subnet6.unwrap().network.to_string(), "fd00:0:0:1::");
        let spec = UserNetSpec {
            publish: vec!["8080:80".into()],
            egress: vec![
                EgressSpec::Allow("10.0.0.1:443".into()),
                EgressSpec::Deny("any".into()),
            ],
            host: true,
            ipv6: false,
            subnet: Some("192.168.7.0/28".into()),
            dns: vec!["9.9.9.9".into(), "[::1]:5353".into()],
        };
        let config = read_at(0, spec).unwrap();
        assert_eq!(config.publish.len(), 1);
        let actions: Vec<_> = config.policy.rules.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [Action::Allow, Action::Deny]);
        assert!(config.policy.host && config.subnet6.is_none());
        assert_eq!(config.subnet4.guest.to_string(), "192.168.7.15");
        let servers: Vec<_> = config
            .dns
            .servers
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        assert_eq!(servers, ["9.9.9.9:53", "[::1]:5353"]);
    }

    #[test]
    fn texts_that_mean_nothing() {
        let default = UserNetSpec::default;
        for (spec, words) in [
            (
                UserNetSpec {
                    publish: vec!["80".into()],
                    ..default()
                },
                "net publish \"80\": not understood",
            ),
            (
                UserNetSpec {
                    egress: vec![EgressSpec::Deny("10.0.0.0/33".into())],
                    ..default()
                },
                "net deny \"10.0.0.0/33\"",
            ),
            (
                UserNetSpec {
                    subnet: Some("10.0.0.1/24".into()),
                    ..default()
                },
                "net subnet \"10.0.0.1/24\"",
            ),
            (
                UserNetSpec {
                    subnet: Some("10.0.0.0/30".into()),
                    ..default()
                },
                "net subnet \"10.0.0.0/30\"",
            ),
            (
                UserNetSpec {
                    subnet: Some("fd00::/64".into()),
                    ..default()
                },
                "net subnet \"fd00::/64\"",
            ),
            (
                UserNetSpec {
                    dns: vec!["dns.example".into()],
                    ..default()
                },
                "net dns \"dns.example\"",
            ),
        ] {
            let failure = read_at(0, spec).unwrap_err();
            assert!(failure.message.starts_with(words), "{failure}");
            assert!(!failure.hint.is_empty(), "{failure}");
        }
    }

    #[test]
    fn both_sides_read_the_same_word_of_offloads() {
        for bits in 0..8_u8 {
            let [checksum, tso4, tso6] = [1, 2, 4].map(|bit| bits & bit != 0);
            let ours = devices::net::Offloads {
                checksum,
                tso4,
                tso6,
                ecn: false,
            };
            let theirs = Offloads {
                checksum,
                tso4,
                tso6,
            };
            let said = frames::offloads_message(ours);
            assert_eq!(said, usernet::offloads_message(theirs));
        }
    }
}
