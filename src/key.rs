//! Keys: typed `PREFIX.ID` or named; the only parser and printer of keys.
//!
//! Whether a prefix is declared is not known here: see [`crate::types::TypeTable`].

use std::fmt;

/// A key as the store and the journal know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// An entry of a declared type.
    Typed(TypedKey),
    /// Any other key: plain memcached.
    Named(&'a [u8]),
}

/// Entry `id` of the type `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypedKey {
    /// The type's number, 1..=65535.
    pub prefix: u16,
    /// The entry's number within the type.
    pub id: u32,
}

/// Why a key that looks typed is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The prefix is 0 or larger than 65535.
    #[error("type is not in 1..65535")]
    PrefixOutOfRange,
    /// The prefix has leading zeros.
    #[error("type has leading zeros")]
    PrefixLeadingZeros,
    /// The id is larger than 4294967295.
    #[error("id is larger than 4294967295")]
    IdTooLarge {
        /// The prefix, which is in order.
        prefix: u16,
    },
    /// The id has leading zeros.
    #[error("id has leading zeros")]
    IdLeadingZeros {
        /// The prefix, which is in order.
        prefix: u16,
    },
    /// The prefix is in order but not declared.
    #[error("unknown type {prefix}")]
    UnknownType {
        /// The undeclared prefix.
        prefix: u16,
    },
    /// Named keys are turned off in the configuration.
    #[error("named keys are off: a key must be TYPE.ID")]
    NamedKeysOff,
}

/// The class of named keys: the one after all types.
pub const NAMED_CLASS: u32 = 1 << 16;

impl Key<'_> {
    /// What stands for memcached's slab class in statistics and dumps: the type's number.
    pub fn class(self) -> u32 {
        match self {
            Self::Typed(key) => key.prefix.into(),
            Self::Named(_) => NAMED_CLASS,
        }
    }
}

impl<'a> Key<'a> {
    /// Reads a key: `^[0-9]+\.[0-9]+$` is typed, anything else is named.
    ///
    /// ```
    /// use storage_server::key::{Key, TypedKey};
    /// assert_eq!(Key::parse(b"2.17"), Ok(Key::Typed(TypedKey { prefix: 2, id: 17 })));
    /// assert_eq!(Key::parse(b"session:17"), Ok(Key::Named(b"session:17")));
    /// assert!(Key::parse(b"2.017").is_err());
    /// ```
    pub fn parse(bytes: &'a [u8]) -> Result<Self, KeyError> {
        match split_typed(bytes) {
            None => Ok(Self::Named(bytes)),
            Some((prefix, id)) => {
                let prefix = parse_prefix(prefix)?;
                Ok(Self::Typed(TypedKey {
                    prefix,
                    id: parse_id(prefix, id)?,
                }))
            }
        }
    }
}

/// The two digit strings of a typed-looking key.
fn split_typed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // Most named keys are told apart by their first byte.
    if !bytes.first()?.is_ascii_digit() {
        return None;
    }
    let dot = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let (prefix, rest) = bytes.split_at_checked(dot)?;
    let id = rest.strip_prefix(b".")?;
    (!id.is_empty() && id.iter().all(u8::is_ascii_digit)).then_some((prefix, id))
}

fn parse_prefix(digits: &[u8]) -> Result<u16, KeyError> {
    if has_leading_zeros(digits) {
        return Err(KeyError::PrefixLeadingZeros);
    }
    decimal(digits)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|prefix| *prefix > 0)
        .ok_or(KeyError::PrefixOutOfRange)
}

fn parse_id(prefix: u16, digits: &[u8]) -> Result<u32, KeyError> {
    if has_leading_zeros(digits) {
        return Err(KeyError::IdLeadingZeros { prefix });
    }
    decimal(digits)
        .and_then(|number| u32::try_from(number).ok())
        .ok_or(KeyError::IdTooLarge { prefix })
}

fn has_leading_zeros(digits: &[u8]) -> bool {
    digits.len() > 1 && digits.first() == Some(&b'0')
}

/// Reads ASCII digits and nothing else as an unsigned number; `None` if it does not fit or is
/// not one. The one reader of decimal numbers: lines, keys, counters and members all use it.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

impl fmt::Display for TypedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.prefix, self.id)
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Typed(key) => key.fmt(f),
            Self::Named(bytes) => bytes.escape_ascii().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_keys_are_decimal_without_leading_zeros() {
        let typed = |prefix, id| Ok(Key::Typed(TypedKey { prefix, id }));
        assert_eq!(Key::parse(b"1.0"), typed(1, 0));
        assert_eq!(Key::parse(b"65535.4294967295"), typed(65535, u32::MAX));
        assert_eq!(Key::parse(b"65536.1"), Err(KeyError::PrefixOutOfRange));
        assert_eq!(
            Key::parse(b"99999999999999999999999.1"),
            Err(KeyError::PrefixOutOfRange)
        );
        assert_eq!(Key::parse(b"0.1"), Err(KeyError::PrefixOutOfRange));
        assert_eq!(Key::parse(b"00.1"), Err(KeyError::PrefixLeadingZeros));
        assert_eq!(Key::parse(b"02.1"), Err(KeyError::PrefixLeadingZeros));
        assert_eq!(
            Key::parse(b"2.01"),
            Err(KeyError::IdLeadingZeros { prefix: 2 })
        );
        assert_eq!(
            Key::parse(b"2.4294967296"),
            Err(KeyError::IdTooLarge { prefix: 2 })
        );
    }

    #[test]
    fn everything_else_is_named() {
        for name in [
            "a", "2", "2.", ".2", "2.1.1", "-2.1", "2.1a", "2,1", "+1.1", "2..1",
        ] {
            assert_eq!(
                Key::parse(name.as_bytes()),
                Ok(Key::Named(name.as_bytes())),
                "{name}"
            );
        }
    }

    #[test]
    fn a_key_prints_as_it_was_written() {
        for text in ["2.17", "65535.4294967295", "a.b"] {
            assert_eq!(Key::parse(text.as_bytes()).unwrap().to_string(), text);
        }
    }
}
