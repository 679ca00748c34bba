//! The walk over a parsed file: each section, each key, each type, and what must hold between
//! them.
//!
//! Invariant: every fault is reported, not only the first, and each with its place; a fault on a
//! line that is not TOML is left to the syntax error of that line. Used by `Config::parse` only.

use super::error::{ConfigError, Problem, ProblemKind};
use super::form::{listen_items, nearest};
use super::keys::{KEYS, KeyRow, SECTIONS};
use super::{Config, ListenAddr};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value is quoted in an error up to this many characters.
const FOUND_CHARS_MAX: usize = 60;

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

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
    walk.check_addresses(document.get_ref());
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
pub(super) struct Walk<'a> {
    file: &'a str,
    text: &'a str,
    pub(super) config: Config,
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

    /// An address that other machines reach needs clients that say who they are, or the
    /// operator's consent; one that speaks TLS needs a certificate.
    fn check_addresses(&mut self, document: &DeTable<'_>) {
        let listen = document
            .get("server")
            .and_then(|server| server.get_ref().as_table()?.get("listen"));
        for item in listen.into_iter().flat_map(listen_items) {
            let Some(Ok(at)) = item.get_ref().as_str().map(ListenAddr::parse) else {
                continue;
            };
            let config = &self.config;
            let has_login = config.users.is_some();
            let asks_certificate = at.is_tls() && config.tls_client_ca.is_some();
            let is_meant = at.is_local() || has_login || asks_certificate || config.allow_public;
            let has_certificate = config.tls_cert.is_some() && config.tls_key.is_some();
            let address = at.to_string();
            if at.is_tls() && !has_certificate {
                self.report(item.span(), ProblemKind::NoCertificate { address });
            } else if !is_meant {
                self.report(item.span(), ProblemKind::Public { address });
            }
        }
    }

    /// The text of a value, cut to a length that fits an error.
    pub(super) fn found(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let mut found: String = line.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < text.len() {
            found.push_str("...");
        }
        found
    }

    pub(super) fn report(&mut self, span: Range<usize>, kind: ProblemKind) {
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

/// The middle of "unknown ... known ...".
pub(super) fn did_you_mean(name: Option<&str>) -> String {
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
