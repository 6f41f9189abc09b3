//! Which body each route takes and gives, and the types that are not described by what they are
//! made of.

use serde_json::{Value, json};
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{Schemas, Words, list, of};
use crate::events::Event;
use crate::firecracker as theirs;
use crate::http::Method::{Delete, Get, Patch, Put};
use crate::machine::{DeviceView, MachineView, ReportValue};
use crate::plan::Hex;
use crate::request as ours;
use crate::spec::{ConsoleBackend, MachineSpec, MmdsSpec, PortBackend};

/// Every route, in the order of the table of routes.
#[rustfmt::skip]
pub(super) const WORDS: &[Words] = &[
    (Get, "/", None, Some(of::<theirs::InstanceInfo>)),
    (Get, "/version", None, Some(of::<theirs::Version>)),
    (Get, "/machine-config", None, Some(of::<theirs::MachineConfig>)),
    (Put, "/machine-config", Some(of::<theirs::MachineConfig>), None),
    (Patch, "/machine-config", Some(of::<theirs::MachineConfigPatch>), None),
    (Put, "/boot-source", Some(of::<theirs::BootSource>), None),
    (Put, "/drives/{id}", Some(of::<theirs::Drive>), None),
    (Patch, "/drives/{id}", Some(of::<theirs::DrivePatch>), None),
    (Delete, "/drives/{id}", None, None),
    (Put, "/network-interfaces/{id}", Some(of::<theirs::NetworkInterface>), None),
    (Delete, "/network-interfaces/{id}", None, None),
    (Put, "/vsock", Some(of::<theirs::Vsock>), None),
    (Put, "/entropy", Some(of::<theirs::Entropy>), None),
    (Put, "/serial", Some(of::<theirs::Serial>), None),
    (Put, "/cpu-config", Some(lists), None),
    (Patch, "/network-interfaces/{id}", Some(of::<theirs::NetworkInterfacePatch>), None),
    (Get, "/balloon", None, Some(of::<theirs::Balloon>)),
    (Put, "/balloon", Some(of::<theirs::Balloon>), None),
    (Patch, "/balloon", Some(of::<theirs::BalloonPatch>), None),
    (Get, "/balloon/statistics", None, Some(numbers)),
    (Patch, "/balloon/statistics", Some(of::<theirs::BalloonStatisticsPatch>), None),
    (Patch, "/balloon/hinting/start", Some(of::<theirs::HintingStart>), None),
    (Get, "/balloon/hinting/status", None, Some(of::<theirs::HintingStatus>)),
    (Patch, "/balloon/hinting/stop", Some(of::<theirs::Nothing>), None),
    (Put, "/pmem/{id}", Some(object), None),
    (Patch, "/pmem/{id}", Some(object), None),
    (Delete, "/pmem/{id}", None, None),
    (Get, "/hotplug/memory", None, Some(object)),
    (Put, "/hotplug/memory", Some(object), None),
    (Patch, "/hotplug/memory", Some(object), None),
    (Put, "/logger", Some(of::<theirs::Logger>), None),
    (Put, "/metrics", Some(of::<theirs::Metrics>), None),
    (Put, "/actions", Some(of::<theirs::Action>), None),
    (Get, "/mmds", None, Some(anything)),
    (Put, "/mmds", Some(anything), None),
    (Patch, "/mmds", Some(anything), None),
    (Put, "/mmds/config", Some(of::<MmdsSpec>), None),
    (Patch, "/vm", Some(of::<theirs::VmPatch>), None),
    (Put, "/snapshot/create", Some(of::<theirs::SnapshotCreate>), None),
    (Put, "/snapshot/load", Some(of::<theirs::SnapshotLoad>), None),
    (Put, "/coracle/v1/snapshot", Some(of::<theirs::SnapshotCreate>), None),
    (Put, "/coracle/v1/restore", Some(of::<theirs::SnapshotLoad>), None),
    (Get, "/vm/config", None, Some(of::<theirs::VmConfig>)),

    (Get, "/coracle/v1/machine", None, Some(of::<MachineView>)),
    (Put, "/coracle/v1/machine", Some(of::<MachineSpec>), None),
    (Put, "/coracle/v1/actions", Some(of::<ours::actions::Ours>), None),
    (Get, "/coracle/v1/events", None, Some(of::<Event>)),
    (Get, "/coracle/v1/metrics", None, Some(text)),
    (Get, "/coracle/v1/devices", None, Some(list::<DeviceView>)),
    (Patch, "/coracle/v1/drives/{id}", Some(of::<ours::DriveChange>), None),
    (Patch, "/coracle/v1/network-interfaces/{id}", Some(of::<ours::NetChange>), None),
    (Patch, "/coracle/v1/balloon", Some(of::<ours::BalloonChange>), None),
    (Get, "/coracle/v1/metadata", None, Some(anything)),
    (Put, "/coracle/v1/metadata", Some(anything), None),
    (Patch, "/coracle/v1/metadata", Some(anything), None),
    (Patch, "/coracle/v1/cpu", Some(of::<ours::cpu::CpuPatch>), None),
    (Patch, "/coracle/v1/entropy", Some(of::<ours::entropy::EntropyPatch>), None),
];

/// Whatever a user keeps there.
fn anything(_: &mut Schemas) -> Value {
    json!({})
}

/// The words of Firecracker's for what is not there, and refused whatever it holds.
fn object(_: &mut Schemas) -> Value {
    json!({"type": "object"})
}

/// Named lists.
fn lists(_: &mut Schemas) -> Value {
    json!({"type": "object", "additionalProperties": {"type": "array"}})
}

/// Text that is no JSON.
fn text(_: &mut Schemas) -> Value {
    json!({"type": "string"})
}

/// Named numbers: which ones, the guest says.
fn numbers(_: &mut Schemas) -> Value {
    json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}})
}

/// Types that are text in JSON, whatever they are made of.
macro_rules! are_text {
    ($($type:ty),+) => {$(
        impl ToSchema for $type {}

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                String::schema()
            }
        }
    )+};
}

are_text!(ConsoleBackend, Hex, PortBackend);

impl ToSchema for ReportValue {}

impl PartialSchema for ReportValue {
    fn schema() -> RefOr<Schema> {
        let of = |kind| ObjectBuilder::new().schema_type(kind).build();
        AnyOfBuilder::new()
            .item(of(Type::String))
            .item(of(Type::Integer))
            .item(of(Type::Boolean))
            .item(of(Type::Object))
            .into()
    }
}
