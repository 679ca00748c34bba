//! The rows of `[types]`: how each field is read, and what is told of one that is wrong.
//!
//! Invariant: a row is taken whole or not at all. What fields must have to do with each other is
//! the type table's to say. To add a field, add its row to `FIELDS`. Used by `parse` only.

use super::error::ProblemKind;
use super::form::{nearest, read_bytes, read_flag, read_number};
use super::parse::{Value, Walk, did_you_mean};
use crate::limits;
use crate::types::{Kind, Overflow, TypeDef, TypeTable, WhenFull};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A field of a row in its long form.
struct Field {
    name: &'static str,
    /// What it takes, as the end of "it takes ...".
    takes: &'static str,
    /// The names that it takes, if it takes names.
    names: &'static [&'static str],
    /// Reads the value into the row; `None` if it is not one that the field takes.
    read: fn(&mut TypeDef, &DeValue<'_>) -> Option<()>,
}

const KIND: Field = Field {
    name: "kind",
    takes: "\"COUNTER\", \"COUNTER64\", \"INDEX\" or \"DATA\"",
    names: &["COUNTER", "COUNTER64", "INDEX", "DATA"],
    read: |row, value| {
        row.kind = Kind::from_name(value.as_str()?)?;
        Some(())
    },
};

const FIELDS: [Field; 11] = [
    KIND,
    Field {
        name: "target",
        takes: "the number of a COUNTER or COUNTER64 type as its target",
        names: &[],
        read: |row, value| {
            row.target = Some(number(value).and_then(|it| u16::try_from(it).ok())?);
            Some(())
        },
    },
    Field {
        name: "weighted",
        takes: "true or false as its weighted",
        names: &[],
        read: |row, value| {
            row.weighted = read_flag(value).ok()?;
            Some(())
        },
    },
    Field {
        name: "keep_in_memory",
        takes: "bytes from 0 to 64m, such as \"1k\", as its keep_in_memory",
        names: &[],
        read: |row, value| {
            row.keep_in_memory = Some(keep_in_memory(value)?);
            Some(())
        },
    },
    Field {
        name: "durable",
        takes: "true or false as its durable",
        names: &[],
        read: |row, value| {
            row.keep.durable = read_flag(value).ok()?;
            Some(())
        },
    },
    Field {
        name: "when_full",
        takes: "\"reject\" or \"evict\" as its when_full",
        names: WhenFull::NAMES,
        read: |row, value| {
            row.keep.when_full = value.as_str().and_then(WhenFull::from_name)?;
            Some(())
        },
    },
    Field {
        name: "initial",
        takes: "a whole number from 0 to 18446744073709551615 as its initial",
        names: &[],
        read: |row, value| {
            row.counter.initial = Some(number(value)?);
            Some(())
        },
    },
    Field {
        name: "min",
        takes: "a whole number from 0 to 18446744073709551615 as its min",
        names: &[],
        read: |row, value| {
            row.counter.min = Some(number(value)?);
            Some(())
        },
    },
    Field {
        name: "max",
        takes: "a whole number from 0 to 18446744073709551615 as its max",
        names: &[],
        read: |row, value| {
            row.counter.max = Some(number(value)?);
            Some(())
        },
    },
    Field {
        name: "overflow",
        takes: "\"wrap\", \"saturate\" or \"error\" as its overflow",
        names: &["wrap", "saturate", "error"],
        read: |row, value| {
            row.counter.overflow = Some(Overflow::from_name(value.as_str()?)?);
            Some(())
        },
    },
    Field {
        name: "ttl",
        takes: "seconds from 1 to 315360000 as its ttl",
        names: &[],
        read: |row, value| {
            let seconds = u32::try_from(number(value)?).ok()?;
            let fits = (1..=limits::COUNTER_TTL_MAX_S).contains(&seconds);
            row.counter.ttl_s = Some(fits.then_some(seconds)?);
            Some(())
        },
    },
];

impl Walk<'_> {
    /// Reads `[types]`. A row at fault is reported and left out, and so silently are those that
    /// name it as their target.
    pub(super) fn types(&mut self, table: &DeTable<'_>) {
        let mut rows: Vec<(TypeDef, Range<usize>)> = Vec::new();
        let mut faulty: Vec<u16> = Vec::new();
        for (name, value) in table {
            let prefix = match type_number(name.get_ref()) {
                Ok(prefix) => prefix,
                Err(kind) => {
                    self.report(name.span(), kind);
                    continue;
                }
            };
            match self.type_row(prefix, value) {
                Some(row) => rows.push((row, name.span())),
                None => faulty.push(prefix),
            }
        }
        loop {
            let error = match TypeTable::new(rows.iter().map(|(row, _)| *row)) {
                Ok(types) => {
                    // `[server]` says this, before or after `[types]`.
                    let named = self.config.types.named();
                    self.config.types = types.with_named(named);
                    return;
                }
                Err(error) => error,
            };
            let prefix = error.prefix();
            let Some(at) = rows.iter().position(|(row, _)| row.prefix == prefix) else {
                return self.report(0..0, error.into());
            };
            let (_, span) = rows.remove(at);
            let follows = error.target().is_some_and(|it| faulty.contains(&it));
            faulty.push(prefix);
            if !follows {
                self.report(span, error.into());
            }
        }
    }

    /// Reads `"KIND"` or `{ kind = "KIND", ... }`; `None` if a fault was reported.
    fn type_row(&mut self, prefix: u16, value: &Value<'_>) -> Option<TypeDef> {
        let mut row = TypeDef::new(prefix, Kind::Data);
        let Some(table) = value.get_ref().as_table() else {
            return self.field(&KIND, &mut row, value).then_some(row);
        };
        let mut whole = true;
        for (name, value) in table {
            let name_is = |field: &&Field| field.name == name.get_ref().as_ref();
            if let Some(field) = FIELDS.iter().find(name_is) {
                whole &= self.field(field, &mut row, value);
            } else {
                whole = false;
                let names = FIELDS.map(|field| field.name);
                let hint = did_you_mean(nearest(name.get_ref(), &names));
                let hint = hint.trim_end_matches(';').to_owned();
                let takes = format!("the fields {}", names.join(", "));
                self.bad_type(prefix, name.span(), &takes, hint);
            }
        }
        if whole && table.get(KIND.name).is_none() {
            whole = false;
            let takes = "a kind, such as { kind = \"INDEX\", target = 4 }";
            self.bad_type(prefix, value.span(), takes, String::new());
        }
        whole.then_some(row)
    }

    /// Reads one field; false if a fault was reported.
    fn field(&mut self, field: &Field, row: &mut TypeDef, value: &Value<'_>) -> bool {
        let read = (field.read)(row, value.get_ref());
        if read.is_none() {
            let name = value.get_ref().as_str();
            let hint = name.and_then(|name| nearest(name, field.names));
            let hint = hint.map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
            self.bad_type(row.prefix, value.span(), field.takes, hint);
        }
        read.is_some()
    }

    fn bad_type(&mut self, prefix: u16, span: Range<usize>, takes: &str, hint: String) {
        let kind = ProblemKind::TypeRow {
            prefix,
            found: self.found(span.clone()),
            takes: takes.to_owned(),
            hint,
        };
        self.report(span, kind);
    }
}

/// A type's number: decimal, without leading zeros, so that a type has one name only.
fn type_number(name: &str) -> Result<u16, ProblemKind> {
    name.parse()
        .ok()
        .filter(|prefix: &u16| *prefix > 0 && prefix.to_string() == name)
        .ok_or_else(|| ProblemKind::TypeNumber(name.to_owned()))
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    read_number(value).ok()
}

fn keep_in_memory(value: &DeValue<'_>) -> Option<u32> {
    let bytes = read_bytes(value).ok()?;
    let bytes = u32::try_from(bytes).ok()?;
    (bytes as usize <= limits::VALUE_BYTES_MAX).then_some(bytes)
}
