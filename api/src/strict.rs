//! JSON as our types mean it: what has fields is an object. serde by itself also takes a list,
//! field after field, so that `[]` would be a change of nothing.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    Visitor,
};

/// Reads a value, all of `bytes`.
///
/// # Errors
/// When they are no JSON, or not of this type.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = T::deserialize(Strict(&mut json))?;
    json.end()?;
    Ok(value)
}

/// A deserializer, a visitor, the parts of a list or an object, or what one of them is read with.
/// Each hands the next one on wrapped, so that all levels are strict.
struct Strict<T>(T);

macro_rules! read {
    ($($method:ident $(($($name:ident: $type:ty),+))?,)+) => {$(
        fn $method<V: Visitor<'de>>(self, $($($name: $type,)+)? visitor: V)
            -> Result<V::Value, D::Error>
        {
            self.0.$method($($($name,)+)? Strict(visitor))
        }
    )+};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Strict(visitor))
    }

    read! {
        deserialize_any, deserialize_bool, deserialize_i8, deserialize_i16, deserialize_i32,
        deserialize_i64, deserialize_i128, deserialize_u8, deserialize_u16, deserialize_u32,
        deserialize_u64, deserialize_u128, deserialize_f32, deserialize_f64, deserialize_char,
        deserialize_str, deserialize_string, deserialize_bytes, deserialize_byte_buf,
        deserialize_option, deserialize_unit, deserialize_seq, deserialize_map,
        deserialize_identifier, deserialize_ignored_any,
        deserialize_unit_struct(name: &'static str),
        deserialize_newtype_struct(name: &'static str),
        deserialize_tuple(len: usize),
        deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty,)+) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )+};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool: bool,
        visit_i64: i64,
        visit_i128: i128,
        visit_u64: u64,
        visit_u128: u128,
        visit_f64: f64,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(value))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(data)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::spec::MachineSpec;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Outer {
        inner: Option<Inner>,
        many: Vec<Inner>,
        text: String,
        any: Value,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        number: u64,
    }

    #[test]
    fn lists_are_no_objects_at_any_depth() {
        for text in [
            "[]",
            "[null]",
            r#"{"inner": [1]}"#,
            r#"{"many": [[1]]}"#,
            r#"{"many": [{"number": 1}, [1]]}"#,
        ] {
            assert!(
                serde_json::from_str::<Outer>(text).is_ok(),
                "serde takes {text}"
            );
            let error = from_slice::<Outer>(text.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("invalid type: sequence, expected struct"),
                "{error}"
            );
        }
    }

    #[test]
    fn all_else_is_as_ever() {
        for text in [
            "{}",
            r#"{"inner": {"number": 1}, "many": [{"number": 2}], "text": "a\n"}"#,
            r#"{"inner": null, "any": [1, {"a": [2.5, -1, true, null, "b"]}]}"#,
            "",
            "{",
            "{} 1",
            "null",
            "1",
            r#"{"nope": 1}"#,
            r#"{"text": 1}"#,
            r#"{"text": "a", "text": "b"}"#,
            r#"{"inner": {}}"#,
            r#"{"many": {}}"#,
        ] {
            let ours = from_slice::<Outer>(text.as_bytes()).map_err(|error| error.to_string());
            let serdes = serde_json::from_str::<Outer>(text).map_err(|error| error.to_string());
            assert_eq!(ours, serdes, "{text}");
        }
        let machine = from_slice::<MachineSpec>(b"{}").unwrap();
        assert_eq!(machine, MachineSpec::default());
    }
}
