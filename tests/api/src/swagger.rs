//! Firecracker's operations as facts of its published description (release 1.17): path, method,
//! fields, and in which phase of a machine's life each is carried out. Wrong requests are made of
//! right ones.

mod facts;

pub use facts::OPERATIONS;

use api::http::Method;
use serde_json::{Map, Value, json};

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    Fresh,
    /// Its guest runs.
    Running,
    /// Its guest stands still.
    Paused,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A number that is whole and not negative.
    Number,
    /// True or false.
    Flag,
    /// A few words.
    Word,
    /// Names.
    Names,
    /// Limits of bytes and operations.
    Limiter,
    /// Anything that its own object says.
    Object,
}

/// One field of a body.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether a body without it is refused.
    pub required: bool,
    /// A good value, as JSON; `W` stands for the test's folder.
    pub good: &'static str,
}

/// How an operation takes its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Fields that it does not know are refused.
    Strict,
    /// They are not, and once it was carried out it is refused.
    Once,
    /// Any JSON is taken.
    Any,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The path, with a name in it where it takes one.
    pub path: &'static str,
    /// When it is carried out.
    pub phases: &'static [Phase],
    /// The fields of its body; none for what only reads.
    pub fields: &'static [Field],
    /// How that is taken.
    pub manner: Manner,
    /// The keys that an answer of 200 has at least; none for one of 204.
    pub keys: &'static [&'static str],
}

/// A request made of an operation.
#[derive(Clone, Debug)]
pub struct Made {
    /// What was done to it.
    pub what: String,
    /// The body.
    pub body: Option<String>,
}

impl Operation {
    /// The body with all of its fields, or only with those that it must have.
    #[must_use]
    pub fn body(&self, all: bool) -> Value {
        let fields = self.fields.iter().filter(|field| all || field.required);
        let pairs = fields.map(|field| (field.name.to_owned(), field.value()));
        Value::Object(pairs.collect::<Map<_, _>>())
    }

    /// Requests that are wrong whatever the phase.
    #[must_use]
    pub fn wrong(&self) -> Vec<Made> {
        if self.method == Method::Get {
            let body = Some("{}".to_owned());
            let what = "a body of GET".to_owned();
            return vec![Made { what, body }];
        }
        let mut made = self.shapeless();
        if self.manner == Manner::Any {
            return made;
        }
        let mut add = |what: String, body: Value| {
            let body = Some(body.to_string());
            made.push(Made { what, body });
        };
        let full = self.body(true);
        let with = |name: &str, value: Value| {
            let mut body = full.clone();
            body[name] = value;
            body
        };
        if self.manner == Manner::Strict {
            add("an unknown field".to_owned(), with("nope", json!(1)));
        }
        add("a list".to_owned(), json!([]));
        add("a text".to_owned(), json!("text"));
        add("null".to_owned(), json!(null));
        for field in self.fields {
            for value in field.kind.wrong() {
                add(
                    format!("{} is {value}", field.name),
                    with(field.name, value),
                );
            }
            if field.required {
                let mut body = full.clone();
                body.as_object_mut().into_iter().for_each(|fields| {
                    fields.remove(field.name);
                });
                add(format!("no {}", field.name), body);
            }
        }
        if let Some(field) = self.fields.first() {
            let value = field.value();
            let twice = format!("{{\"{0}\": {value}, \"{0}\": {value}}}", field.name);
            made.push(Made {
                what: "a field twice".to_owned(),
                body: Some(twice),
            });
        }
        made
    }

    /// Requests that are wrong whatever JSON is taken.
    fn shapeless(&self) -> Vec<Made> {
        let made = |what: &str, body: Option<&str>| Made {
            what: what.to_owned(),
            body: body.map(str::to_owned),
        };
        vec![made("an open brace", Some("{")), made("no body", None)]
    }
}

impl Field {
    fn value(&self) -> Value {
        serde_json::from_str(self.good).unwrap_or_default()
    }
}

impl Kind {
    fn wrong(self) -> Vec<Value> {
        match self {
            Self::Text => vec![json!(1), json!(true), json!([]), json!({})],
            Self::Number => vec![json!(-1), json!(1.5), json!("1"), json!([]), json!(true)],
            Self::Flag => vec![json!(1), json!("true"), json!([]), json!({})],
            Self::Word => vec![json!("Nope"), json!(1), json!([])],
            Self::Names => vec![json!("a"), json!(1), json!([1]), json!({})],
            Self::Limiter => vec![
                json!(1),
                json!("a"),
                json!({"nope": 1}),
                json!({"bandwidth": 1}),
                json!({"bandwidth": {"size": 1}}),
                json!({"bandwidth": {"refill_time": 1}}),
                json!({"ops": {"size": -1, "refill_time": 1}}),
                json!({"ops": {"size": 1, "refill_time": "1"}}),
                json!({"ops": {"size": 1, "refill_time": 1, "nope": 1}}),
            ],
            Self::Object => vec![json!(1), json!("a")],
        }
    }
}
