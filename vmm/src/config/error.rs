//! Why a machine was refused: the field, its value, the reason and what to do instead.

use api::spec::SizeError;

use super::Size;

/// A value that a machine can't have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value}: {problem}")]
pub struct ConfigError {
    /// The field, in the user's words (`memory`, `disk`, …).
    pub field: &'static str,
    /// The value as it was given.
    pub value: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a value. `Display` is the reason; [`Problem::remedy`] what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Text that is no size.
    NotASize(SizeError),
    /// Less than a guest can do with.
    TooSmall {
        /// The least, in bytes.
        least: u64,
    },
    /// No multiple of a page.
    Uneven {
        /// The page, in bytes.
        page: u64,
    },
    /// More memory than there can be.
    BeyondLimit {
        /// The most, in bytes.
        most: u64,
    },
    /// More memory than the machine has.
    BeyondMemory {
        /// What it has, in bytes.
        has: u64,
    },
    /// More memory than the host has.
    BeyondHost {
        /// What the host has, in bytes.
        has: u64,
    },
    /// More reserved pages than are free.
    FewHugepages {
        /// Pages needed.
        needed: u64,
        /// Pages free.
        free: u64,
    },
    /// Zero of what there must be one of.
    None,
    /// More of them than there can be.
    TooMany {
        /// The most.
        most: u64,
        /// Whose limit it is.
        of: &'static str,
    },
    /// A byte that can't be in such a text.
    Byte {
        /// The byte's name with its article.
        name: &'static str,
    },
    /// Longer than it can be.
    TooLong {
        /// The most, in words.
        most: &'static str,
    },
    /// A name with characters that the guest's tools don't take.
    BadName,
    /// A port's name with characters that a file's name in the guest can't have.
    BadPortName,
    /// An empty text or path.
    Empty,
    /// A number that is not one of those there can be.
    Outside {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A limit under which nothing could ever be done.
    NoLimit,
    /// What only raw disks have.
    OnlyRaw,
    /// The same value a second time.
    Twice,
    /// A format that is never written, for a disk that is to be.
    OnlyRead,
    /// A root for the built-in guest, which brings its own.
    RootBuiltIn,
    /// Text that is no UUID of a partition.
    NotAUuid,
    /// Nothing that the built-in guest has a driver for.
    NotBuiltIn,
    /// Text that is no Ethernet address of an interface.
    NotAMac,
    /// An Ethernet address for groups.
    GroupMac,
    /// A name that no interface of the host can have.
    BadInterface,
    /// A tap by its name and by its descriptors.
    NameAndFds,
    /// Another number of queues than of descriptors.
    FdsAndQueues,
    /// What only taps have.
    OnlyTap,
    /// What only user-mode networks have.
    OnlyUser,
    /// What only passt has.
    OnlyPasst,
    /// An address that others than the guest's neighbours may have.
    NotLinkLocal,
    /// A metadata service on no network.
    NoInterface,
    /// The name of a network that the machine doesn't have.
    UnknownInterface,
}

impl ConfigError {
    pub(crate) fn new(
        field: &'static str,
        value: &dyn std::fmt::Display,
        problem: Problem,
    ) -> Self {
        Self {
            field,
            value: value.to_string(),
            problem,
        }
    }

    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self) -> String {
        self.problem.remedy(self.field)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotASize(why) => write!(f, "{why}"),
            Self::TooSmall { least } => {
                write!(
                    f,
                    "less than {}, the least that a guest starts in",
                    Size(*least)
                )
            }
            Self::Uneven { page } => write!(f, "not a multiple of {}", Size(*page)),
            Self::BeyondLimit { most } => {
                write!(
                    f,
                    "more than {}, the most that a guest can address",
                    Size(*most)
                )
            }
            Self::BeyondMemory { has } => write!(f, "more than the guest's {}", Size(*has)),
            Self::BeyondHost { has } => write!(f, "more than the {} of this host", Size(*has)),
            Self::FewHugepages { needed, free } => write!(
                f,
                "needs {needed} reserved pages of 2 MiB and {free} are free on this host"
            ),
            Self::None => write!(f, "a machine needs at least one"),
            Self::TooMany { most, of } => write!(f, "more than {most}, the most of {of}"),
            Self::Byte { name } => write!(f, "contains {name}"),
            Self::TooLong { most } => write!(f, "longer than {most}"),
            Self::BadName => write!(
                f,
                "not 1 to 64 letters, digits, dots, hyphens and underscores"
            ),
            Self::BadPortName => write!(
                f,
                "not 1 to 64 letters, digits, dots, hyphens and underscores"
            ),
            Self::Empty => write!(f, "is empty"),
            Self::Outside { least, most } => write!(f, "not between {least} and {most}"),
            Self::NoLimit => write!(f, "lets nothing through"),
            Self::OnlyRaw => write!(f, "engine and direct are for raw images"),
            Self::Twice => write!(f, "given twice"),
            Self::OnlyRead => write!(f, "qcow2 images are only read"),
            Self::RootBuiltIn => write!(f, "the built-in guest has a root of its own"),
            Self::NotAUuid => write!(f, "not 1 to 64 hexadecimal digits and hyphens"),
            Self::NotBuiltIn => write!(f, "the built-in guest's kernel has no driver for it"),
            Self::NotAMac => write!(f, "not the Ethernet address of an interface"),
            Self::GroupMac => write!(
                f,
                "an Ethernet address for groups, as its first byte is odd"
            ),
            Self::BadInterface => write!(f, "not a name that an interface can have"),
            Self::NameAndFds => write!(f, "given by name and by descriptors"),
            Self::FdsAndQueues => write!(f, "not the number of descriptors"),
            Self::OnlyTap => write!(f, "a name and descriptors are for taps"),
            Self::OnlyPasst => write!(f, "a socket's path is for passt"),
            Self::NotLinkLocal => write!(f, "not an IPv4 address that is link-local"),
            Self::NoInterface => write!(f, "the metadata would be on no network"),
            Self::UnknownInterface => write!(f, "the machine has no such network interface"),
            Self::OnlyUser => write!(
                f,
                "publish, allow, deny, host, ipv6, subnet and dns are for user-mode networks"
            ),
        }
    }
}

impl Problem {
    fn remedy(&self, field: &str) -> String {
        match self {
            Self::NotASize(_) => {
                format!("write {field} as a number with a unit, such as 512M or 2G")
            }
            Self::TooSmall { least } => format!("give {field} of at least {}", Size(*least)),
            Self::Uneven { page } => format!("round {field} to a multiple of {}", Size(*page)),
            Self::BeyondLimit { most } => format!("give {field} of at most {}", Size(*most)),
            Self::BeyondMemory { has } => format!("give a {field} below {}", Size(*has)),
            Self::BeyondHost { has } => format!("give less {field} than {}", Size(*has)),
            Self::FewHugepages { needed, .. } => format!(
                "reserve them, `sudo sysctl vm.nr_hugepages={needed}`, or leave hugepages out"
            ),
            Self::None => format!("give {field} of 1 or more"),
            Self::TooMany { most, .. } => format!("give {field} of at most {most}"),
            Self::Byte { name } => format!("take {name} out of {field}"),
            Self::TooLong { most } => format!("shorten {field} to at most {most}"),
            Self::BadPortName => format!("choose a {field} such as org.example.agent"),
            Self::BadName => format!("choose a {field} such as data-1"),
            Self::Empty => format!("give {field} a value or leave it out"),
            Self::Outside { least, most } => format!("give a {field} from {least} to {most}"),
            Self::NoLimit => format!("give {field} of 1 or more, or leave it out"),
            Self::OnlyRaw => format!("leave engine= and direct= out, or give a raw {field}"),
            Self::Twice => format!("give each {field} once"),
            Self::OnlyRead => format!(
                "add `,ro`, or put a delta over the {field}: coracle disk create --base IMAGE \
                 --base-format qcow2 DELTA"
            ),
            Self::RootBuiltIn => "give the kernel too that the root is for".to_owned(),
            Self::NotAUuid => format!("give the {field} as blkid(8) prints it"),
            Self::NotBuiltIn => format!("give a kernel that has, or leave {field} out"),
            Self::NotAMac | Self::GroupMac => {
                format!("give a {field} such as 02:00:00:00:00:01, or leave it out")
            }
            Self::BadInterface => format!("choose a {field} such as tap0"),
            Self::NameAndFds => format!("leave out the {field}'s name or its fd="),
            Self::FdsAndQueues => format!("leave {field} out, or give an fd= for each"),
            Self::OnlyTap => "write --net tap:NAME".to_owned(),
            Self::OnlyPasst => "write --net passt:PATH".to_owned(),
            Self::NotLinkLocal => {
                "give one from 169.254.1.0 to 169.254.254.255, or leave it out".to_owned()
            }
            Self::NoInterface => "name a network interface, such as that of --net user".to_owned(),
            Self::UnknownInterface => "describe the network interface first".to_owned(),
            Self::OnlyUser => "write --net user, or leave them out".to_owned(),
        }
    }
}
