//! The API as programs read it: OpenAPI documents of both languages, made of the table of routes
//! and of the types of bodies and answers. Only tests make them; what users are given is what was
//! written to `resources/openapi`, and a test tells when that is old.

mod shapes;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::error::Dialect;
use crate::http::{Media, Method};
use crate::machine::MachineState;
use crate::routes::{self, ROUTES, Route};

/// Schemas by name.
type Schemas = BTreeMap<String, Value>;

/// Makes a schema, and those that it refers to.
type Shape = fn(&mut Schemas) -> Value;

/// The body that a route takes and the one that its answer has.
type Words = (Method, &'static str, Option<Shape>, Option<Shape>);

/// The schema of a type, by its name.
fn of<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let mut all = Vec::new();
    T::schemas(&mut all);
    all.push((T::name().into_owned(), T::schema()));
    for (name, schema) in all {
        schemas.insert(name, serde_json::to_value(schema).unwrap());
    }
    json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
}

/// The schema of a list of a type.
fn list<T: ToSchema>(schemas: &mut Schemas) -> Value {
    json!({ "type": "array", "items": of::<T>(schemas) })
}

fn document(dialect: Dialect) -> Value {
    let mut schemas = Schemas::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        if routes::dialect(route.path) == dialect {
            let method = route.method.as_str().to_lowercase();
            let operation = operation(route, &mut schemas);
            paths
                .entry(route.path)
                .or_default()
                .insert(method, operation);
        }
    }
    let (title, description) = match dialect {
        Dialect::Firecracker => (
            "Firecracker's API, as Coracle answers it",
            "Nearly every error is 400 with a `fault_message`; `code`, `field`, `message`, \
             `hint` and `retryable` say more.",
        ),
        Dialect::Coracle => (
            "Coracle's API",
            "The status of an error says of what kind it is, its `code` which one.",
        ),
    };
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "description": description,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas },
    });
    unlink(&mut document);
    document
}

/// Comments of types link to others as rustdoc wants it: their names are what is left of that.
fn unlink(value: &mut Value) {
    match value {
        Value::String(text) => {
            for (from, to) in [
                ("[`super::", "`"),
                ("[`crate::", "`"),
                ("[`", "`"),
                ("`]", "`"),
            ] {
                *text = text.replace(from, to);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unlink),
        Value::Object(entries) => entries.values_mut().for_each(unlink),
        _ => {}
    }
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let (_, _, takes, gives) = words(route);
    let mut responses = Map::new();
    match gives {
        Some(shape) => {
            let content = json!({ media(route): { "schema": shape(schemas) } });
            responses.insert(
                "200".into(),
                json!({"description": "told", "content": content}),
            );
        }
        None => {
            responses.insert("204".into(), json!({"description": "done"}));
        }
    }
    let error = content(&of::<crate::error::Body>(schemas));
    for (status, why) in errors(route) {
        let response = json!({"description": why, "content": error});
        responses.insert((*status).into(), response);
    }
    let mut operation = json!({
        "operationId": id(route),
        "summary": route.doc,
        "description": states(route.states),
        "responses": responses,
    });
    if let Some(shape) = takes {
        let content = content(&shape(schemas));
        let required = !route.path.starts_with("/balloon/hinting/");
        operation["requestBody"] = json!({"required": required, "content": content});
    }
    if route.path.contains("{id}") {
        operation["parameters"] = json!([{
            "name": "id", "in": "path", "required": true,
            "description": "the name of the device",
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]+$" },
        }]);
    }
    operation
}

/// What the answer of a route is.
fn media(route: &Route) -> &'static str {
    let media = match route.path {
        "/coracle/v1/events" => Media::JsonLines,
        "/coracle/v1/metrics" => Media::Metrics,
        _ => Media::Json,
    };
    media.name()
}

fn content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

/// The errors of a route, and what they are for.
fn errors(route: &Route) -> &'static [(&'static str, &'static str)] {
    const THEIRS: &[(&str, &str)] = &[
        ("400", "refused; nothing has changed"),
        ("413", "there is more of it than there may be"),
    ];
    const READS: &[(&str, &str)] = &[
        ("400", "no request of this kind, or a body with it"),
        ("404", "there is no such device"),
        ("409", "not in this state of the machine"),
        ("504", "a device did not answer in time"),
    ];
    const CHANGES: &[(&str, &str)] = &[
        ("400", "no JSON, an unknown field, a wrong type"),
        ("404", "there is no such device"),
        ("409", "not now, or not with this device or guest"),
        ("413", "there is more of it than there may be"),
        ("422", "`field` says which value cannot be taken"),
        ("500", "the host failed"),
        ("504", "a device did not answer in time"),
    ];
    match (routes::dialect(route.path), route.method) {
        (Dialect::Firecracker, _) => THEIRS,
        (Dialect::Coracle, Method::Get) => READS,
        (Dialect::Coracle, _) => CHANGES,
    }
}

/// `PATCH /drives/{id}` is `patch-drives-id`.
fn id(route: &Route) -> String {
    let path = route.path.trim_start_matches(routes::OURS);
    let words = path.split(['/', '{', '}']).filter(|word| !word.is_empty());
    let method = route.method.as_str().to_lowercase();
    let words = words.map(str::to_owned);
    std::iter::once(method)
        .chain(words)
        .collect::<Vec<_>>()
        .join("-")
}

fn states(states: &[MachineState]) -> &'static str {
    let before = states.contains(&MachineState::NotStarted);
    match (before, states.contains(&MachineState::Running)) {
        (true, true) => "In every state of the machine.",
        (true, false) => "Before the machine is started.",
        (false, _) => "Once the machine is started.",
    }
}

/// The row of a route.
fn words(route: &Route) -> Words {
    let is_it = |words: &&Words| (words.0, words.1) == (route.method, route.path);
    let mut found = shapes::WORDS.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(words), None) => *words,
        _ => panic!("{} {} wants one row of shapes", route.method, route.path),
    }
}

#[test]
fn every_shape_has_its_route() {
    for (method, path, takes, gives) in shapes::WORDS {
        let mut routes = ROUTES.iter();
        let found = routes.any(|one| (one.method, one.path) == (*method, *path));
        assert!(found, "{method} {path} is no route");
        let reads = *method == Method::Get;
        let bodiless = reads || *method == Method::Delete;
        assert_eq!(
            (takes.is_none(), gives.is_some()),
            (bodiless, reads),
            "{method} {path}"
        );
    }
}

/// The documents as users get them. `CORACLE_BLESS=1` writes them anew.
#[test]
fn documents_are_as_committed() {
    for (name, dialect) in [
        ("firecracker", Dialect::Firecracker),
        ("coracle", Dialect::Coracle),
    ] {
        let text = serde_json::to_string_pretty(&document(dialect)).unwrap() + "\n";
        let file = format!(
            "{}/../resources/openapi/{name}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        if std::env::var_os("CORACLE_BLESS").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            text == committed,
            "{file} is old; CORACLE_BLESS=1 writes it anew"
        );
    }
}

#[test]
fn what_is_referred_to_is_there() {
    for dialect in [Dialect::Firecracker, Dialect::Coracle] {
        let document = document(dialect);
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            let at = format!("/components/schemas/{name}");
            assert!(document.pointer(&at).is_some(), "{name}");
        }
    }
}
