//! What is wrong with a configuration: every problem, each with its place in the file.
//!
//! Invariant: a [`ConfigError`] holds at least one [`Problem`], in the order of the file. It is
//! the operator's to mend: at a start it ends the process with exit code 78, at a HUP the running
//! configuration stays. Made by `config` only; `{}` prints a line a problem, `{:#}` adds the
//! line of the file with carets under the fault.

use crate::types::TypeError;
use std::fmt;

/// All that is wrong with one configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems, in the order of the file.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as the caller gave it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters of the line are at fault.
    pub width: usize,
    /// The text of the line.
    pub source_line: String,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// Not TOML, or a name twice.
    #[error("{0}")]
    Syntax(String),
    /// A section that does not exist.
    #[error("unknown section [{name}]{hint} known sections: {known}")]
    UnknownSection {
        /// The section.
        name: String,
        /// `: did you mean ...?` or a separator.
        hint: String,
        /// All sections.
        known: String,
    },
    /// A key before the first section.
    #[error("key \"{name}\" is in no section{hint}")]
    NoSection {
        /// The key.
        name: String,
        /// `: it goes in ...` or nothing.
        hint: String,
    },
    /// A section's name with a value, as if it were a key.
    #[error("\"{name}\" is a section: write [{name}] on a line of its own")]
    NotATable {
        /// The section.
        name: String,
    },
    /// A key that its section does not have.
    #[error("unknown key \"{name}\" in [{section}]{hint} known keys: {known}")]
    UnknownKey {
        /// The section.
        section: &'static str,
        /// The key.
        name: String,
        /// `: did you mean ...?` or a separator.
        hint: String,
        /// All keys of the section.
        known: String,
    },
    /// A value of the wrong type, out of range or not among the choices.
    #[error("{key} = {found} is not possible: it takes {takes}{hint}")]
    BadValue {
        /// The key with its section.
        key: &'static str,
        /// The value, as written.
        found: String,
        /// What the key takes.
        takes: String,
        /// `; ...` or nothing.
        hint: String,
    },
    /// An address that other machines reach, where clients need not say who they are.
    #[error(
        "{address} can be reached from other machines and everybody would be served: listen on \
         127.0.0.1 or a unix socket, or set users in [access], or set allow_public = true in \
         [server] if a firewall guards it"
    )]
    Public {
        /// The address.
        address: String,
    },
    /// A TLS address without a certificate or its key.
    #[error("{address} speaks TLS: set cert and key in [tls]")]
    NoCertificate {
        /// The address.
        address: String,
    },
    /// A type's number that is none.
    #[error("type number \"{0}\" is not possible: it must be 3..65535, without leading zeros")]
    TypeNumber(String),
    /// A row of `[types]` that does not say what the type holds.
    #[error("type {prefix}: {found} is not possible: it takes {takes}{hint}")]
    TypeRow {
        /// The type's number.
        prefix: u16,
        /// The value, as written.
        found: String,
        /// What the row or its field takes.
        takes: String,
        /// `; ...` or nothing.
        hint: String,
    },
    /// Rows that make no type table.
    #[error(transparent)]
    Types(#[from] TypeError),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line, column) = (&self.file, self.line, self.column);
        write!(out, "{file}:{line}:{column}: {}", self.kind)?;
        if out.alternate() && !self.source_line.is_empty() {
            // Tabs are kept, so that the carets stand under the fault in any terminal.
            let before: String = self
                .source_line
                .chars()
                .take(self.column - 1)
                .map(|it| if it == '\t' { '\t' } else { ' ' })
                .collect();
            let carets = "^".repeat(self.width.max(1));
            write!(out, "\n    {}\n    {before}{carets}", self.source_line)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                out.write_str("\n")?;
            }
            fmt::Display::fmt(problem, out)?;
        }
        Ok(())
    }
}
