//! Values that are written as words: one error type and one macro, so that the command line and
//! JSON accept the same words and refuse the rest with the same sentence.

/// A word that none of the accepted ones is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} \"{value}\" is not one of {accepted}")]
pub struct TextError {
    /// The field of [`super::MachineSpec`] that the word was for.
    pub field: &'static str,
    /// The word given.
    pub value: String,
    /// The accepted words, separated by commas.
    pub accepted: &'static str,
}

/// Gives an enum its words: `FromStr`, `Display` and `as_str`. Serde's names are derived beside
/// it (`rename_all`); a test holds the two together.
macro_rules! words {
    ($type:ty, $field:literal, $accepted:literal, {
        $($word:literal => $variant:path),+ $(,)?
    }) => {
        impl $type {
            /// The word for this value, as the command line and JSON write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($variant => $word),+ }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::spec::TextError;

            fn from_str(value: &str) -> Result<Self, Self::Err> {
                match value {
                    $($word => Ok($variant),)+
                    _ => Err($crate::spec::TextError {
                        field: $field,
                        value: value.to_owned(),
                        accepted: $accepted,
                    }),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

/// Lets serde read and write a type in the form of its `FromStr` and `Display`, by
/// `#[serde(try_from = "String", into = "String")]`.
macro_rules! written_as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = $crate::spec::TextError;

            fn try_from(value: String) -> Result<Self, Self::Error> {
                value.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
pub(crate) use written_as_text;
