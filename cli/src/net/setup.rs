//! The commands that make a tap for a guest, and those that take it away: printed, or run as root.
//! What they are is a pure function.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use devices::net::tap;

use crate::failure::Failure;
use crate::print;

/// The host's address in a tap's network, when none is asked for.
const NETWORK: &str = "172.31.0.1/24";

/// What a tap is to be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) tap: String,
    /// The host's address in its network.
    pub(crate) nat: Option<String>,
    /// The bridge that it is a port of.
    pub(crate) bridge: Option<String>,
    /// What there is of it.
    pub(crate) there: Bridge,
    /// Who may use it.
    pub(crate) user: String,
    /// How many queues it has.
    pub(crate) queues: u16,
    /// Its largest packet.
    pub(crate) mtu: Option<u16>,
}

/// What there is of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bridge {
    /// Nothing.
    Missing,
    /// One that an earlier set-up made; whether it has other ports than the tap.
    Ours { shared: bool },
    /// Somebody else's.
    Others,
}

impl Bridge {
    /// What there is of `bridge`, by the file system below `/sys/class/net`.
    pub(crate) fn find(classes: &Path, bridge: &str, tap: &str) -> Self {
        let folder = classes.join(bridge);
        if !folder.join("bridge").exists() {
            return Self::Missing;
        }
        let alias = fs::read_to_string(folder.join("ifalias")).unwrap_or_default();
        let ports = fs::read_dir(folder.join("brif")).into_iter().flatten();
        match alias.trim() == ALIAS {
            true => Self::Ours {
                shared: ports.flatten().any(|port| port.file_name() != tap),
            },
            false => Self::Others,
        }
    }
}

/// By which a bridge of ours is known again.
const ALIAS: &str = "coracle";

/// A command, and the one that undoes it; none where the state is there already, or stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Why, for the reader.
    why: &'static str,
    run: Option<Vec<String>>,
    undo: Option<Vec<String>>,
}

/// The commands, and what a guest is told, which undoes nothing.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    steps: Vec<Step>,
    guest: String,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn step(why: &'static str, run: &str, undo: Option<&str>) -> Step {
    Step {
        why,
        run: Some(words(run)),
        undo: undo.map(words),
    }
}

/// Everything that makes the tap, in its order.
///
/// # Errors
/// When a name or the network is none.
pub(crate) fn steps(wanted: &Wanted) -> Result<Steps, Failure> {
    let Wanted {
        tap, bridge, user, ..
    } = wanted;
    check_name("tap", tap)?;
    let network = match (&wanted.nat, bridge) {
        (None, Some(_)) => None,
        (nat, _) => Some(Network::read(nat.as_deref().unwrap_or(NETWORK))?),
    };
    let many = if wanted.queues > 1 {
        " multi_queue"
    } else {
        ""
    };
    let mut steps = vec![step(
        "a tap that the user may open",
        &format!("ip tuntap add dev {tap} mode tap user {user}{many}"),
        Some(&format!("ip tuntap del dev {tap} mode tap{many}")),
    )];
    if let Some(mtu) = wanted.mtu {
        let run = format!("ip link set dev {tap} mtu {mtu}");
        steps.push(step("its largest packet", &run, None));
    }
    if let Some(bridge) = bridge {
        check_name("bridge", bridge)?;
    }
    let inside = bridge.as_ref().unwrap_or(tap);
    // What the first tap of a bridge of ours made is there for the others.
    let mut shared = Vec::new();
    if let Some(bridge) = bridge {
        shared.extend(bridged(wanted, bridge, network.is_some()));
    }
    if let Some(network) = &network {
        let Network { host, bits } = network;
        shared.push(step(
            "the host's address in the guest's network",
            &format!("ip address replace {host}/{bits} dev {inside}"),
            None,
        ));
        shared.extend(translated(inside, network));
    }
    if let Bridge::Ours { shared: others } = wanted.there {
        for step in &mut shared {
            step.run = None;
            step.undo = step.undo.take().filter(|_| !others);
        }
    }
    steps.extend(shared);
    steps.extend(bridge.as_ref().map(|bridge| join(tap, bridge)));
    let up = format!("ip link set dev {tap} up");
    steps.push(step("up", &up, None));
    let guest = match &network {
        Some(network) => {
            let (guest, host, mask) = (network.guest(), network.host, network.mask());
            format!(
                "coracle boot --net tap:{tap} \
                 --cmdline ip={guest}::{host}:{mask}:::off:9.9.9.9"
            )
        }
        None => format!("coracle boot --net tap:{tap}"),
    };
    Ok(Steps { steps, guest })
}

/// A bridge, where there is none, and the tap as its port. One with our network is ours to remove.
fn bridged(wanted: &Wanted, bridge: &str, ours: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if wanted.there != Bridge::Others {
        let undo = ours.then(|| format!("ip link delete dev {bridge} type bridge"));
        let make = format!("ip link add name {bridge} type bridge");
        steps.push(step("a bridge", &make, undo.as_deref()));
        if ours {
            let mark = format!("ip link set dev {bridge} alias {ALIAS}");
            steps.push(step("which --undo knows again", &mark, None));
        }
        let up = format!("ip link set dev {bridge} up");
        steps.push(step("up", &up, None));
    }
    steps
}

fn join(tap: &str, bridge: &str) -> Step {
    let run = format!("ip link set dev {tap} master {bridge}");
    step("the tap as one of its ports", &run, None)
}

/// Lets packets of the guest's network out, by the host's address.
fn translated(inside: &str, network: &Network) -> Vec<Step> {
    let table = table(inside);
    let net = network.text();
    let nft = |why, rest: &str, undo: Option<&str>| {
        let (command, block) = rest
            .split_once('{')
            .map_or((rest, None), |(command, block)| {
                (command, Some(format!("{{{block}")))
            });
        let mut step = step(why, &format!("nft {command}"), undo);
        if let Some(run) = &mut step.run {
            run.extend(block);
        }
        step
    };
    vec![
        step(
            "the host passes packets on (this stays after --undo: others may need it)",
            "sysctl -q -w net.ipv4.ip_forward=1",
            None,
        ),
        nft(
            "rules of this network",
            &format!("add table inet {table}"),
            Some(&format!("nft delete table inet {table}")),
        ),
        nft(
            "what leaves the host has the host's address",
            &format!("add chain inet {table} out {{ type nat hook postrouting priority 100; }}"),
            None,
        ),
        nft(
            "but what stays in the network",
            &format!("add rule inet {table} out ip saddr {net} ip daddr != {net} masquerade"),
            None,
        ),
        nft(
            "from outside only answers come in",
            &format!("add chain inet {table} forward {{ type filter hook forward priority 0; }}"),
            None,
        ),
        nft(
            "answers",
            &format!(
                "add rule inet {table} forward oifname {inside} ct state \
                 established,related accept"
            ),
            None,
        ),
        nft(
            "nothing else from other interfaces",
            &format!("add rule inet {table} forward oifname {inside} iifname != {inside} drop"),
            None,
        ),
    ]
}

/// The name of the table of rules: letters, digits and underscores, as nft has them.
fn table(inside: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = inside.chars().map(letter).collect();
    format!("coracle_{name}")
}

fn check_name(field: &str, name: &str) -> Result<(), Failure> {
    // An option for `ip` would begin with a hyphen.
    let good = tap::is_name(name) && name.len() <= tap::MAX_NAME_BYTES && !name.starts_with('-');
    match good && !name.is_empty() && name.is_ascii() {
        true => Ok(()),
        false => Err(Failure::input(
            format!("{field} {name:?}: not a name that an interface can have"),
            format!("choose a name of up to {} bytes", tap::MAX_NAME_BYTES),
        )),
    }
}

/// A network by the host's address in it.
#[derive(Clone, Copy, Debug)]
struct Network {
    host: Ipv4Addr,
    bits: u32,
}

impl Network {
    fn read(text: &str) -> Result<Self, Failure> {
        let parse = || {
            let (host, bits) = text.split_once('/')?;
            let network = Self {
                host: host.parse().ok()?,
                bits: bits.parse().ok().filter(|bits| (8..=30).contains(bits))?,
            };
            let place = network.host.to_bits() & !network.mask().to_bits();
            // Neither the network's own address nor that of all its hosts.
            (place != 0 && place != !network.mask().to_bits()).then_some(network)
        };
        parse().ok_or_else(|| {
            Failure::input(
                format!("nat {text:?}: not an address of a host with its network"),
                format!("give the host's address and 8 to 30 bits, such as {NETWORK}"),
            )
        })
    }

    fn mask(&self) -> Ipv4Addr {
        let hosts = u32::MAX.checked_shr(self.bits).unwrap_or(0);
        Ipv4Addr::from_bits(!hosts)
    }

    fn text(&self) -> String {
        let network = self.host.to_bits() & self.mask().to_bits();
        format!("{}/{}", Ipv4Addr::from_bits(network), self.bits)
    }

    /// An address for a guest: the next one, or the one before where that is for all.
    fn guest(&self) -> Ipv4Addr {
        let next = self.host.to_bits().wrapping_add(1);
        let is_last = next | self.mask().to_bits() == u32::MAX;
        let guest = if is_last {
            self.host.to_bits().wrapping_sub(1)
        } else {
            next
        };
        Ipv4Addr::from_bits(guest)
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,".contains(&byte);
    match word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn line(command: &[String]) -> String {
    let quoted: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    format!("sudo {}", quoted.join(" "))
}

/// The commands for a shell.
pub(crate) fn script(steps: &Steps) -> String {
    let mut text = String::new();
    for step in &steps.steps {
        if let Some(run) = &step.run {
            let _ = writeln!(text, "# {}\n{}", step.why, line(run));
        }
    }
    let _ = writeln!(text, "# then, for the built-in guest\n# {}", steps.guest);
    text
}

/// Those that undo them.
pub(crate) fn undo_script(steps: &Steps) -> String {
    let undo = steps
        .steps
        .iter()
        .rev()
        .filter_map(|step| step.undo.as_ref());
    undo.map(|command| line(command) + "\n").collect()
}

/// Runs the commands. Where one fails, what was done before is undone.
///
/// # Errors
/// The command that failed, and what it said.
pub(crate) fn apply(steps: &Steps) -> Result<(), Failure> {
    as_root()?;
    for (done, step) in steps.steps.iter().enumerate() {
        let ran = step.run.as_ref().map_or(Ok(()), |command| run(command));
        if let Err(failure) = ran {
            // What was there before this is not ours to remove.
            let made = |step: &&Step| step.run.is_some();
            let before = steps.steps.iter().take(done).rev().filter(made);
            for command in before.filter_map(|step| step.undo.as_ref()) {
                // The first failure is the one that counts.
                let _ = run(command);
            }
            return Err(failure);
        }
    }
    print::out(&format!("{}\n", steps.guest))
}

/// Takes everything away, as far as it is there.
///
/// # Errors
/// The last command that failed, and what it said.
pub(crate) fn undo(steps: &Steps) -> Result<(), Failure> {
    as_root()?;
    let commands = steps.steps.iter().rev();
    let commands = commands.filter_map(|step| step.undo.as_ref());
    let results: Vec<_> = commands.map(|command| run(command)).collect();
    results.into_iter().rev().collect()
}

fn as_root() -> Result<(), Failure> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::host(
            "only root may set up interfaces",
            "run it with sudo, or without --apply to see the commands",
        )),
    }
}

fn run(command: &[String]) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(());
    };
    let shown = line(command);
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|cause| {
        let reason = devices::host::reason(&cause);
        Failure::host(
            format!("{program} can't be run: {reason}"),
            "`coracle net doctor` tells which package has it",
        )
    })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or_default().trim().to_owned();
            Err(Failure::host(
                format!("`{shown}` failed: {said}"),
                "`coracle net doctor` tells what is there already",
            ))
        }
    }
}

#[cfg(test)]
mod tests;
