//! Sizes in bytes, written as a number or as text such as `128M`.

use serde::{Deserialize, Serialize};

/// A size as it was written; [`SizeSpec::bytes`] reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum SizeSpec {
    /// A number of bytes.
    Bytes(u64),
    /// Text: digits and a unit (`K`, `M`, `G`, `T`, with or without `iB` or `B`; powers of 1024).
    Text(String),
}

/// A text that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No digits, or something else than a unit after them.
    #[error("not a whole number with a unit such as K, M or G")]
    Malformed,
    /// The size doesn't fit into 64 bits.
    #[error("larger than any machine's memory")]
    TooLarge,
}

impl SizeSpec {
    /// The number of bytes.
    ///
    /// # Errors
    /// When the text is no size, or one of 2^64 bytes and more.
    pub fn bytes(&self) -> Result<u64, SizeError> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::Text(text) => parse(text),
        }
    }
}

impl std::fmt::Display for SizeSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn parse(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Malformed);
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(SizeError::Malformed),
    };
    // Only digits are left, so parsing fails only where the number is too large.
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    number.checked_mul(1 << shift).ok_or(SizeError::TooLarge)
}
