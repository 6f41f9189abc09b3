//! From an HTTP request to a [`Call`]: what is asked for, in the same words whichever of the two
//! languages it was said in. Pure.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::error::{ApiError, Code, Dialect};
use crate::firecracker::{
    Action, ActionType, BalloonPatch, BalloonStatisticsPatch, DrivePatch, TokenBucket,
};
use crate::http::{Method, Request, Response};
use crate::limits::{BucketSpec, LimitsSpec};
use crate::machine::MachineState;
use crate::routes::{self, Operation};
use crate::spec::{RateSpec, SizeError, SizeSpec};

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

/// What a request asks of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Who answers, in Firecracker's words.
    Instance,
    /// Which release of Firecracker's API is spoken.
    Version,
    /// The size of the machine, in Firecracker's words.
    MachineConfig,
    /// All that it was made of, in Firecracker's words.
    VmConfig,
    /// Press the power button.
    PressPowerButton,
    /// Change a drive.
    Drive {
        /// Its name.
        id: String,
        /// How.
        change: DriveChange,
    },
    /// The balloon's set-up, in Firecracker's words.
    Balloon,
    /// The guest's account of its memory, in Firecracker's words.
    BalloonStatistics,
    /// Change the balloon.
    ChangeBalloon(BalloonChange),
    /// Change the limits of the source of random numbers.
    ChangeEntropy(LimitsChange),
    /// The machine and its state.
    Machine,
    /// What every device is and did.
    Devices,
}

/// A request that was understood, or the answer to it.
#[derive(Debug)]
pub enum Read {
    /// To be carried out.
    Call(Call, Dialect),
    /// Answered already: it cannot be carried out.
    Refused(Response),
}

/// What changes of a drive; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriveChange {
    /// Another image, of the same format.
    pub path: Option<PathBuf>,
    /// Other limits.
    pub limits: LimitsChange,
    /// Another size: the image is grown to it.
    pub size: Option<SizeSpec>,
    /// The host has changed the image's size.
    pub rescan: bool,
}

/// What changes of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsChange {
    /// Of bytes.
    #[serde(deserialize_with = "given")]
    pub bandwidth: Change<BucketSpec>,
    /// Of operations.
    #[serde(deserialize_with = "given")]
    pub iops: Change<BucketSpec>,
}

impl TryFrom<RateSpec> for BucketSpec {
    type Error = SizeError;

    fn try_from(rate: RateSpec) -> Result<Self, SizeError> {
        let burst = rate.burst.map_or(Ok(0), |burst| burst.bytes());
        Ok(Self {
            size: rate.size.bytes()?,
            refill_ms: rate.refill_ms,
            burst: burst?,
        })
    }
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays.
    #[default]
    Keep,
    /// There is none any more: `null` in JSON.
    Remove,
    /// Another one.
    Set(T),
}

impl<T> Change<T> {
    /// The value that there is afterwards.
    pub fn apply(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Remove => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl LimitsChange {
    /// Whether anything changes.
    #[must_use]
    pub fn is_any(&self) -> bool {
        (self.bandwidth, self.iops) != (Change::Keep, Change::Keep)
    }

    /// The limits that there are afterwards.
    #[must_use]
    pub fn apply(self, before: LimitsSpec) -> LimitsSpec {
        LimitsSpec {
            bandwidth: self.bandwidth.apply(before.bandwidth),
            iops: self.iops.apply(before.iops),
        }
    }

    fn check(&self, field: &str) -> Result<(), ApiError> {
        for (name, change) in [("bandwidth", self.bandwidth), ("iops", self.iops)] {
            if let Change::Set(BucketSpec {
                size, refill_ms, ..
            }) = change
                && (size == 0 || refill_ms == 0)
            {
                let zero = if size == 0 { "size" } else { "refill_ms" };
                return Err(ApiError::new(
                    Code::InvalidValue,
                    format!("{zero} is zero, with which nothing would ever move"),
                    "give 1 or more, or null instead of the limit to remove it",
                )
                .of_field(format!("{field}{name}.{zero}")));
            }
        }
        Ok(())
    }
}

/// What changes of the balloon; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalloonChange {
    /// How much memory the guest is to give up in all.
    pub size: Option<SizeSpec>,
    /// How often the guest gives its statistics, in seconds; zero for never.
    pub statistics_interval_s: Option<u16>,
    /// Whether the guest is to tell of its free pages now, or to take them back.
    pub hinting: Option<Hinting>,
}

/// What becomes of a run of free page hinting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hinting {
    /// The guest tells of its free pages, once.
    Start,
    /// The guest may use all of them again.
    Stop,
}

/// The body of `PATCH /coracle/v1/entropy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntropyPatch {
    limits: LimitsChange,
}

/// Tells a limit that is there, if only as `null`, from one that is not.
fn given<'de, D>(deserializer: D) -> Result<Change<BucketSpec>, D::Error>
where
    D: Deserializer<'de>,
{
    let rate: Option<RateSpec> = Option::deserialize(deserializer)?;
    let bucket = rate.map(BucketSpec::try_from).transpose();
    let bucket = bucket.map_err(serde::de::Error::custom)?;
    Ok(bucket.map_or(Change::Remove, Change::Set))
}

/// Reads a request to a machine in `state`.
#[must_use]
pub fn read(request: &Request, state: MachineState) -> Read {
    let dialect = routes::dialect(&request.path);
    let found = match routes::find(request.method, &request.path) {
        Ok(found) => found,
        Err(missing) => {
            let response = missing.error.response(dialect);
            let names: Vec<_> = missing.methods.iter().map(|one| one.as_str()).collect();
            return Read::Refused(match response.status {
                405 => response.with("Allow", names.join(", ")),
                _ => response,
            });
        }
    };
    let body = Body {
        bytes: &request.body,
        dialect,
    };
    let call = body
        .check(request.method)
        .and_then(|()| check_state(found.route, state, dialect))
        .and_then(|()| call(found.route.operation, found.id.unwrap_or_default(), &body));
    match call {
        Ok(call) => Read::Call(call, dialect),
        Err(error) => Read::Refused(error.response(dialect)),
    }
}

fn check_state(
    route: &routes::Route,
    state: MachineState,
    dialect: Dialect,
) -> Result<(), ApiError> {
    if route.states.contains(&state) {
        return Ok(());
    }
    let message = match (dialect, state) {
        (Dialect::Firecracker, MachineState::NotStarted) => {
            "The requested operation is not supported before starting the microVM."
        }
        (Dialect::Firecracker, _) => {
            "The requested operation is not supported after starting the microVM."
        }
        (Dialect::Coracle, MachineState::NotStarted) => "the machine is not started",
        (Dialect::Coracle, _) => "the machine is started already",
    };
    Err(ApiError::new(Code::WrongState, message, ""))
}

fn call(operation: Operation, id: &str, body: &Body<'_>) -> Result<Call, ApiError> {
    Ok(match operation {
        Operation::DescribeInstance => Call::Instance,
        Operation::GetVersion => Call::Version,
        Operation::GetMachineConfig => Call::MachineConfig,
        Operation::GetVmConfig => Call::VmConfig,
        Operation::Act => act(body.read::<Action>()?.action_type)?,
        Operation::PatchDrive => patch_drive(id, body.read()?)?,
        Operation::GetBalloon => Call::Balloon,
        Operation::PatchBalloon => {
            let patch: BalloonPatch = body.read()?;
            // A u32 of MiB is far below 2^64 bytes.
            let bytes = u64::from(patch.amount_mib).saturating_mul(MIB);
            Call::ChangeBalloon(BalloonChange {
                size: Some(SizeSpec::Bytes(bytes)),
                ..BalloonChange::default()
            })
        }
        Operation::GetBalloonStatistics => Call::BalloonStatistics,
        Operation::PatchBalloonStatistics => {
            let patch: BalloonStatisticsPatch = body.read()?;
            Call::ChangeBalloon(BalloonChange {
                statistics_interval_s: Some(patch.stats_polling_interval_s),
                ..BalloonChange::default()
            })
        }
        Operation::DescribeMachine => Call::Machine,
        Operation::DescribeDevices => Call::Devices,
        Operation::ChangeDrive => {
            let change: DriveChange = body.read()?;
            change.limits.check("limits.")?;
            let id = id.to_owned();
            Call::Drive { id, change }
        }
        Operation::ChangeBalloon => Call::ChangeBalloon(body.read()?),
        Operation::ChangeEntropy => {
            let EntropyPatch { limits } = body.read()?;
            limits.check("limits.")?;
            Call::ChangeEntropy(limits)
        }
    })
}

fn act(action: ActionType) -> Result<Call, ApiError> {
    match action {
        ActionType::SendCtrlAltDel => Ok(Call::PressPowerButton),
        ActionType::InstanceStart => Err(ApiError::new(
            Code::WrongState,
            "The requested operation is not supported after starting the microVM.",
            "",
        )),
        ActionType::FlushMetrics => Err(ApiError::new(
            Code::NotSupported,
            "this machine writes no metrics",
            "GET /coracle/v1/devices has each device's counters",
        )),
    }
}

fn patch_drive(id: &str, patch: DrivePatch) -> Result<Call, ApiError> {
    if patch.drive_id != id {
        let message = format!(
            "The id from the path [{id}] does not match the id from the body [{}]!",
            patch.drive_id
        );
        return Err(ApiError::new(Code::InvalidValue, message, "").of_field("drive_id"));
    }
    let limiter = patch.rate_limiter.unwrap_or_default();
    let change = |bucket: Option<TokenBucket>| match bucket.map(TokenBucket::spec) {
        None => Change::Keep,
        Some(None) => Change::Remove,
        Some(Some(spec)) => Change::Set(spec),
    };
    Ok(Call::Drive {
        id: id.to_owned(),
        change: DriveChange {
            path: patch.path_on_host.map(PathBuf::from),
            limits: LimitsChange {
                bandwidth: change(limiter.bandwidth),
                iops: change(limiter.ops),
            },
            size: None,
            rescan: false,
        },
    })
}

/// A request's body.
struct Body<'a> {
    bytes: &'a [u8],
    dialect: Dialect,
}

impl Body<'_> {
    /// What reads takes none, what changes needs one.
    fn check(&self, method: Method) -> Result<(), ApiError> {
        let reads = method == Method::Get;
        if reads != self.bytes.is_empty() {
            let message = match (self.dialect, reads) {
                (Dialect::Firecracker, true) => "GET request cannot have a body.".to_owned(),
                (Dialect::Firecracker, false) => format!("Empty {method} request."),
                (Dialect::Coracle, true) => "a GET request takes no body".to_owned(),
                (Dialect::Coracle, false) => format!("a {method} request needs a JSON body"),
            };
            return Err(ApiError::new(Code::BadBody, message, ""));
        }
        Ok(())
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(self.bytes).map_err(|error| {
            let text = error.to_string();
            let message = match self.dialect {
                Dialect::Firecracker => {
                    format!(
                        "An error occurred when deserializing the json body of a request: {text}."
                    )
                }
                Dialect::Coracle => format!("the body cannot be taken: {text}"),
            };
            let error = ApiError::new(Code::BadBody, message, "see docs/api.md for the fields");
            match field_of(&text) {
                Some(field) => error.of_field(field),
                None => error,
            }
        })
    }
}

/// The field that a message of serde's names.
fn field_of(text: &str) -> Option<&str> {
    let named = ["unknown field `", "missing field `", "duplicate field `"];
    let rest = named.iter().find_map(|start| text.strip_prefix(start))?;
    rest.split('`').next()
}

#[cfg(test)]
mod tests;
