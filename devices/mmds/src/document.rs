//! The document: what the host writes and the guest reads.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

/// The largest document, if nothing else was asked for: so many bytes of JSON.
pub const DEFAULT_LIMIT_BYTES: usize = 51_200;

/// Why a document is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It would be larger than it may be.
    #[error("the metadata would be larger than {limit} bytes of JSON")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Nothing was put yet, so there is nothing to change.
    #[error("The MMDS data store is not initialized.")]
    Nothing,
}

/// The metadata of a machine: all copies are one. The guest sees a document as it was before a
/// change or after it, and nothing in between.
#[derive(Clone, Debug)]
pub struct Metadata {
    shared: Arc<Mutex<Option<Arc<Value>>>>,
    limit: usize,
}

impl Default for Metadata {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT_BYTES)
    }
}

impl Metadata {
    /// None yet, of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            shared: Arc::default(),
            limit,
        }
    }

    /// The document; none before the first was put.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Value>> {
        self.lock().clone()
    }

    /// Puts `document` in the place of what there was.
    ///
    /// # Errors
    /// When it is too large; what there was stays.
    pub fn put(&self, document: Value) -> Result<(), StoreError> {
        if !fits(&document, self.limit) {
            return Err(StoreError::TooLarge { limit: self.limit });
        }
        *self.lock() = Some(Arc::new(document));
        Ok(())
    }

    /// Changes what `patch` names (RFC 7396): `null` takes a name away. One caller changes the
    /// document at a time; readers may look at any time.
    ///
    /// # Errors
    /// When there is no document yet, or it would become too large; it stays as it was then.
    pub fn patch(&self, patch: &Value) -> Result<(), StoreError> {
        let before = self.get().ok_or(StoreError::Nothing)?;
        let mut document = Value::clone(&before);
        merge(&mut document, patch);
        self.put(document)
    }

    /// Held only to copy or change one pointer.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Value>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Merges `patch` into `target`. As deep as the patch, which JSON's reader bounds.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Whether `document` has no more than `limit` bytes as JSON.
fn fits(document: &Value, limit: usize) -> bool {
    serde_json::to_writer(Room(limit), document).is_ok()
}

/// Counts what is written, and takes no more than it has room for.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.0.checked_sub(bytes.len());
        self.0 = left.ok_or(io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patches_merge_as_the_rfc_says() {
        // The examples of RFC 7396, appendix A, but for those that patch no object with one.
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ];
        for (before, patch, after) in cases {
            let metadata = Metadata::default();
            metadata.put(before.clone()).unwrap();
            metadata.patch(&patch).unwrap();
            assert_eq!(*metadata.get().unwrap(), after, "{before} and {patch}");
        }
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        // {"a":"bcd"} has 11 bytes.
        let metadata = Metadata::new(11);
        assert_eq!(metadata.patch(&json!({})), Err(StoreError::Nothing));
        assert_eq!(metadata.get(), None);
        let full = json!({"a": "bcd"});
        metadata.put(full.clone()).unwrap();
        let too_large = Err(StoreError::TooLarge { limit: 11 });
        assert_eq!(metadata.put(json!({"a": "bcde"})), too_large);
        assert_eq!(
            metadata.put(json!({"a": "\u{1}"})),
            too_large,
            "as JSON: \\u0001"
        );
        assert_eq!(metadata.patch(&json!({"b": 1})), too_large);
        assert_eq!(*metadata.get().unwrap(), full);
        metadata.patch(&json!({"a": null, "b": "cde"})).unwrap();
        assert_eq!(*metadata.get().unwrap(), json!({"b": "cde"}));
    }

    #[test]
    fn all_copies_are_one() {
        let metadata = Metadata::default();
        let copy = metadata.clone();
        metadata.put(json!(1)).unwrap();
        assert_eq!(copy.get().as_deref(), Some(&json!(1)));
    }
}
