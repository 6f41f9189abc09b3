//! The report tree that devices fill: what they are and how much they did, for people and JSON.

use std::fmt;

/// One value of a report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// A name, a path, a state.
    Text(String),
    /// A count, a size, an address.
    Number(u64),
    /// Something that is so or not.
    Flag(bool),
    /// A part with a report of its own.
    Part(Report),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Report> for Value {
    fn from(part: Report) -> Self {
        Self::Part(part)
    }
}

/// Named values in the order in which they were added.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    entries: Vec<(String, Value)>,
}

impl Report {
    /// An empty report.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value` as `name` and hands the report back, to chain.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.entries.push((name.into(), value.into()));
        self
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[(String, Value)] {
        &self.entries
    }

    /// The value at a path of names such as `queue/0/size`.
    pub fn find(&self, path: &str) -> Option<&Value> {
        let (name, rest) = match path.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        let value = self
            .entries
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value)?;
        match (rest, value) {
            (None, value) => Some(value),
            (Some(rest), Value::Part(part)) => part.find(rest),
            (Some(_), _) => None,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        for (name, value) in &self.entries {
            write!(f, "{:width$}{name}:", "", width = depth * 2)?;
            match value {
                Value::Text(text) => writeln!(f, " {text}")?,
                Value::Number(number) => writeln!(f, " {number}")?,
                Value::Flag(flag) => writeln!(f, " {flag}")?,
                Value::Part(part) => {
                    writeln!(f)?;
                    part.write(f, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_nest_print_and_are_searched_by_path() {
        let queue = Report::new().with("size", 256_u32).with("ready", true);
        let report = Report::new().with("kind", "block").with("queue", queue);
        assert_eq!(report.find("queue/size"), Some(&Value::Number(256)));
        assert_eq!(report.find("kind"), Some(&Value::Text("block".into())));
        for missing in ["", "queue/none", "kind/of", "other"] {
            assert_eq!(report.find(missing), None, "{missing}");
        }
        assert_eq!(
            report.to_string(),
            "kind: block\nqueue:\n  size: 256\n  ready: true\n"
        );
    }
}
