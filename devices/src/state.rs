//! Saved state: plain values with a fixed little-endian encoding. Pure: values to bytes and back.
//!
//! What is saved is a type of its own beside its owner, never the type that runs; [`state!`] makes
//! one from its list of fields. Bytes that were not written by [`Encode`] are an error of
//! [`Decode`], never a panic, and make nothing grow beyond their own length.

use std::fmt;

/// Bytes that are no saved state of the kind that was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadState {
    /// The bytes end within a value.
    #[error("it ends too early")]
    Short,
    /// Bytes are left over.
    #[error("{0} bytes too many")]
    Long(usize),
    /// A value that its owner cannot have.
    #[error("{what} cannot be {value}")]
    Value {
        /// Which.
        what: &'static str,
        /// What was found.
        value: u64,
    },
    /// The state of something else.
    #[error("it is the state of {found:?} and not of {expected}")]
    Kind {
        /// What is restored.
        expected: &'static str,
        /// Whose it is.
        found: String,
    },
    /// A state with other fields.
    #[error("{kind} has version {found}, this program reads version {known}")]
    Version {
        /// Whose it is.
        kind: &'static str,
        /// Its version.
        found: u16,
        /// The one that can be read.
        known: u16,
    },
    /// The guest's driver works with features that the device does not have here.
    #[error("the guest uses {}, which the device does not offer here", Bits(*.0))]
    Features(u64),
    /// Something else that its owner refuses.
    #[error("{0}")]
    Refused(String),
}

impl BadState {
    /// A value that its owner cannot have.
    pub fn value(what: &'static str, value: impl Into<u64>) -> Self {
        let value = value.into();
        Self::Value { what, value }
    }

    /// `Ok` if a saved value is `good`.
    ///
    /// # Errors
    /// [`BadState::Value`] otherwise.
    pub fn unless(good: bool, what: &'static str, value: impl Into<u64>) -> Result<(), Self> {
        good.then_some(()).ok_or_else(|| Self::value(what, value))
    }

    /// Nothing, where there are as many of something as there have to be.
    ///
    /// # Errors
    /// [`BadState::Value`] otherwise.
    pub fn unless_as_many(what: &'static str, found: usize, expected: usize) -> Result<(), Self> {
        Self::unless(found == expected, what, found as u64)
    }
}

/// Features by their numbers, as the specification has them.
struct Bits(u64);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = (0..u64::BITS).filter(|bit| self.0 >> bit & 1 != 0);
        let set: Vec<_> = set.map(|bit| bit.to_string()).collect();
        let word = if set.len() == 1 {
            "feature"
        } else {
            "features"
        };
        write!(f, "{word} {}", set.join(", "))
    }
}

/// A part of a machine that cannot be saved now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotSaved {
    /// Nobody has paused it.
    #[error("it is not at rest")]
    Running,
    /// Its I/O loop has ended and it with it.
    #[error("it is gone: its I/O loop has ended")]
    Gone,
}

/// A part of a machine that is saved, and put into a saved state, while the machine stands still.
pub trait Persist: Send {
    /// Its state, with its kind and version in front.
    ///
    /// # Errors
    /// [`NotSaved`] when it does not stand still.
    fn save(&self) -> Result<Vec<u8>, NotSaved>;

    /// Puts a part that is as it was made into a saved state. It stands still afterwards.
    ///
    /// # Errors
    /// [`BadState`] when the bytes are no state that this part can have. It is of no use then.
    fn restore(&mut self, state: &[u8]) -> Result<(), BadState>;

    /// A restored machine is about to go on, its vCPUs and their interrupt controllers as they
    /// were: tells its guest again of what may have been on its way when it was saved.
    fn tell_again(&mut self) {}
}

/// A value that can be saved.
pub trait Encode {
    /// Appends the value's bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// All bytes of the value.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

/// A value that can be read again.
pub trait Decode: Sized {
    /// Takes the value from the front of `from`.
    ///
    /// # Errors
    /// [`BadState`] when it isn't there.
    fn decode(from: &mut Reader<'_>) -> Result<Self, BadState>;

    /// The value that all of `bytes` are.
    ///
    /// # Errors
    /// [`BadState`] when they are none, or more.
    fn from_bytes(bytes: &[u8]) -> Result<Self, BadState> {
        let mut reader = Reader(bytes);
        let value = Self::decode(&mut reader)?;
        match reader.0.len() {
            0 => Ok(value),
            left => Err(BadState::Long(left)),
        }
    }
}

/// The saved state of one part of a machine, a section of a snapshot.
pub trait Section: Encode + Decode {
    /// Its name in the file, at most 16 bytes of ASCII.
    const KIND: &'static str;
    /// Counts the changes of its fields, from 1.
    const VERSION: u16;

    /// All bytes of the state behind its kind and version, where nothing else tells these.
    fn to_tagged(&self) -> Vec<u8> {
        let mut out = Self::KIND.to_owned().to_bytes();
        Self::VERSION.encode(&mut out);
        self.encode(&mut out);
        out
    }

    /// The state that all of `bytes` are, as [`to_tagged`](Self::to_tagged) makes them.
    ///
    /// # Errors
    /// [`BadState`] when they are another's state or none.
    fn from_tagged(bytes: &[u8]) -> Result<Self, BadState> {
        let mut reader = Reader(bytes);
        let found = String::decode(&mut reader)?;
        if found != Self::KIND {
            let expected = Self::KIND;
            return Err(BadState::Kind { expected, found });
        }
        let found = u16::decode(&mut reader)?;
        if found != Self::VERSION {
            let (kind, known) = (Self::KIND, Self::VERSION);
            return Err(BadState::Version { kind, found, known });
        }
        Self::from_bytes(reader.0)
    }
}

/// What is left of saved bytes.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the next `len` bytes.
    ///
    /// # Errors
    /// [`BadState::Short`] when there are fewer.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], BadState> {
        let (taken, left) = self.0.split_at_checked(len).ok_or(BadState::Short)?;
        self.0 = left;
        Ok(taken)
    }
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Encode for $number {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl Decode for $number {
            fn decode(from: &mut Reader<'_>) -> Result<Self, BadState> {
                let bytes = from.take(size_of::<Self>())?;
                let bytes = bytes.try_into().map_err(|_| BadState::Short)?;
                Ok(Self::from_le_bytes(bytes))
            }
        }
    )*};
}

number!(u8, u16, u32, u64, i64);

/// An array: its values, without a length.
impl<T: Encode, const N: usize> Encode for [T; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        for value in self {
            value.encode(out);
        }
    }
}

impl<T: Decode + Copy + Default, const N: usize> Decode for [T; N] {
    fn decode(from: &mut Reader<'_>) -> Result<Self, BadState> {
        let mut values = [T::default(); N];
        for value in &mut values {
            *value = T::decode(from)?;
        }
        Ok(values)
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Decode for bool {
    fn decode(from: &mut Reader<'_>) -> Result<Self, BadState> {
        match u8::decode(from)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(BadState::Value {
                what: "a flag",
                value: other.into(),
            }),
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(from: &mut Reader<'_>) -> Result<Self, BadState> {
        bool::decode(from)?.then(|| T::decode(from)).transpose()
    }
}

/// A list: its length, 32 bits, and its values.
impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        // A longer one reads as short, which its checksum's owner notices; nothing here comes near.
        u32::try_from(self.len()).unwrap_or(u32::MAX).encode(out);
        for value in self {
            value.encode(out);
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(from: &mut Reader<'_>) -> Result<Self, BadState> {
        let len = u32::decode(from)?;
        // Grows with what is really there: the length is only a claim.
        (0..len).map(|_| T::decode(from)).collect()
    }
}

impl Encode for String {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_bytes().to_vec().encode(out);
    }
}

impl Decode for String {
    fn decode(from: &mut Reader<'_>) -> Result<Self, BadState> {
        Self::from_utf8(Vec::decode(from)?).map_err(|error| BadState::Value {
            what: "a byte of a text",
            value: error
                .as_bytes()
                .get(error.utf8_error().valid_up_to())
                .copied()
                .map_or(0, u64::from),
        })
    }
}

impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
}

impl<A: Decode, B: Decode> Decode for (A, B) {
    fn decode(from: &mut Reader<'_>) -> Result<Self, BadState> {
        Ok((A::decode(from)?, B::decode(from)?))
    }
}

/// Makes a struct of saved state: its fields are encoded in their order. With `: "kind", version`
/// after its name it is a [`Section`](crate::state::Section) too.
#[macro_export]
macro_rules! state {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident: $section:literal, $version:literal { $($fields:tt)* }
    ) => {
        $crate::state! {
            $(#[$meta])*
            $visibility struct $name { $($fields)* }
        }

        impl $crate::state::Section for $name {
            const KIND: &'static str = $section;
            const VERSION: u16 = $version;
        }
    };
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $kind:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Eq, PartialEq)]
        $visibility struct $name {
            $($(#[$field_meta])* $field_visibility $field: $kind,)*
        }

        impl $crate::state::Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::state::Encode::encode(&self.$field, out);)*
            }
        }

        impl $crate::state::Decode for $name {
            fn decode(
                from: &mut $crate::state::Reader<'_>,
            ) -> Result<Self, $crate::state::BadState> {
                Ok(Self {
                    $($field: $crate::state::Decode::decode(from)?,)*
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    state! {
        /// One of each.
        struct Sample: "sample", 3 {
            small: u8,
            large: u64,
            flag: bool,
            maybe: Option<u16>,
            list: Vec<(u32, bool)>,
            text: String,
            tag: [u8; 3],
        }
    }

    fn sample() -> Sample {
        Sample {
            small: 7,
            large: 1 << 40,
            flag: true,
            maybe: Some(0x102),
            list: vec![(1, false), (2, true)],
            text: "disk".into(),
            tag: *b"abc",
        }
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let bytes = sample().to_bytes();
        let expected: &[u8] = &[
            7, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 2, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 1, 4, 0,
            0, 0, b'd', b'i', b's', b'k', b'a', b'b', b'c',
        ];
        assert_eq!(bytes, expected);
        assert_eq!(Sample::from_bytes(&bytes), Ok(sample()));
    }

    #[test]
    fn every_cut_and_every_longer_text_is_refused() {
        let bytes = sample().to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(
                Sample::from_bytes(&bytes[..len]),
                Err(BadState::Short),
                "{len}"
            );
        }
        let longer = [bytes, vec![0; 3]].concat();
        assert_eq!(Sample::from_bytes(&longer), Err(BadState::Long(3)));
    }

    #[test]
    fn another_kind_and_another_version_are_named() {
        let tagged = sample().to_tagged();
        assert_eq!(Sample::from_tagged(&tagged), Ok(sample()));
        let mut other = tagged.clone();
        other[4] = b'S';
        let text = Sample::from_tagged(&other).unwrap_err().to_string();
        assert_eq!(text, "it is the state of \"Sample\" and not of sample");
        let mut later = tagged;
        later[10] = 4;
        let text = Sample::from_tagged(&later).unwrap_err().to_string();
        assert_eq!(text, "sample has version 4, this program reads version 3");
    }

    #[test]
    fn missing_features_are_named() {
        let text = |bits| BadState::Features(bits).to_string();
        assert!(text(1 << 5).starts_with("the guest uses feature 5, which"));
        assert!(text(1 << 63 | 6).contains("features 1, 2, 63,"));
    }

    #[test]
    fn claims_that_cannot_be_are_refused_without_growing() {
        let huge = u32::MAX.to_le_bytes();
        assert_eq!(Vec::<u64>::from_bytes(&huge), Err(BadState::Short));
        let odd = |value| BadState::Value {
            what: "a flag",
            value,
        };
        assert_eq!(bool::from_bytes(&[2]), Err(odd(2)));
        assert_eq!(Option::<u8>::from_bytes(&[255, 1]), Err(odd(255)));
        let text = [2, 0, 0, 0, b'a', 0xff];
        let what = "a byte of a text";
        assert_eq!(
            String::from_bytes(&text),
            Err(BadState::Value { what, value: 0xff })
        );
    }
}
