//! The forms that a value of `config.ini` can have: how each is read, checked, shown and
//! described.
//!
//! Invariant: [`Form::read`] changes the configuration only if the value is in range, and
//! [`Form::show`] gives TOML text that reads back to the same value. Used by `config` only; the
//! rows of `KEYS` say which form each key has.

use super::{Config, ListenAddr};
use std::fmt;
use toml::Spanned;
use toml::de::DeValue;

/// What a key takes, with the two functions that move its value into and out of a [`Config`].
pub enum Form {
    /// 0, 1, false or true.
    Flag {
        /// Stores the value.
        set: fn(&mut Config, bool),
        /// The stored value.
        get: fn(&Config) -> bool,
    },
    /// A whole number.
    Number {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// Stores the value.
        set: fn(&mut Config, u64),
        /// The stored value.
        get: fn(&Config) -> u64,
    },
    /// A number of bytes: a whole number, or text with a suffix.
    Bytes {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// Stores the value.
        set: fn(&mut Config, u64),
        /// The stored value.
        get: fn(&Config) -> u64,
    },
    /// One of a few names.
    Choice {
        /// The names.
        names: &'static [&'static str],
        /// Stores the value.
        set: fn(&mut Config, &str),
        /// The stored value.
        get: fn(&Config) -> &'static str,
    },
    /// A path of the file system.
    Path {
        /// An empty text is allowed; it turns the feature off.
        may_be_empty: bool,
        /// Stores the value.
        set: fn(&mut Config, &str),
        /// The stored value.
        get: fn(&Config) -> String,
    },
    /// Permission bits, as octal text.
    Mode {
        /// Stores the value.
        set: fn(&mut Config, u32),
        /// The stored value.
        get: fn(&Config) -> u32,
    },
    /// One address or a list of them.
    Listen,
}

/// Why a value does not fit its form: more than the form's description already says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The bytes of the file at fault, if it is not the whole value.
    pub(super) span: Option<std::ops::Range<usize>>,
    /// What would help, as the end of a sentence.
    pub(super) hint: Option<String>,
}

impl Misfit {
    fn hint(hint: impl fmt::Display) -> Self {
        Self {
            span: None,
            hint: Some(hint.to_string()),
        }
    }
}

/// The suffixes of a number of bytes, largest first.
const SUFFIXES: [(char, u32); 3] = [('g', 30), ('m', 20), ('k', 10)];

impl Form {
    /// Copies the value from one configuration to another.
    pub(super) fn copy(&self, from: &Config, to: &mut Config) {
        match self {
            Self::Flag { set, get } => set(to, get(from)),
            Self::Number { set, get, .. } | Self::Bytes { set, get, .. } => set(to, get(from)),
            Self::Choice { set, get, .. } => set(to, get(from)),
            Self::Path { set, get, .. } => set(to, &get(from)),
            Self::Mode { set, get } => set(to, get(from)),
            Self::Listen => to.listen.clone_from(&from.listen),
        }
    }

    /// Reads a value into the configuration.
    pub(super) fn read(
        &self,
        config: &mut Config,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), Misfit> {
        match self {
            Self::Flag { set, .. } => set(config, read_flag(value.get_ref())?),
            Self::Number { min, max, set, .. } => {
                let number = read_number(value.get_ref())?;
                set(config, in_range(number, *min, *max)?);
            }
            Self::Bytes { min, max, set, .. } => {
                let number = read_bytes(value.get_ref())?;
                set(config, in_range(number, *min, *max)?);
            }
            Self::Choice { names, set, .. } => {
                let name = value.get_ref().as_str().ok_or_else(Misfit::default)?;
                if !names.contains(&name) {
                    return Err(Misfit {
                        span: None,
                        hint: nearest(name, names).map(|name| format!("did you mean {name:?}?")),
                    });
                }
                set(config, name);
            }
            Self::Path {
                may_be_empty, set, ..
            } => {
                let path = value.get_ref().as_str().ok_or_else(Misfit::default)?;
                if path.contains('\0') || (path.is_empty() && !may_be_empty) {
                    return Err(Misfit::default());
                }
                set(config, path);
            }
            Self::Mode { set, .. } => set(config, read_mode(value.get_ref())?),
            Self::Listen => config.listen = read_listen(value)?,
        }
        Ok(())
    }

    /// The value in a configuration, as TOML.
    pub fn show(&self, config: &Config) -> String {
        match self {
            Self::Flag { get, .. } => get(config).to_string(),
            Self::Number { get, .. } => get(config).to_string(),
            Self::Bytes { get, .. } => show_bytes(get(config)),
            Self::Choice { get, .. } => quoted(get(config)),
            Self::Path { get, .. } => quoted(&get(config)),
            Self::Mode { get, .. } => format!("\"{:04o}\"", get(config)),
            Self::Listen => match config.listen.as_slice() {
                [one] => quoted(&one.to_string()),
                many => {
                    let many: Vec<_> = many.iter().map(|one| quoted(&one.to_string())).collect();
                    format!("[{}]", many.join(", "))
                }
            },
        }
    }
}

/// TOML text of a string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn show_bytes(bytes: u64) -> String {
    for (suffix, shift) in SUFFIXES {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("\"{}{suffix}\"", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Prints what the form takes, as the end of "takes ...".
impl fmt::Display for Form {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { .. } => out.write_str("true or false (or 1 or 0)"),
            Self::Number { min, max, .. } => write!(out, "a whole number from {min} to {max}"),
            Self::Bytes { min, max, .. } => {
                let max = show_bytes(*max);
                let max = max.trim_matches('"');
                write!(
                    out,
                    "bytes from {min} to {max}: a whole number, or \"512k\", \"8m\", \"2g\""
                )
            }
            Self::Choice { names, .. } => write_choice(out, names),
            Self::Path { may_be_empty, .. } => out.write_str(if *may_be_empty {
                "a path or \"\""
            } else {
                "a path"
            }),
            Self::Mode { .. } => out.write_str("octal permission bits such as \"0660\""),
            Self::Listen => out.write_str(
                "\"host:port\", \"[ipv6]:port\", \"tls:host:port\" or \"unix:/path\", or a list \
                     of them",
            ),
        }
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Form({self})")
    }
}

fn write_choice(out: &mut fmt::Formatter<'_>, names: &[&str]) -> fmt::Result {
    for (position, name) in names.iter().enumerate() {
        let separator = match position {
            0 => "",
            _ if position + 1 == names.len() => " or ",
            _ => ", ",
        };
        write!(out, "{separator}{name:?}")?;
    }
    Ok(())
}

/// 0, 1, false or true.
pub(super) fn read_flag(value: &DeValue<'_>) -> Result<bool, Misfit> {
    if let Some(flag) = value.as_bool() {
        return Ok(flag);
    }
    match read_number(value) {
        Ok(0) => Ok(false),
        Ok(1) => Ok(true),
        Ok(_) | Err(_) => Err(Misfit::default()),
    }
}

/// A whole number, in any of TOML's bases.
pub(super) fn read_number(value: &DeValue<'_>) -> Result<u64, Misfit> {
    let number = value.as_integer().ok_or_else(Misfit::default)?;
    u64::from_str_radix(number.as_str(), number.radix()).map_err(|_| Misfit::default())
}

/// A whole number, or text with a suffix.
pub(super) fn read_bytes(value: &DeValue<'_>) -> Result<u64, Misfit> {
    let Some(text) = value.as_str() else {
        return read_number(value);
    };
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = SUFFIXES
        .iter()
        .find_map(|(suffix, shift)| Some((lower.strip_suffix(*suffix)?, *shift)))
        .unwrap_or((&lower, 0));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Misfit::default());
    }
    let number: u64 = digits.parse().map_err(|_| Misfit::default())?;
    number.checked_mul(1 << shift).ok_or_else(Misfit::default)
}

fn in_range(number: u64, min: u64, max: u64) -> Result<u64, Misfit> {
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(Misfit::default())
    }
}

fn read_mode(value: &DeValue<'_>) -> Result<u32, Misfit> {
    let text = value
        .as_str()
        .ok_or_else(|| Misfit::hint("write it in quotes"))?;
    let octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && (3..=4).contains(&text.len()) && mode <= 0o777 => Ok(mode),
        Ok(_) | Err(_) => Err(Misfit::default()),
    }
}

fn read_listen(value: &Spanned<DeValue<'_>>) -> Result<Vec<ListenAddr>, Misfit> {
    let mut addresses = Vec::new();
    for item in listen_items(value) {
        let misfit = |hint: Option<String>| Misfit {
            span: Some(item.span()),
            hint,
        };
        let text = item.get_ref().as_str().ok_or_else(|| misfit(None))?;
        let address = ListenAddr::parse(text).map_err(|error| misfit(Some(error.to_string())))?;
        if addresses.contains(&address) {
            return Err(misfit(Some("the address is listed twice".to_owned())));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(Misfit::hint("the list is empty"));
    }
    Ok(addresses)
}

/// The addresses of a `listen` value: itself, or the items of a list.
pub(super) fn listen_items<'a, 'i>(
    value: &'a Spanned<DeValue<'i>>,
) -> Vec<&'a Spanned<DeValue<'i>>> {
    match value.get_ref().as_array() {
        Some(items) => items.iter().collect(),
        None => vec![value],
    }
}

/// The known name that `name` is most likely a slip of, if any is near.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_ascii_lowercase();
    known
        .iter()
        .map(|known| {
            let same = known.to_ascii_lowercase();
            (strsim::damerau_levenshtein(&lower, &same), *known)
        })
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
