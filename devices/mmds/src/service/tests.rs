use super::*;
use crate::http::{Heard, hear};
use serde_json::json;
use std::time::Duration;

fn service(version: Version, imds_compat: bool) -> (Service, Instant) {
    let now = Instant::now();
    let metadata = Metadata::default();
    metadata
        .put(json!({
            "latest": {
                "meta-data": {
                    "ami-id": "ami-1",
                    "network": {"interfaces": {}},
                    "a/b~c": "odd",
                    "": "empty",
                    "n": 7,
                    "list": ["x", {"y": "z"}],
                    "none": null,
                    "yes": true,
                },
                "user-data": "#!/bin/sh\necho hi\n",
            },
        }))
        .unwrap();
    let settings = Settings {
        version,
        imds_compat,
    };
    (Service::new(metadata, settings, now).unwrap(), now)
}

/// The answer to a request of these lines, with its counts.
fn told(service: &Service, lines: &str, now: Instant) -> (Reply, Counters) {
    let text = format!("{}\r\n\r\n", lines.replace('\n', "\r\n"));
    let mut counters = Counters::default();
    let reply = match hear(text.as_bytes()) {
        Heard::Ask(ask, _) => service.answer(&ask, &mut counters, now),
        Heard::Bad(reply) => reply,
        Heard::Partial => panic!("{text:?} is not whole"),
    };
    (reply, counters)
}

fn check(service: &Service, now: Instant, lines: &str, status: u16, body: &str) {
    let (reply, _) = told(service, lines, now);
    assert_eq!((reply.status, &*reply.body), (status, body), "{lines}");
}

const TOO_ODD: &str = "Cannot retrieve value. The value has an unsupported type.";

#[test]
fn values_are_told_as_text() {
    let (service, now) = service(Version::V1, false);
    let names = "\na/b~c\nami-id\nlist\nn\nnetwork/\nnone\nyes";
    let cases = [
        ("/", 200, "latest/"),
        ("/latest", 200, "meta-data/\nuser-data"),
        ("/latest/", 200, "meta-data/\nuser-data"),
        ("//latest//meta-data///", 200, names),
        ("/latest/meta-data/ami-id", 200, "ami-1"),
        ("/latest/meta-data/ami-id/", 200, "ami-1"),
        ("/latest/meta-data/network/interfaces", 200, ""),
        ("/latest/meta-data/a~1b~0c", 200, "odd"),
        ("/latest/user-data", 200, "#!/bin/sh\necho hi\n"),
        ("/latest/meta-data/list/0", 200, "x"),
        ("/latest/meta-data/list/1", 200, "y"),
        ("/latest/meta-data/list/1/y", 200, "z"),
        ("/latest/meta-data/list", 501, TOO_ODD),
        ("/latest/meta-data/n", 501, TOO_ODD),
        ("/latest/meta-data/none", 501, TOO_ODD),
        ("/latest/meta-data/yes", 501, TOO_ODD),
    ];
    for (path, status, body) in cases {
        check(&service, now, &format!("GET {path} HTTP/1.1"), status, body);
    }
    let missing = [
        "/nope",
        "/latest/nope",
        "/latest/meta-data/ami-id/x",
        "/latest/meta-data/list/2",
        "/latest/meta-data/list/01",
        "/latest/meta-data/list/+1",
        "/latest/meta-data/list/-",
        "/latest/meta-data/n/0",
        "/latest/meta-data/none/x",
        "/LATEST",
    ];
    for path in missing {
        let body = format!("Resource not found: {path}.");
        check(&service, now, &format!("GET {path} HTTP/1.1"), 404, &body);
    }
}

#[test]
fn values_are_told_as_json_where_that_is_wanted() {
    let (plain, now) = service(Version::V1, false);
    let (compatible, _) = service(Version::V1, true);
    let cases = [
        ("/latest/meta-data/ami-id", "\"ami-1\""),
        ("/latest/meta-data/n", "7"),
        ("/latest/meta-data/list", "[\"x\",{\"y\":\"z\"}]"),
        ("/latest/meta-data/none", "null"),
        ("/latest/meta-data/network/", "{\"interfaces\":{}}"),
    ];
    for (path, body) in cases {
        let lines = format!("GET {path} HTTP/1.1\nAccept: application/json");
        let (reply, _) = told(&plain, &lines, now);
        assert_eq!((reply.status, reply.json, &*reply.body), (200, true, body));
        // EC2 gives text whatever is asked for.
        let (reply, _) = told(&compatible, &lines, now);
        assert!(!reply.json, "{path}");
    }
    let lines = "GET /latest/meta-data/ami-id HTTP/1.1\nAccept: application/json";
    check(&compatible, now, lines, 200, "ami-1");
    check(
        &compatible,
        now,
        "GET /latest/meta-data/n HTTP/1.1\nAccept: application/json",
        501,
        TOO_ODD,
    );
}

#[test]
fn nothing_is_there_before_the_first_document() {
    let now = Instant::now();
    let service = Service::new(Metadata::default(), Settings::default(), now).unwrap();
    check(
        &service,
        now,
        "GET /latest HTTP/1.1",
        404,
        "Resource not found: /latest.",
    );
    check(&service, now, "GET / HTTP/1.1", 501, TOO_ODD);
}

#[test]
fn version_2_wants_a_token_and_version_1_counts() {
    for version in [Version::V1, Version::V2] {
        let (service, now) = service(version, false);
        let ask = "PUT /latest/api/token HTTP/1.1\nX-metadata-token-ttl-seconds: 60";
        let (reply, _) = told(&service, ask, now);
        assert_eq!((reply.status, reply.json), (200, false));
        let echoed = ("X-metadata-token-ttl-seconds", "60".to_owned());
        assert_eq!(reply.header, Some(echoed));
        let path = "GET /latest/meta-data/ami-id HTTP/1.1";
        for name in ["X-metadata-token", "x-aws-EC2-metadata-token"] {
            let with = format!("{path}\n{name}: {}", reply.body);
            check(&service, now, &with, 200, "ami-1");
            let later = now + Duration::from_secs(60);
            let (late, counters) = told(&service, &with, later);
            assert_eq!(late.status == 401, version == Version::V2);
            assert_eq!((counters.invalid_token, counters.no_token), (1, 0));
        }
        let (without, counters) = told(&service, path, now);
        assert_eq!(without.status == 401, version == Version::V2);
        assert_eq!((counters.invalid_token, counters.no_token), (0, 1));
        let (wrong, _) = told(&service, &format!("{path}\nX-metadata-token: x"), now);
        assert_eq!(wrong.status == 401, version == Version::V2);
        // What is not there is not told without a token either.
        let (missing, _) = told(&service, "GET /nope HTTP/1.1", now);
        assert_eq!(
            missing.status,
            if version == Version::V2 { 401 } else { 404 }
        );
    }
}

#[test]
fn tokens_are_given_as_the_rules_say() {
    let (service, now) = service(Version::V2, false);
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds";
    let cases = [
        (format!("PUT /latest/api/token HTTP/1.1\n{ttl}: 1"), 200),
        (
            format!("PUT //latest/api//token HTTP/1.0\n{ttl}: 21600"),
            200,
        ),
        (format!("PUT /latest/api/token HTTP/1.1\n{ttl}: 0"), 400),
        (format!("PUT /latest/api/token HTTP/1.1\n{ttl}: 21601"), 400),
        (format!("PUT /latest/api/token HTTP/1.1\n{ttl}: -1"), 400),
        (format!("PUT /latest/api/token HTTP/1.1\n{ttl}: 1.5"), 400),
        (
            format!("PUT /latest/api/token HTTP/1.1\n{ttl}: 99999999999"),
            400,
        ),
        (format!("PUT /latest/api/token HTTP/1.1\n{ttl}:"), 400),
        ("PUT /latest/api/token HTTP/1.1".to_owned(), 400),
        (
            format!("PUT /latest/api/token HTTP/1.1\n{ttl}: 9\nX-Forwarded-For: 1.2.3.4"),
            400,
        ),
        (format!("PUT /latest/api/token/ HTTP/1.1\n{ttl}: 9"), 404),
        (format!("PUT /latest/api HTTP/1.1\n{ttl}: 9"), 404),
        (format!("PUT /latest/meta-data HTTP/1.1\n{ttl}: 9"), 404),
        (format!("PUT /latest/api/token/x HTTP/1.1\n{ttl}: 9"), 404),
    ];
    for (lines, status) in cases {
        let (reply, _) = told(&service, &lines, now);
        assert_eq!(reply.status, status, "{lines}: {}", reply.body);
        assert_eq!(reply.header.is_some(), status == 200, "{lines}");
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let (service, now) = service(Version::V2, false);
    for method in ["HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "get", "BREW"] {
        let (reply, _) = told(&service, &format!("{method} / HTTP/1.1"), now);
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header, Some(("Allow", "GET, PUT".to_owned())));
    }
}
