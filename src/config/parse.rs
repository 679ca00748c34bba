//! The walk over a parsed file: each section, each key, each type, and what must hold between
//! them.
//!
//! Invariant: every fault is reported, not only the first, and each with its place; a fault on a
//! line that is not TOML is left to the syntax error of that line. Used by `Config::parse` only.

use super::error::{ConfigError, Problem, ProblemKind};
use super::form::{listen_items, nearest, read_bytes, read_flag, read_number};
use super::keys::{KEYS, KeyRow, SECTIONS};
use super::{Config, ListenAddr};
use crate::limits;
use crate::types::{Kind, TypeDef, TypeError, TypeTable, WhenFull};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value is quoted in an error up to this many characters.
const FOUND_CHARS_MAX: usize = 60;
/// A field of a row of `[types]` in its long form, beside `kind`.
struct TypeField {
    name: &'static str,
    /// What it takes, as the end of a sentence.
    takes: &'static str,
    /// Reads the value into the row; `None` if it does not fit.
    read: fn(&DeValue<'_>, &mut TypeDef) -> Option<()>,
}

const TYPE_FIELDS: [TypeField; 4] = [
    TypeField {
        name: "target",
        takes: "the number of a COUNTER or COUNTER64 type as its target",
        read: |value, row| {
            let target = read_number(value).ok()?;
            row.target = Some(u16::try_from(target).ok()?);
            Some(())
        },
    },
    TypeField {
        name: "keep_in_memory",
        takes: "bytes from 0 to 64m, such as \"1k\", as its keep_in_memory",
        read: |value, row| {
            row.keep_in_memory = Some(keep_in_memory(value)?);
            Some(())
        },
    },
    TypeField {
        name: "durable",
        takes: "true or false as its durable",
        read: |value, row| {
            row.keep.durable = read_flag(value).ok()?;
            Some(())
        },
    },
    TypeField {
        name: "when_full",
        takes: "\"reject\" or \"evict\" as its when_full",
        read: |value, row| {
            row.keep.when_full = value.as_str().and_then(WhenFull::from_name)?;
            Some(())
        },
    },
];

type Value<'i> = Spanned<DeValue<'i>>;

pub(super) fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut walk = Walk {
        file,
        text,
        config: Config::default(),
        problems: Vec::new(),
    };
    for error in syntax {
        let span = error.span().unwrap_or(0..0);
        walk.report(span, ProblemKind::Syntax(error.message().to_owned()));
    }
    // Of several faults of a line the later ones follow from the first.
    walk.problems.dedup_by_key(|problem| problem.line);
    for problem in &mut walk.problems {
        if let ProblemKind::Syntax(message) = &mut problem.kind {
            message.push_str(&habit_of_ini(&problem.source_line).unwrap_or_default());
        }
    }
    let broken: Vec<usize> = walk.problems.iter().map(|problem| problem.line).collect();
    for (name, value) in document.get_ref() {
        walk.section(name.get_ref(), name.span(), value);
    }
    walk.check_public(document.get_ref());
    let mut problems = walk.problems;
    let mut position = 0;
    problems.retain(|problem| {
        position += 1;
        position <= broken.len() || !broken.contains(&problem.line)
    });
    if problems.is_empty() {
        return Ok(walk.config);
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    Err(ConfigError { problems })
}

/// What the walk has gathered.
struct Walk<'a> {
    file: &'a str,
    text: &'a str,
    config: Config,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn section(&mut self, name: &str, span: Range<usize>, value: &Value<'_>) {
        let Some(section) = SECTIONS.into_iter().find(|section| *section == name) else {
            let kind = if value.get_ref().is_table() {
                ProblemKind::UnknownSection {
                    name: name.to_owned(),
                    hint: did_you_mean(nearest(name, &SECTIONS)),
                    known: SECTIONS.join(", "),
                }
            } else {
                let row = KEYS.iter().find(|row| row.name() == name);
                ProblemKind::NoSection {
                    name: name.to_owned(),
                    hint: row.map_or_else(String::new, |row| {
                        format!(": it goes below the line [{}]", row.section())
                    }),
                }
            };
            return self.report(span, kind);
        };
        let Some(table) = value.get_ref().as_table() else {
            let name = name.to_owned();
            return self.report(span, ProblemKind::NotATable { name });
        };
        if section == "types" {
            return self.types(table);
        }
        for (name, value) in table {
            let row = KEYS
                .iter()
                .find(|row| row.section() == section && row.name() == name.get_ref().as_ref());
            match row {
                Some(row) => self.key(row, value),
                None => self.unknown_key(section, name.get_ref(), name.span()),
            }
        }
    }

    fn key(&mut self, row: &KeyRow, value: &Value<'_>) {
        if let Err(misfit) = row.form.read(&mut self.config, value) {
            let span = misfit.span.unwrap_or_else(|| value.span());
            let kind = ProblemKind::BadValue {
                key: row.key,
                found: self.found(span.clone()),
                takes: row.form.to_string(),
                hint: misfit
                    .hint
                    .map_or_else(String::new, |hint| format!("; {hint}")),
            };
            self.report(span, kind);
        }
    }

    fn unknown_key(&mut self, section: &'static str, name: &str, span: Range<usize>) {
        let known: Vec<&str> = KEYS
            .iter()
            .filter(|row| row.section() == section)
            .map(KeyRow::name)
            .collect();
        let elsewhere = KEYS.iter().find(|row| row.name() == name);
        let kind = ProblemKind::UnknownKey {
            section,
            name: name.to_owned(),
            hint: match elsewhere {
                Some(row) => format!(": it goes in [{}];", row.section()),
                None => did_you_mean(nearest(name, &known)),
            },
            known: known.join(", "),
        };
        self.report(span, kind);
    }

    /// An address that other machines reach needs the operator's consent.
    fn check_public(&mut self, document: &DeTable<'_>) {
        let listen = document
            .get("server")
            .and_then(|server| server.get_ref().as_table()?.get("listen"));
        let Some(listen) = listen.filter(|_| !self.config.allow_public) else {
            return;
        };
        for item in listen_items(listen) {
            let address = item.get_ref().as_str().map(ListenAddr::parse);
            if let Some(Ok(address)) = address
                && !address.is_local()
            {
                let address = address.to_string();
                self.report(item.span(), ProblemKind::Public { address });
            }
        }
    }

    /// Reads `[types]`. A row at fault is reported and left out, and so silently are those that
    /// name it as their target.
    fn types(&mut self, table: &DeTable<'_>) {
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
            let (prefix, follows) = match error {
                TypeError::PrefixOutOfRange => (0, false),
                TypeError::BuiltIn(prefix)
                | TypeError::Duplicate(prefix)
                | TypeError::TargetWithoutIndex(prefix)
                | TypeError::KeepWithoutData(prefix)
                | TypeError::KeepWithoutFiles(prefix) => (prefix, false),
                TypeError::TargetNotCounter { prefix, target }
                | TypeError::TargetDurable { prefix, target } => (prefix, faulty.contains(&target)),
            };
            let Some(at) = rows.iter().position(|(row, _)| row.prefix == prefix) else {
                return self.report(0..0, error.into());
            };
            let (_, span) = rows.remove(at);
            faulty.push(prefix);
            if !follows {
                self.report(span, error.into());
            }
        }
    }

    /// Reads `"KIND"` or `{ kind = "KIND", ... }`; `None` if a fault was reported.
    fn type_row(&mut self, prefix: u16, value: &Value<'_>) -> Option<TypeDef> {
        let Some(table) = value.get_ref().as_table() else {
            let kind = self.type_kind(prefix, value)?;
            return Some(TypeDef::new(prefix, kind));
        };
        let mut row = TypeDef::new(prefix, Kind::Data);
        let mut whole = true;
        for (name, field) in table {
            let name_text = name.get_ref().as_ref();
            if name_text == "kind" {
                match self.type_kind(prefix, field) {
                    Some(kind) => row.kind = kind,
                    None => whole = false,
                }
                continue;
            }
            let known = TYPE_FIELDS.iter().find(|known| known.name == name_text);
            let Some(known) = known else {
                whole = false;
                self.unknown_field(prefix, name_text, name.span());
                continue;
            };
            if (known.read)(field.get_ref(), &mut row).is_none() {
                whole = false;
                self.bad_type(prefix, field.span(), known.takes, String::new());
            }
        }
        if whole && table.get("kind").is_none() {
            whole = false;
            let takes = "a kind, such as { kind = \"INDEX\", target = 4 }";
            self.bad_type(prefix, value.span(), takes, String::new());
        }
        whole.then_some(row)
    }

    fn unknown_field(&mut self, prefix: u16, name: &str, span: Range<usize>) {
        let mut known = vec!["kind"];
        known.extend(TYPE_FIELDS.iter().map(|field| field.name));
        let hint = did_you_mean(nearest(name, &known));
        let hint = hint.trim_end_matches(';').to_owned();
        let takes = format!("the fields {}", known.join(", "));
        self.bad_type(prefix, span, &takes, hint);
    }

    fn type_kind(&mut self, prefix: u16, value: &Value<'_>) -> Option<Kind> {
        let name = value.get_ref().as_str();
        let kind = name.and_then(Kind::from_name);
        if kind.is_none() {
            let names = Kind::ALL.map(Kind::name);
            let hint = name.and_then(|name| nearest(name, &names));
            let hint = hint.map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
            let takes = "\"COUNTER\", \"COUNTER64\", \"INDEX\" or \"DATA\"";
            self.bad_type(prefix, value.span(), takes, hint);
        }
        kind
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

    /// The text of a value, cut to a length that fits an error.
    fn found(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let mut found: String = line.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < text.len() {
            found.push_str("...");
        }
        found
    }

    fn report(&mut self, span: Range<usize>, kind: ProblemKind) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = self.text.get(line_start..).unwrap_or_default();
        let source_line = rest.lines().next().unwrap_or_default().to_owned();
        let fault = self.text.get(span).unwrap_or_default();
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            width: fault.lines().next().unwrap_or_default().chars().count(),
            source_line,
            kind,
        });
    }
}

/// A type's number: decimal, without leading zeros, so that a type has one name only.
fn type_number(name: &str) -> Result<u16, ProblemKind> {
    name.parse()
        .ok()
        .filter(|prefix: &u16| *prefix > 0 && prefix.to_string() == name)
        .ok_or_else(|| ProblemKind::TypeNumber(name.to_owned()))
}

fn keep_in_memory(value: &DeValue<'_>) -> Option<u32> {
    let bytes = read_bytes(value).ok()?;
    let bytes = u32::try_from(bytes).ok()?;
    (bytes as usize <= limits::VALUE_BYTES_MAX).then_some(bytes)
}

/// The middle of "unknown ... known ...".
fn did_you_mean(name: Option<&str>) -> String {
    name.map_or_else(
        || ";".to_owned(),
        |name| format!(": did you mean \"{name}\"?"),
    )
}

/// What helps somebody who writes this line of TOML as in other files of that name.
fn habit_of_ini(line: &str) -> Option<String> {
    if line.trim_start().starts_with(';') {
        return Some("; a comment starts with #".to_owned());
    }
    let (name, value) = line.split_once('=')?;
    let value = value.split('#').next().unwrap_or_default().trim();
    let is_bare = value
        .chars()
        .all(|it| it.is_alphanumeric() || "/_-.:*+~ ".contains(it));
    let name = name.trim();
    let is_toml = value.parse::<i64>().is_ok() || matches!(value, "true" | "false");
    (is_bare && !is_toml && !value.is_empty())
        .then(|| format!("; text goes in quotes: {name} = \"{value}\""))
}
