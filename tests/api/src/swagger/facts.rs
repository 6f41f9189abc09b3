//! The facts themselves.

use super::{Field, Kind, Manner, Operation, Phase};
use api::http::Method::{Get, Patch, Put};

const FRESH: &[Phase] = &[Phase::Fresh];
const STARTED: &[Phase] = &[Phase::Running, Phase::Paused];
/// Where the machine of the test has not what it takes: a driver, a network, such a device.
const NEVER: &[Phase] = &[];
const ALWAYS: &[Phase] = &[Phase::Fresh, Phase::Running, Phase::Paused];

const fn must(name: &'static str, kind: Kind, good: &'static str) -> Field {
    Field {
        name,
        kind,
        required: true,
        good,
    }
}

const fn may(name: &'static str, kind: Kind, good: &'static str) -> Field {
    Field {
        required: false,
        ..must(name, kind, good)
    }
}

const fn get(
    path: &'static str,
    phases: &'static [Phase],
    keys: &'static [&'static str],
) -> Operation {
    Operation {
        method: Get,
        path,
        phases,
        fields: &[],
        manner: Manner::Strict,
        keys,
    }
}

const fn put(path: &'static str, phases: &'static [Phase], fields: &'static [Field]) -> Operation {
    Operation {
        method: Put,
        path,
        phases,
        fields,
        manner: Manner::Strict,
        keys: &[],
    }
}

const fn patch(
    path: &'static str,
    phases: &'static [Phase],
    fields: &'static [Field],
) -> Operation {
    Operation {
        method: Patch,
        ..put(path, phases, fields)
    }
}

const fn taking(manner: Manner, operation: Operation) -> Operation {
    Operation {
        manner,
        ..operation
    }
}

const LIMITER: &str = r#"{"bandwidth": {"size": 1000000, "one_time_burst": 5, "refill_time": 100},
    "ops": {"size": 1000, "refill_time": 100}}"#;

/// Every operation but those of networks, whose taps a test has to make, and of snapshots.
#[rustfmt::skip]
pub const OPERATIONS: &[Operation] = &[
    get("/", ALWAYS, &["app_name", "id", "state", "vmm_version"]),
    get("/version", ALWAYS, &["firecracker_version"]),
    get("/machine-config", ALWAYS, &[
        "huge_pages", "mem_size_mib", "smt", "track_dirty_pages", "vcpu_count",
    ]),
    put("/machine-config", FRESH, &[
        must("vcpu_count", Kind::Number, "1"),
        must("mem_size_mib", Kind::Number, "128"),
        may("smt", Kind::Flag, "false"),
        may("track_dirty_pages", Kind::Flag, "false"),
        may("huge_pages", Kind::Word, "\"None\""),
    ]),
    patch("/machine-config", FRESH, &[
        may("vcpu_count", Kind::Number, "2"),
        may("mem_size_mib", Kind::Number, "256"),
        may("smt", Kind::Flag, "false"),
        may("track_dirty_pages", Kind::Flag, "false"),
        may("huge_pages", Kind::Word, "\"None\""),
    ]),
    put("/boot-source", FRESH, &[
        must("kernel_image_path", Kind::Text, "\"W/kernel\""),
        may("initrd_path", Kind::Text, "\"W/initrd\""),
        may("boot_args", Kind::Text, "\"console=ttyS0\""),
    ]),
    put("/drives/d1", FRESH, &[
        must("drive_id", Kind::Text, "\"d1\""),
        must("is_root_device", Kind::Flag, "false"),
        must("path_on_host", Kind::Text, "\"W/a.img\""),
        may("is_read_only", Kind::Flag, "false"),
        may("cache_type", Kind::Word, "\"Writeback\""),
        may("io_engine", Kind::Word, "\"Sync\""),
        may("rate_limiter", Kind::Limiter, LIMITER),
    ]),
    patch("/drives/d0", STARTED, &[
        must("drive_id", Kind::Text, "\"d0\""),
        may("path_on_host", Kind::Text, "\"W/b.img\""),
        may("rate_limiter", Kind::Limiter, LIMITER),
    ]),
    put("/vsock", FRESH, &[
        must("guest_cid", Kind::Number, "3"),
        must("uds_path", Kind::Text, "\"W/v1.sock\""),
        may("vsock_id", Kind::Text, "\"v\""),
    ]),
    put("/entropy", FRESH, &[may("rate_limiter", Kind::Limiter, LIMITER)]),
    put("/serial", FRESH, &[may("serial_out_path", Kind::Text, "\"W/serial\"")]),
    put("/balloon", FRESH, &[
        must("amount_mib", Kind::Number, "0"),
        must("deflate_on_oom", Kind::Flag, "true"),
        may("stats_polling_interval_s", Kind::Number, "1"),
        may("free_page_hinting", Kind::Flag, "false"),
        may("free_page_reporting", Kind::Flag, "false"),
    ]),
    get("/balloon", ALWAYS, &[
        "amount_mib", "deflate_on_oom", "free_page_hinting", "free_page_reporting",
        "stats_polling_interval_s",
    ]),
    get("/balloon/statistics", STARTED, &[
        "actual_mib", "actual_pages", "target_mib", "target_pages",
    ]),
    patch("/balloon", NEVER, &[must("amount_mib", Kind::Number, "8")]),
    patch("/balloon/statistics", STARTED, &[
        must("stats_polling_interval_s", Kind::Number, "1"),
    ]),
    patch("/balloon/hinting/start", NEVER, &[may("acknowledge_on_stop", Kind::Flag, "true")]),
    patch("/balloon/hinting/stop", NEVER, &[]),
    get("/balloon/hinting/status", STARTED, &["guest_cmd", "host_cmd"]),
    put("/cpu-config", FRESH, &[]),
    put("/pmem/p0", NEVER, &[
        must("id", Kind::Text, "\"p0\""),
        must("path_on_host", Kind::Text, "\"W/a.img\""),
        may("root_device", Kind::Flag, "false"),
        may("read_only", Kind::Flag, "false"),
    ]),
    patch("/pmem/p0", NEVER, &[must("id", Kind::Text, "\"p0\"")]),
    get("/hotplug/memory", NEVER, &[]),
    put("/hotplug/memory", NEVER, &[
        must("total_size_mib", Kind::Number, "1024"),
        may("slot_size_mib", Kind::Number, "128"),
        may("block_size_mib", Kind::Number, "2"),
    ]),
    patch("/hotplug/memory", NEVER, &[must("requested_size_mib", Kind::Number, "128")]),
    put("/actions", STARTED, &[must("action_type", Kind::Word, "\"SendCtrlAltDel\"")]),
    get("/mmds", ALWAYS, &[]),
    taking(Manner::Any, put("/mmds", ALWAYS, &[may("latest", Kind::Object, "{}")])),
    taking(Manner::Any, patch("/mmds", ALWAYS, &[may("latest", Kind::Object, "{}")])),
    put("/mmds/config", NEVER, &[
        must("network_interfaces", Kind::Names, "[\"n1\"]"),
        may("version", Kind::Word, "\"V2\""),
        may("ipv4_address", Kind::Text, "\"169.254.169.254\""),
        may("imds_compat", Kind::Flag, "true"),
    ]),
    taking(Manner::Once, put("/metrics", FRESH, &[
        must("metrics_path", Kind::Text, "\"W/metrics\""),
    ])),
    put("/logger", FRESH, &[
        may("log_path", Kind::Text, "\"W/log\""),
        may("level", Kind::Word, "\"Info\""),
        may("show_level", Kind::Flag, "true"),
        may("show_log_origin", Kind::Flag, "true"),
        may("module", Kind::Text, "\"api\""),
    ]),
    patch("/vm", STARTED, &[must("state", Kind::Word, "\"Paused\"")]),
    get("/vm/config", ALWAYS, &["boot-source", "drives", "machine-config", "network-interfaces"]),
];
