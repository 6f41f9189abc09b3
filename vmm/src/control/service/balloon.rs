//! What the balloon's report says, in Firecracker's words.

use api::error::ApiError;
use api::firecracker::HintingStatus;
use api::http::Response;
use api::machine::ReportValue;
use devices::inspect::{Report, Value};

/// What `GET /balloon/statistics` always has.
const SIZES: [&str; 4] = ["target_pages", "actual_pages", "target_mib", "actual_mib"];

/// Entries of the device's statistics that are its own, not the guest's.
const OWN: [&str; 2] = ["reports", "unknown_values"];

/// `GET /balloon/statistics`: the sizes, and what the guest has told.
pub(super) fn statistics(report: &Report) -> Result<Response, ApiError> {
    let mut all: Vec<_> = report.entries().iter().collect();
    all.retain(|(name, _)| SIZES.contains(&name.as_str()));
    if let Some(Value::Part(told)) = report.find("statistics") {
        let told = told.entries().iter();
        all.extend(told.filter(|(name, _)| !OWN.contains(&name.as_str())));
    }
    let numbers = all.into_iter().filter_map(|(name, value)| match value {
        Value::Number(number) => Some((name.clone(), ReportValue::Number(*number))),
        _ => None,
    });
    Ok(Response::json(200, &ReportValue::Part(numbers.collect())))
}

/// `GET /balloon/hinting/status`: which run the host asks for, and at which the guest is.
pub(super) fn hinting(report: &Report) -> Result<Response, ApiError> {
    let number = |name: &str| match report.find(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    let Some(host_cmd) = number("hinting/host_cmd") else {
        return Err(super::gone());
    };
    let answered = matches!(
        report.find("hinting/guest_answered"),
        Some(Value::Flag(true))
    );
    let guest_cmd = number("hinting/guest_cmd").filter(|_| answered);
    Ok(Response::json(
        200,
        &HintingStatus {
            host_cmd,
            guest_cmd,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_what_the_guest_told() {
        let told = Report::new()
            .with("free_memory", 7_u64)
            .with("reports", 3_u64);
        let report = Report::new()
            .with("kind", "balloon")
            .with("target_pages", 256_u64)
            .with("target_bytes", 1_u64 << 20)
            .with("target_mib", 1_u64)
            .with("statistics", told);
        let text = String::from_utf8(statistics(&report).unwrap().body).unwrap();
        assert_eq!(
            text,
            r#"{"target_pages":256,"target_mib":1,"free_memory":7}"#
        );
    }
}
