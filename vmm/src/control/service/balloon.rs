//! What a balloon's report says, in Firecracker's words.

use api::firecracker::Balloon;
use api::http::Response;
use api::machine::ReportValue;
use devices::inspect::{Report, Value};

use super::machine::Device;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// `GET /balloon`.
pub(super) fn set_up(device: &Device, report: &Report) -> Response {
    let is = |name| report.find(name) == Some(&Value::Flag(true));
    let balloon = Balloon {
        amount_mib: device.balloon.bytes / MIB,
        deflate_on_oom: is("deflate_on_oom"),
        stats_polling_interval_s: device.balloon.statistics_interval_s.into(),
        free_page_hinting: is("free_page_hinting"),
        free_page_reporting: is("free_page_reporting"),
    };
    Response::json(200, &balloon)
}

/// `GET /balloon/statistics`: the sizes, and what the guest has told.
pub(super) fn statistics(device: &Device, report: &Report) -> Response {
    let number = |name| match report.find(name) {
        Some(Value::Number(number)) => *number,
        _ => 0,
    };
    let (target, actual) = (device.balloon.bytes, number("actual_bytes"));
    let entry = |name: &str, number| (name.to_owned(), ReportValue::Number(number));
    let mut all = vec![
        entry("target_pages", target / PAGE),
        entry("actual_pages", actual / PAGE),
        entry("target_mib", target / MIB),
        entry("actual_mib", actual / MIB),
    ];
    if let Some(Value::Part(told)) = report.find("statistics") {
        all.extend(told.entries().iter().filter_map(|(name, value)| {
            let Value::Number(number) = value else {
                return None;
            };
            Some(entry(name, *number))
        }));
    }
    Response::json(200, &ReportValue::Part(all))
}
