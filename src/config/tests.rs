//! Tests of the configuration: the table against the code, and each kind of error against its
//! exact text.

use super::*;
use crate::types::{CounterOptions, Counting, Kind, Overflow, TypeDef};

fn config(text: &str) -> Config {
    Config::parse(text, "config.ini").unwrap_or_else(|error| panic!("{error}"))
}

/// The errors of a file, a line each, without the file's name.
fn errors(text: &str) -> Vec<String> {
    let error = Config::parse(text, "c").expect_err(text);
    error
        .to_string()
        .lines()
        .map(|line| line[2..].to_owned())
        .collect()
}

#[test]
fn keys_are_unique_and_name_their_section() {
    for (position, row) in KEYS.iter().enumerate() {
        assert!(keys::SECTIONS.contains(&row.section()), "{}", row.key);
        assert!(!row.name().is_empty() && !row.doc.is_empty(), "{}", row.key);
        assert!(row.doc.iter().all(|line| line.len() <= 96), "{}", row.key);
        assert!(
            KEYS[..position].iter().all(|other| other.key != row.key),
            "{}",
            row.key
        );
    }
}

#[test]
fn each_default_text_is_the_default_value() {
    for row in KEYS {
        let parsed = config(&format!(
            "[{}]\n{} = {}",
            row.section(),
            row.name(),
            row.default
        ));
        assert_eq!(parsed, Config::default(), "{}", row.key);
        assert_eq!(row.form.show(&parsed), row.default, "{}", row.key);
    }
    assert_eq!(config(""), Config::default());
    assert_eq!(config(&render_example()), Config::default());
}

#[test]
fn every_choice_and_both_ends_of_every_range_read_back() {
    for row in KEYS {
        let texts: Vec<String> = match &row.form {
            Form::Flag { .. } => ["true", "false"].map(String::from).to_vec(),
            Form::Number { min, max, .. } | Form::Bytes { min, max, .. } => {
                vec![min.to_string(), max.to_string()]
            }
            Form::Choice { names, .. } => names.iter().map(|name| format!("{name:?}")).collect(),
            Form::Path { .. } => vec!["\"/a b/\\\"c\\\"\"".to_owned()],
            Form::Mode { .. } => vec!["\"0000\"".to_owned(), "\"0777\"".to_owned()],
            Form::Listen => vec!["[\"[::1]:1\", \"unix:/x\"]".to_owned()],
        };
        for text in texts {
            let line = |value: &str| format!("{} = {value}", row.key);
            let first = config(&line(&text));
            let again = config(&line(&row.form.show(&first)));
            assert_eq!(first, again, "{} = {text}", row.key);
        }
        let (low, high) = match &row.form {
            Form::Number { min, max, .. } | Form::Bytes { min, max, .. } => (*min, *max),
            _ => continue,
        };
        assert_eq!(errors(&format!("{} = {}", row.key, high + 1)).len(), 1);
        let below = i64::try_from(low).unwrap() - 1;
        assert_eq!(errors(&format!("{} = {below}", row.key)).len(), 1);
    }
}

#[test]
fn values_in_all_their_spellings() {
    let parsed = config(
        "[server]\nlisten = [\"localhost:1\", \"unix:/s\"]\ndaemon = 1\nmax_value = \"8M\"\n\
         memory_limit = 0x1000\nidle_timeout = 1_000\nunix_mode = \"660\"\nthreads = 2\n\
         named_keys = \"reject\"\nunknown_prefix = \"named\"\nterm_from = \"any\"\n\
         [data]\nfsync = \"always\"\n[log]\nlevel = \"trace\"\nfile = \"/l\"\n",
    );
    assert_eq!(parsed.listen.len(), 2);
    assert!(parsed.daemon);
    assert_eq!(parsed.max_value, 8 << 20);
    assert_eq!(parsed.memory_limit, Some(4096));
    assert_eq!(parsed.idle_timeout, Some(Duration::from_secs(1000)));
    assert_eq!(parsed.unix_mode, 0o660);
    assert_eq!(parsed.threads, Some(2));
    assert_eq!(
        parsed.key_rules,
        KeyRules {
            named_keys: false,
            unknown_prefix_is_named: true
        }
    );
    assert_eq!(parsed.term_from, TermFrom::Any);
    assert_eq!(parsed.fsync, Fsync::Always);
    assert_eq!(parsed.log_level, LogLevel::Trace);
    assert_eq!(parsed.log_file, Some(PathBuf::from("/l")));
}

#[test]
fn errors_name_the_place_the_key_and_the_remedy() {
    for (text, error) in [
        (
            "[data]\nfysnc = \"always\"",
            "2:1: unknown key \"fysnc\" in [data]: did you mean \"fsync\"? \
             known keys: dir, fsync, cache_memory, compact_min, compact_ratio, snapshot_rate",
        ),
        (
            "[data]\nlevel = \"info\"",
            "2:1: unknown key \"level\" in [data]: it goes in [log]; \
             known keys: dir, fsync, cache_memory, compact_min, compact_ratio, snapshot_rate",
        ),
        (
            "[sever]\n",
            "1:2: unknown section [sever]: did you mean \"server\"? \
             known sections: server, access, tls, log, data, types",
        ),
        (
            "[http]\n",
            "1:2: unknown section [http]; known sections: server, access, tls, log, data, types",
        ),
        (
            "fsync = \"never\"",
            "1:1: key \"fsync\" is in no section: it goes below the line [data]",
        ),
        ("x = 1", "1:1: key \"x\" is in no section"),
        (
            "log = 1",
            "1:1: \"log\" is a section: write [log] on a line of its own",
        ),
        (
            "[data]\n  fsync = \"somtimes\"",
            "2:11: data.fsync = \"somtimes\" is not possible: \
             it takes \"always\", \"everysec\" or \"never\"",
        ),
        (
            "[data]\nfsync = \"Always\"",
            "2:9: data.fsync = \"Always\" is not possible: \
             it takes \"always\", \"everysec\" or \"never\"; did you mean \"always\"?",
        ),
        (
            "[server]\nmax_clients = 0",
            "2:15: server.max_clients = 0 is not possible: \
             it takes a whole number from 1 to 1048576",
        ),
        (
            "[server]\ndaemon = 2",
            "2:10: server.daemon = 2 is not possible: it takes true or false (or 1 or 0)",
        ),
        (
            "[server]\nmax_value = \"1t\"",
            "2:13: server.max_value = \"1t\" is not possible: it takes bytes from 1 to 64m: \
             a whole number, or \"512k\", \"8m\", \"2g\"",
        ),
        (
            "[data]\ndir = \"\"",
            "2:7: data.dir = \"\" is not possible: it takes a path",
        ),
        (
            "[server]\nunix_mode = 600",
            "2:13: server.unix_mode = 600 is not possible: \
             it takes octal permission bits such as \"0660\"; write it in quotes",
        ),
        (
            "[server]\nlisten = [\"a:1\", \"::1:2\"]\nallow_public = 1",
            "2:18: server.listen = \"::1:2\" is not possible: it takes \"host:port\", \
             \"[ipv6]:port\", \"tls:host:port\" or \"unix:/path\", or a list of them; \
             an IPv6 address goes in brackets",
        ),
        (
            "[server]\nlisten = [\"127.0.0.1:1\", \"0.0.0.0:1\"]",
            "2:26: 0.0.0.0:1 can be reached from other machines and everybody would be served: \
             listen on 127.0.0.1 or a unix socket, or set users in [access], \
             or set allow_public = true in [server] if a firewall guards it",
        ),
        (
            "[server]\nlisten = \"tls:[::1]:1\"\n[tls]\ncert = \"c\"",
            "2:10: tls:[::1]:1 speaks TLS: set cert and key in [tls]",
        ),
    ] {
        assert_eq!(errors(text), [error], "{text}");
    }
}

#[test]
fn lists_of_addresses_are_neither_empty_nor_repetitive() {
    let [error] = &errors("[server]\nlisten = []")[..] else {
        panic!()
    };
    assert!(error.ends_with("; the list is empty"), "{error}");
    let [error] = &errors("[server]\nlisten = [\"[::1]:1\", \"[::1]:1\"]")[..] else {
        panic!()
    };
    assert!(
        error.starts_with("2:22: ") && error.ends_with("listed twice"),
        "{error}"
    );
}

#[test]
fn a_public_address_needs_clients_that_say_who_they_are_or_consent() {
    const TLS: &str = "\n[tls]\ncert = \"c\"\nkey = \"k\"";
    for (listen, rest, served) in [
        ("0.0.0.0:1", "", false),
        ("0.0.0.0:1", "allow_public = true", true),
        ("0.0.0.0:1", "[access]\nusers = \"u\"", true),
        ("0.0.0.0:1", &format!("{TLS}\nclient_ca = \"a\""), false),
        ("tls:0.0.0.0:1", TLS, false),
        ("tls:0.0.0.0:1", &format!("{TLS}\nclient_ca = \"a\""), true),
        ("tls:127.0.0.1:1", TLS, true),
    ] {
        let text = format!("[server]\nlisten = \"{listen}\"\n{rest}");
        let parsed = Config::parse(&text, "c");
        assert_eq!(parsed.is_ok(), served, "{text}");
    }
}

#[test]
fn types_in_both_forms() {
    let parsed = config("[types]\n5 = { kind = \"INDEX\", target = 4 }\n4 = \"COUNTER64\"");
    let declared: Vec<_> = parsed.types.declared().collect();
    let counter = TypeDef::new(4, Kind::Counter64);
    let index = TypeDef {
        target: Some(4),
        ..TypeDef::new(5, Kind::Index)
    };
    assert_eq!(declared, [counter, index]);
    let sections = config("[types.3]\nkind = \"DATA\"\n");
    assert_eq!(sections.types.get(3).map(|row| row.kind), Some(Kind::Data));
    for (text, bytes) in [("0", 0), ("1000", 1000), ("\"1k\"", 1024)] {
        let row = format!("[types]\n3 = {{ kind = \"DATA\", keep_in_memory = {text} }}");
        let types = config(&row).types;
        assert_eq!(types.get(3).unwrap().keep_in_memory, Some(bytes));
        assert!(types.may_leave(3, bytes as usize + 1));
        assert!(!types.may_leave(3, bytes as usize) && !types.may_leave(2, 100_000));
    }
}

#[test]
fn counter_options_and_weights() {
    let text = "[types]\n4 = { kind = \"COUNTER64\", initial = 5, min = 1, \
                max = 18446744073709551615, overflow = \"error\", ttl = 315360000 }\n\
                5 = { kind = \"INDEX\", target = 4, weighted = true }\n\
                6 = { kind = \"COUNTER\", min = 3, ttl = 1 }";
    let types = config(text).types;
    let options = CounterOptions {
        initial: Some(5),
        min: Some(1),
        max: Some(u64::MAX),
        overflow: Some(Overflow::Error),
        ttl_s: Some(315_360_000),
    };
    assert_eq!(types.get(4).unwrap().counter, options);
    assert!(types.get(5).unwrap().weighted && !types.get(1).unwrap().weighted);
    let counting = Counting {
        initial: 3,
        min: 3,
        max: u64::from(u32::MAX),
        overflow: Overflow::Wrap,
        ttl_s: Some(1),
    };
    assert_eq!(types.get(6).unwrap().counting(), counting);
}

#[test]
fn counter_options_that_are_not_possible_are_told() {
    let counter = "takes a whole number from 0 to 18446744073709551615 as its";
    for (row, error) in [
        (
            "{ kind = \"COUNTER\", max = 4294967296 }",
            "2:1: max 4294967296 of type 9 is larger than what a COUNTER holds, 4294967295",
        ),
        (
            "{ kind = \"COUNTER64\", min = 5, max = 4 }",
            "2:1: min 5 of type 9 is larger than its max, 4",
        ),
        (
            "{ kind = \"COUNTER\", min = 5, initial = 4 }",
            "2:1: initial 4 of type 9 is not in its min..max, 5..4294967295",
        ),
        (
            "{ kind = \"DATA\", ttl = 4 }",
            "2:1: type 9 is DATA: ttl is for COUNTER and COUNTER64 only, remove it here",
        ),
        (
            "{ kind = \"COUNTER\", weighted = true }",
            "2:1: type 9 is COUNTER: weighted is for INDEX only, remove it here",
        ),
        (
            "{ kind = \"COUNTER\", min = -1 }",
            &format!("2:31: type 9: -1 is not possible: it {counter} min"),
        ),
        (
            "{ kind = \"COUNTER\", max = 18446744073709551616 }",
            &format!("2:31: type 9: 18446744073709551616 is not possible: it {counter} max"),
        ),
        (
            "{ kind = \"COUNTER\", initial = \"1\" }",
            &format!("2:35: type 9: \"1\" is not possible: it {counter} initial"),
        ),
        (
            "{ kind = \"COUNTER\", overflow = \"Saturate\" }",
            "2:36: type 9: \"Saturate\" is not possible: it takes \"wrap\", \"saturate\" or \
          \"error\" as its overflow; did you mean \"saturate\"?",
        ),
        (
            "{ kind = \"COUNTER\", ttl = 0 }",
            "2:31: type 9: 0 is not possible: it takes seconds from 1 to 315360000 as its ttl",
        ),
        (
            "{ kind = \"COUNTER\", ttl = 315360001 }",
            "2:31: type 9: 315360001 is not possible: it takes seconds from 1 to 315360000 as its \
          ttl",
        ),
        (
            "{ kind = \"INDEX\", weigthed = true }",
            "2:23: type 9: weigthed is not possible: it takes the fields kind, target, weighted, \
             keep_in_memory, durable, when_full, initial, min, max, overflow, ttl: \
             did you mean \"weighted\"?",
        ),
    ] {
        assert_eq!(errors(&format!("[types]\n9 = {row}")), [error], "{row}");
    }
}

#[test]
fn each_bad_type_is_told_at_its_line() {
    let text = "[types]\n2 = \"DATA\"\n03 = \"DATA\"\n70000 = \"DATA\"\n4 = \"Counter\"\n\
                5 = { kind = \"INDEX\", target = 4 }\n6 = { kind = \"INDEX\", target = 7 }\n\
                8 = { kind = \"DATA\", target = 2 }\n9 = { target = 2 }\n10 = { kid = \"DATA\" }\n\
                11 = 5\n12 = { kind = \"INDEX\", target = -1 }\n\
                13 = { kind = \"INDEX\", keep_in_memory = 1 }\n\
                14 = { kind = \"DATA\", keep_in_memory = \"65m\" }\n";
    let found = errors(text);
    let starts: Vec<&str> = found
        .iter()
        .map(|it| it.split_once(": ").unwrap().0)
        .collect();
    let places = [
        "2:1", "3:1", "4:1", "5:5", "7:1", "8:1", "9:5", "10:8", "11:6", "12:33", "13:1", "14:40",
    ];
    assert_eq!(starts, places, "{found:#?}");
    assert_eq!(
        found[10],
        "13:1: type 13 is INDEX: keep_in_memory is for DATA only, remove it here"
    );
    assert_eq!(
        found[11],
        "14:40: type 14: \"65m\" is not possible: it takes bytes from 0 to 64m, such as \"1k\", \
         as its keep_in_memory"
    );
    assert_eq!(found[0], "2:1: type 2 is built in and cannot be redefined");
    assert_eq!(
        found[3],
        "5:5: type 4: \"Counter\" is not possible: it takes \"COUNTER\", \"COUNTER64\", \
         \"INDEX\" or \"DATA\"; did you mean \"COUNTER\"?",
    );
}

#[test]
fn all_errors_are_told_and_in_order() {
    let found = errors("[log]\nlevel = 1\n[data]\nx = 1\n[server]\nthreads = -1\nfoo = \n");
    let lines: Vec<&str> = found
        .iter()
        .map(|it| it.split_once(':').unwrap().0)
        .collect();
    assert_eq!(lines, ["2", "4", "6", "7"], "{found:#?}");
}

#[test]
fn a_key_or_section_twice_is_an_error_at_the_second() {
    for text in ["[data]\ndir = \"a\"\ndir = \"b\"", "[log]\n[data]\n[log]"] {
        let [error] = &errors(text)[..] else {
            panic!("{:?}", errors(text))
        };
        assert!(
            error.starts_with("3:") && error.contains("duplicate"),
            "{error}"
        );
    }
}

#[test]
fn the_long_form_shows_the_line_with_carets() {
    let error = Config::parse("[data]\n\tfsync = \"é\"\n", "c").unwrap_err();
    let long = format!("{error:#}");
    assert!(
        long.ends_with("\n    \tfsync = \"é\"\n    \t        ^^^"),
        "{long}"
    );
}

#[test]
fn nothing_that_is_fed_in_panics() {
    let text = render_example() + "[types]\n\"é\" = \"é";
    for (end, _) in text.char_indices() {
        let _ = Config::parse(&text[..end], "c").map_err(|error| format!("{error:#}"));
        let _ = Config::parse(&text[end..], "c").map_err(|error| format!("{error:#}"));
    }
}

#[test]
fn changed_keys_say_what_a_hup_applies() {
    let old = Config::default();
    let new = config("[server]\nmax_clients = 5\nlisten = \"[::1]:1\"\n[types]\n3 = \"DATA\"");
    assert!(old.changed_keys(&old).is_empty());
    let changed = old.changed_keys(&new);
    let expected = [
        ("server.listen", Applies::AtRestart),
        ("server.max_clients", Applies::OnHup),
        ("types", Applies::OnHup),
    ];
    assert_eq!(changed, expected);
}

#[test]
fn the_habits_of_other_ini_files_get_a_hint() {
    for (line, hint) in [
        (
            "dir = /var/lib/x",
            "; text goes in quotes: dir = \"/var/lib/x\"",
        ),
        ("dir=data # here", "; text goes in quotes: dir = \"data\""),
        ("; a comment", "; a comment starts with #"),
        ("dir = 'x", ""),
    ] {
        let [error] = &errors(&format!("[data]\n{line}\nfsync = \"never\""))[..] else {
            panic!("{line}: {:?}", errors(line))
        };
        assert!(error.starts_with("2:") && error.ends_with(hint), "{error}");
    }
}
