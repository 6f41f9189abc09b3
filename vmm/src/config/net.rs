//! Network interfaces: what is behind them, their addresses, sizes and limits.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use api::spec::{FlowSpec, MachineSpec, NetKind, NetSpec, SourceMac, UserNetSpec};
use devices::limit::Limits;
use devices::net::tap::{self, MAX_NAME_BYTES, TapRequest};

use super::disk::bucket;
use super::{ConfigError, MmdsConfig, Problem, check_path, excerpt};

/// Most network interfaces of a machine.
const MAX_NETS: usize = 8;
/// Most pairs of queues of an interface.
const MAX_PAIRS: u16 = 16;
/// The least MTU of virtio-net (virtio 1.2, 5.1.4.1).
const MIN_MTU: u16 = 68;
/// The greatest MTU of a tap: its packets and a header of Ethernet are 64 KiB.
const MAX_MTU: u16 = 65_521;
/// The least MTU with IPv6.
const MIN_USER_MTU: u16 = 1280;
/// The greatest MTU of the user-mode network.
const MAX_USER_MTU: u16 = 65_520;
/// The MTU of the user-mode network, when none is asked for.
const USER_MTU: u16 = 1500;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// What is behind it.
    pub link: LinkConfig,
    /// The guest's Ethernet address.
    pub mac: MacAddress,
    /// Which addresses the guest may send from.
    pub source: SourceMac,
    /// How many pairs of queues.
    pub pairs: u16,
    /// What the guest may receive in a time.
    pub rx: Limits,
    /// What the guest may send in a time.
    pub tx: Limits,
    /// The metadata service in front of it.
    pub mmds: Option<MmdsConfig>,
}

/// What is behind a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkConfig {
    /// A tap.
    Tap(TapRequest),
    /// A user-mode network. The texts in it are read by who starts its process.
    User {
        /// The largest packet.
        mtu: u16,
        /// The rest.
        spec: UserNetSpec,
    },
    /// passt behind its socket.
    Passt {
        /// The socket.
        path: PathBuf,
        /// The largest packet.
        mtu: u16,
    },
}

impl LinkConfig {
    /// The word for its kind.
    #[must_use]
    pub fn kind(&self) -> NetKind {
        match self {
            Self::Tap(_) => NetKind::Tap,
            Self::User { .. } => NetKind::User,
            Self::Passt { .. } => NetKind::Passt,
        }
    }

    /// The largest packet, where it was said.
    #[must_use]
    pub fn mtu(&self) -> Option<u16> {
        match self {
            Self::Tap(tap) => tap.mtu,
            Self::User { mtu, .. } | Self::Passt { mtu, .. } => Some(*mtu),
        }
    }
}

/// An Ethernet address of one interface: not zero, and none for groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().unwrap_or_default();
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            let value = u8::from_str_radix(part, 16).ok().filter(|_| digits);
            *byte = value.ok_or(Problem::NotAMac)?;
        }
        match parts.next() {
            Some(_) => Err(Problem::NotAMac),
            None if bytes[0] & 1 != 0 => Err(Problem::GroupMac),
            None if bytes == [0; 6] => Err(Problem::NotAMac),
            None => Ok(Self(bytes)),
        }
    }
}

impl MacAddress {
    /// A locally administered address that follows from an interface's place: the same machine
    /// always has the same, and no two interfaces of a host whose taps have names.
    fn of_place(index: usize, spec: &NetSpec) -> Self {
        let name = spec.name.as_deref().unwrap_or_default();
        let place = format!("{} {name} {index}", spec.kind);
        // FNV-1a: well spread, and never another in a later version.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let hash = place.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        let [a, b, c, d, e, ..] = hash.to_be_bytes();
        Self([0x02, a, b, c, d, e])
    }
}

pub(super) fn read_all(spec: &MachineSpec) -> Result<Vec<NetConfig>, ConfigError> {
    if spec.nets.len() > MAX_NETS {
        let problem = Problem::TooMany {
            most: 8,
            of: "a machine",
        };
        return Err(ConfigError::new("nets", &spec.nets.len(), problem));
    }
    let mut nets: Vec<NetConfig> = Vec::with_capacity(spec.nets.len());
    for (index, spec) in spec.nets.iter().enumerate() {
        let net = read(index, spec)?;
        if nets.iter().any(|other| other.mac == net.mac) {
            return Err(ConfigError::new("net mac", &net.mac, Problem::Twice));
        }
        let tap = |net: &NetConfig| match &net.link {
            LinkConfig::Tap(TapRequest { name, .. }) => name.clone(),
            LinkConfig::User { .. } | LinkConfig::Passt { .. } => None,
        };
        if let Some(name) = tap(&net)
            && nets.iter().any(|other| tap(other).as_ref() == Some(&name))
        {
            return Err(ConfigError::new("tap", &name, Problem::Twice));
        }
        nets.push(net);
    }
    Ok(nets)
}

fn read(index: usize, spec: &NetSpec) -> Result<NetConfig, ConfigError> {
    only_of_its_kind(spec)?;
    let link = match spec.kind {
        NetKind::Tap => LinkConfig::Tap(tap(spec)?),
        NetKind::User => LinkConfig::User {
            mtu: user_mtu(spec)?,
            spec: spec.user.clone(),
        },
        NetKind::Passt => passt(spec)?,
    };
    let pairs = match &link {
        LinkConfig::Tap(tap) => tap.queues,
        LinkConfig::User { .. } | LinkConfig::Passt { .. } => 1,
    };
    let mac = match spec.mac.as_deref() {
        Some(text) => text
            .parse()
            .map_err(|problem| ConfigError::new("net mac", &excerpt(text), problem))?,
        None => MacAddress::of_place(index, spec),
    };
    Ok(NetConfig {
        link,
        mac,
        source: spec.source,
        pairs,
        rx: flow(["net rx", "net rx packets"], &spec.rx)?,
        tx: flow(["net tx", "net tx packets"], &spec.tx)?,
        mmds: None,
    })
}

fn tap(spec: &NetSpec) -> Result<TapRequest, ConfigError> {
    if let Some(name) = &spec.name {
        let refuse = |problem| ConfigError::new("tap", &excerpt(name), problem);
        if !spec.fds.is_empty() {
            return Err(refuse(Problem::NameAndFds));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(refuse(Problem::TooLong { most: "15 bytes" }));
        }
        if name.is_empty() || !tap::is_name(name) {
            return Err(refuse(Problem::BadInterface));
        }
    }
    let mut fds = Vec::with_capacity(spec.fds.len());
    for (at, &fd) in spec.fds.iter().enumerate() {
        let number = i32::try_from(fd);
        let problem = match number {
            Ok(_) if spec.fds.iter().take(at).any(|&other| other == fd) => Problem::Twice,
            Ok(number) => {
                fds.push(number);
                continue;
            }
            Err(_) => Problem::Outside {
                least: 0,
                most: 0x7fff_ffff,
            },
        };
        return Err(ConfigError::new("tap fd", &fd, problem));
    }
    Ok(TapRequest {
        name: spec.name.clone(),
        queues: pairs(spec, fds.len())?,
        fds,
        mtu: mtu(spec, MIN_MTU, MAX_MTU)?,
    })
}

/// Refuses what another kind of network has.
fn only_of_its_kind(spec: &NetSpec) -> Result<(), ConfigError> {
    let refuse = |problem| Err(ConfigError::new("net", &spec.kind, problem));
    let (tap, user, passt) = (NetKind::Tap, NetKind::User, NetKind::Passt);
    let kind = spec.kind;
    if kind != tap && (spec.name.is_some() || !spec.fds.is_empty()) {
        return refuse(Problem::OnlyTap);
    }
    if kind != user && spec.user != UserNetSpec::default() {
        return refuse(Problem::OnlyUser);
    }
    if kind != passt && spec.path.is_some() {
        return refuse(Problem::OnlyPasst);
    }
    match spec.queues {
        Some(queues) if kind != tap && queues != 1 => {
            let problem = Problem::Outside { least: 1, most: 1 };
            let field = "queues of net user or passt";
            Err(ConfigError::new(field, &queues, problem))
        }
        _ => Ok(()),
    }
}

fn passt(spec: &NetSpec) -> Result<LinkConfig, ConfigError> {
    let path = spec.path.clone().unwrap_or_default();
    check_path("passt socket", &path)?;
    Ok(LinkConfig::Passt {
        path,
        mtu: user_mtu(spec)?,
    })
}

fn user_mtu(spec: &NetSpec) -> Result<u16, ConfigError> {
    let asked = mtu(spec, MIN_USER_MTU, MAX_USER_MTU)?;
    Ok(asked.unwrap_or(USER_MTU))
}

/// How many pairs of queues: as many as descriptors, where there are some.
fn pairs(spec: &NetSpec, fds: usize) -> Result<u16, ConfigError> {
    let given = u64::try_from(fds).ok().filter(|fds| *fds > 0);
    let asked = spec.queues.or(given).unwrap_or(1);
    let refuse = |problem| ConfigError::new("net queues", &asked, problem);
    if given.is_some_and(|given| given != asked) {
        return Err(refuse(Problem::FdsAndQueues));
    }
    match u16::try_from(asked) {
        Ok(pairs) if (1..=MAX_PAIRS).contains(&pairs) => Ok(pairs),
        _ => Err(refuse(Problem::Outside {
            least: 1,
            most: MAX_PAIRS.into(),
        })),
    }
}

fn mtu(spec: &NetSpec, least: u16, most: u16) -> Result<Option<u16>, ConfigError> {
    let Some(given) = spec.mtu else {
        return Ok(None);
    };
    match u16::try_from(given) {
        Ok(mtu) if (least..=most).contains(&mtu) => Ok(Some(mtu)),
        _ => {
            let (least, most) = (least.into(), most.into());
            let problem = Problem::Outside { least, most };
            Err(ConfigError::new("net mtu", &given, problem))
        }
    }
}

fn flow([bytes, packets]: [&'static str; 2], flow: &FlowSpec) -> Result<Limits, ConfigError> {
    Ok(Limits {
        bytes: bucket(bytes, flow.bandwidth.as_ref())?,
        operations: bucket(packets, flow.packets.as_ref())?,
    })
}
