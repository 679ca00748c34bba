//! The style of the house, kept by a test: who may import whom, that each file says what it is
//! for, and how long a line, a function and a file may be.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
/// Before the file's tests.
const FILE_LINES_MAX: usize = 500;

/// The layers: a module imports only modules of lower ranks, and its own folder. So modules of
/// one rank - `store`, `journal` and `protocol` above all - know nothing of each other.
const RANKS: &[(u32, &[&str])] = &[
    (0, &["limits"]),
    (1, &["codec", "clock", "stats", "pages", "prefetch", "exit"]),
    (2, &["holds", "waits"]),
    (10, &["key", "users"]),
    (11, &["types"]),
    (12, &["value", "config"]),
    (20, &["command"]),
    (30, &["store", "journal", "protocol"]),
    (40, &["engine"]),
    (50, &["server", "cli", "tools"]),
    (60, &["main", "lib"]),
];
/// The parts of the top layer: the command line reads files and names the tools, a HUP and a tool
/// read the configuration as the command line does, and a tool reads secrets as the server does.
const SAME_LAYER: [(&str, &str); 5] = [
    ("server", "cli"),
    ("cli", "server"),
    ("cli", "tools"),
    ("tools", "cli"),
    ("tools", "server"),
];

/// What only some files may use, each named by the start of its path below `src`.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("tokio", &["server/", "main.rs"]),
    ("signal_hook_tokio", &["server/", "main.rs"]),
    ("sd_notify", &["server/systemd.rs"]),
    (
        "std::fs",
        &["journal/disk.rs", "server/files.rs", "tools/files.rs"],
    ),
    ("std::net::TcpListener", &["server/"]),
    ("SystemTime", &["clock.rs"]),
];

/// A Rust file of this repository.
struct Source {
    /// Its path from the root of the repository, with `/` in between.
    path: String,
    text: String,
}

impl Source {
    /// The part before its tests; a file of nothing but tests has none.
    fn code(&self) -> &str {
        if !self.path.starts_with("src/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
        {
            return "";
        }
        let tests = ["\n#[cfg(test)]\nmod ", "\n#[cfg(all(test"];
        let inline = |at: &usize| {
            let declaration = self.text[*at..].lines().find(|line| line.contains("mod "));
            declaration.is_none_or(|line| line.ends_with('{'))
        };
        let cut = tests
            .iter()
            .flat_map(|start| self.text.match_indices(start).map(|(at, _)| at))
            .filter(inline)
            .min();
        &self.text[..cut.unwrap_or(self.text.len())]
    }

    /// The numbered lines of the code, without comments.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code().lines().enumerate();
        lines
            .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
            .filter(|(_, line)| !line.trim().is_empty())
    }

    /// The path below `src`.
    fn below_src(&self) -> &str {
        self.path.strip_prefix("src/").unwrap_or(&self.path)
    }

    /// The top module that the file belongs to.
    fn module(&self) -> &str {
        let first = self.below_src().split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "benches"].map(|it| root.join(it)).to_vec();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// Fails with all complaints at once.
fn hold(complaints: &[String]) {
    let mut all = String::new();
    for complaint in complaints {
        let _ = write!(all, "\n  {complaint}");
    }
    assert!(complaints.is_empty(), "{all}");
}

fn rank(module: &str) -> Option<u32> {
    RANKS
        .iter()
        .find(|(_, modules)| modules.contains(&module))
        .map(|(rank, _)| *rank)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The words that follow `start` where it begins a path, such as `key` in `crate::key`.
fn words_after<'a>(line: &'a str, start: &str) -> Vec<&'a str> {
    line.match_indices(start)
        .filter(|(at, _)| !line[..*at].ends_with(|it| is_word(it) || it == ':'))
        .map(|(at, _)| {
            let rest = &line[at + start.len()..];
            &rest[..rest.find(|it| !is_word(it)).unwrap_or(rest.len())]
        })
        .collect()
}

#[test]
fn modules_import_only_what_is_below_them() {
    let mut complaints = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.path.starts_with("src/"))
    {
        let module = source.module();
        let Some(own_rank) = rank(module) else {
            complaints.push(format!("{}: give `{module}` a rank in RANKS", source.path));
            continue;
        };
        // In a file at the top of a module, `super` is the crate.
        let depth = source.below_src().matches('/').count();
        let at_top = depth == 0 || (depth == 1 && source.path.ends_with("/mod.rs"));
        for (number, line) in source.code_lines() {
            let mut complain = |why: String| {
                complaints.push(format!("{}:{number}: {why}", source.path));
            };
            if own_rank < 60 && at_top && !words_after(line, "super::").is_empty() {
                complain("write crate:: instead of super::".to_owned());
            }
            for word in words_after(line, "crate::") {
                if word.is_empty() {
                    complain("one `use` for each module, so that layers are seen".to_owned());
                } else if word == module || SAME_LAYER.contains(&(module, word)) {
                } else if rank(word).is_some_and(|rank| rank >= own_rank) {
                    complain(format!("`{module}` may not import `{word}`"));
                }
            }
        }
    }
    hold(&complaints);
}

#[test]
fn what_touches_the_outside_stays_at_the_edge() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in source.code_lines() {
            for (name, places) in ONLY_IN {
                let allowed = places
                    .iter()
                    .any(|place| source.below_src().starts_with(place));
                let uses = line.match_indices(name).any(|(at, _)| {
                    let (before, after) = (&line[..at], &line[at + name.len()..]);
                    !before.ends_with(is_word) && !after.starts_with(is_word)
                });
                if uses && !allowed {
                    let place = places.join(" and ");
                    complaints.push(format!("{}:{number}: {name} only in {place}", source.path));
                }
            }
        }
    }
    hold(&complaints);
}

#[test]
fn each_file_says_first_what_it_is_for() {
    let opens = |source: &Source| source.text.starts_with("//! ");
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|source| !opens(source))
        .collect();
    hold(
        &silent
            .into_iter()
            .map(|source| source.path)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn lines_functions_and_files_are_short() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                complaints.push(format!("{}:{number}: {columns} columns", source.path));
            }
        }
        let lines = source.code().lines().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!("{}: {lines} lines before its tests", source.path));
        }
        for (number, name, lines) in functions(source.code()) {
            if lines > FUNCTION_LINES_MAX {
                complaints.push(format!(
                    "{}:{number}: {name} has {lines} lines",
                    source.path
                ));
            }
        }
    }
    hold(&complaints);
}

/// Line, name and length of each function. rustfmt puts the closing brace of a function below
/// the start of its first line, so no parser is needed.
fn functions(code: &str) -> Vec<(usize, &str, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let is_signature = line
            .trim_start()
            .split(' ')
            .take_while(|word| *word != "fn")
            .all(|word| {
                word.starts_with("pub") || matches!(word, "const" | "async" | "in" | "unsafe")
            });
        let name = words_after(line, "fn ")
            .first()
            .copied()
            .filter(|name| !name.is_empty());
        let (Some(name), true) = (name, is_signature) else {
            continue;
        };
        let is_end = |line: &&str| {
            let closes = line.trim_start().starts_with('}') || line.ends_with(';');
            closes && line.len() - line.trim_start().len() == indent
        };
        let one_line = line.ends_with('}') || line.ends_with(';');
        let rest = lines[at + 1..]
            .iter()
            .position(is_end)
            .map_or(0, |end| end + 1);
        found.push((at + 1, name, if one_line { 1 } else { rest + 1 }));
    }
    found
}

#[test]
fn functions_are_found_and_measured() {
    let code = [
        "fn a() {}",
        "impl X {",
        "    pub(super) const fn b(",
        "        x: u8,",
        "    ) -> u8 {",
        "        x",
        "    }",
        "}",
        "trait T {",
        "    fn c();",
        "}",
        "// fn d() {",
        "async fn e() {",
        "    if x {",
        "    }",
        "}",
    ];
    let expected = [(1, "a", 1), (3, "b", 5), (10, "c", 1), (13, "e", 4)];
    assert_eq!(functions(&code.join("\n")), expected);
}

#[test]
fn nothing_is_left_to_do_without_an_issue() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            for mark in marks {
                let orphan = line.match_indices(mark).any(|(at, _)| {
                    let (before, after) = (&line[..at], &line[at + mark.len()..]);
                    !before.ends_with(is_word)
                        && !after.starts_with(is_word)
                        && !after.starts_with("(#")
                });
                if orphan {
                    complaints.push(format!("{}:{number}: {mark} without (#issue)", source.path));
                }
            }
        }
    }
    hold(&complaints);
}
