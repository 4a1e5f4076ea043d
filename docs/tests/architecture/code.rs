//! What Rust files may name, and that nothing in them is left undone.

use crate::tree::{files, none, read};

/// What the pure protocol must not know: files, clocks, threads, networks, other runtimes.
const PROTOCOL_MUST_NOT: &[&str] =
    &["std::fs", "std::net", "std::process", "std::thread", "Instant", "SystemTime", "tokio", "timely"];

/// What judges the engine's output, and so must not share code with it.
const STRANGERS: &[&str] = &["audit", "observer", "oracle", "power", "process", "quiescence", "rows"];
/// What the rules for connectors must not know: how the engine runs one.
const RULES_MUST_NOT: &[&str] = &["crash", "doubles", "simulation"];

const MOST_LINES: usize = 600;
const MOST_LINES_OF_TESTS: usize = 800;
/// What a comment says in place of code.
const ANNOUNCED: &str = "to be written";

/// Rust text in two: without comments and without what is inside of string and character literals; and the
/// comments, a line each.
fn code_and_comments(text: &str) -> (String, String) {
    let bytes: Vec<char> = text.chars().collect();
    let (mut code, mut at) = (String::with_capacity(text.len()), 0);
    let mut comments = String::new();
    let next = |at: usize| bytes.get(at).copied().unwrap_or('\0');
    while at < bytes.len() {
        match (bytes[at], next(at + 1)) {
            ('/', '/') => {
                while at < bytes.len() && bytes[at] != '\n' {
                    comments.push(bytes[at]);
                    at += 1;
                }
                comments.push('\n');
            }
            ('/', '*') => {
                at += 2;
                while at < bytes.len() && (bytes[at], next(at + 1)) != ('*', '/') {
                    comments.push(bytes[at]);
                    at += 1;
                }
                comments.push('\n');
                at += 2;
            }
            ('r', '"' | '#') if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                let hashes = bytes[at + 1..].iter().take_while(|c| **c == '#').count();
                if next(at + 1 + hashes) != '"' {
                    code.push('r');
                    at += 1;
                    continue;
                }
                at += 2 + hashes;
                let ends = |at: usize| {
                    next(at) == '"' && bytes[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes
                };
                while at < bytes.len() && !ends(at) {
                    at += 1;
                }
                at += 1 + hashes;
                code.push_str("\"\"");
            }
            ('"', _) => {
                at += 1;
                while at < bytes.len() && bytes[at] != '"' {
                    at += 1 + usize::from(bytes[at] == '\\');
                }
                at += 1;
                code.push_str("\"\"");
            }
            ('\'', '\\') => {
                at += 3;
                while at < bytes.len() && bytes[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            ('\'', _) if next(at + 2) == '\'' => at += 3,
            (other, _) => {
                code.push(other);
                at += 1;
            }
        }
    }
    (code, comments)
}

/// Whether a name occurs in code as a whole word.
fn names(code: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name)
        .any(|(at, _)| !code[..at].ends_with(word) && !code[at + name.len()..].starts_with(word))
}

/// What is wrong with the names in a Rust file.
fn wrong_names(path: &str, text: &str) -> Vec<String> {
    let (code, _) = code_and_comments(text);
    let mut wrong = Vec::new();
    let may_name_timely = ["engine/core/src/runtime/", "benches/"].iter().any(|p| path.starts_with(p));
    if !may_name_timely && names(&code, "timely") {
        wrong.push(format!(
            "{path} names timely: only engine/core/src/runtime may. Put the code there, behind a function without timely \
             in its signature"
        ));
    }
    if path.starts_with("engine/checkpoint/src/") {
        for name in PROTOCOL_MUST_NOT.iter().filter(|name| names(&code, name)) {
            wrong.push(format!(
                "{path} names {name}: the protocol decides and does nothing. Make it an event or an action, and do it in \
                 engine/core/src/runtime"
            ));
        }
    }
    let of_testing = path.strip_prefix("engine/testing/src/").unwrap_or_default();
    let is_stranger = STRANGERS.iter().any(|name| of_testing.strip_suffix(".rs") == Some(name));
    if is_stranger && (names(&code, "staunch") || names(&code, "simulation")) {
        wrong.push(format!(
            "{path} names the engine: what judges it shares no code with it. Read what the job left behind like a stranger, \
             or put the code elsewhere"
        ));
    }
    if of_testing.starts_with("conformance/") {
        for name in RULES_MUST_NOT.iter().filter(|name| names(&code, name)) {
            wrong.push(format!(
                "{path} names {name}: a rule for connectors sees their contracts and nothing else of the engine"
            ));
        }
    }
    wrong
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// What is left undone in a Rust file, or too long.
fn wrong_habits(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    let most = if is_test(path) { MOST_LINES_OF_TESTS } else { MOST_LINES };
    if lines > most {
        wrong.push(format!(
            "{path} has {lines} lines, the limit is {most}: split it along what its head promises"
        ));
    }
    let (code, comments) = code_and_comments(text);
    let code: String = code.split_whitespace().collect();
    if code.is_empty() {
        wrong.push(format!("{path} has no code: write what it announces, or delete it"));
    }
    // Words of a sentence may stand on two lines.
    let words: Vec<&str> = comments.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    if words.join(" ").to_lowercase().contains(ANNOUNCED) {
        wrong.push(format!(
            "{path} says \"{ANNOUNCED}\": write it, or take the announcement back; if something else is meant, use other words"
        ));
    }
    for (undone, advice) in [
        ("todo!(", "finish it, or refuse the case with an error that says so"),
        ("unimplemented!(", "finish it, or refuse the case with an error that says so"),
        ("#[ignore", "make the test fast and sure enough to run always, or delete it"),
    ] {
        if code.contains(undone) {
            wrong.push(format!("{path} has {undone}: {advice}"));
        }
    }
    wrong
}

#[test]
fn timely_and_the_outside_world_are_named_only_where_they_belong() {
    none(files(".rs").iter().flat_map(|path| wrong_names(path, &read(path))).collect());
}

#[test]
fn files_are_short_and_nothing_is_left_undone() {
    none(files(".rs").iter().flat_map(|path| wrong_habits(path, &read(path))).collect());
}

#[test]
fn planted_names_and_undone_work_are_found_and_comments_are_free() {
    let wrong =
        |path: &str, text: &str| [wrong_names(path, text), wrong_habits(path, text)].concat().join("\n");
    assert!(wrong("operators/src/a.rs", "use timely::dataflow::Scope;").contains("names timely"));
    assert!(wrong("engine/core/src/job.rs", "fn f(s: timely::Scope) {}").contains("names timely"));
    assert!(
        wrong("engine/checkpoint/src/a.rs", "let now = std::time::Instant::now();").contains("names Instant")
    );
    assert!(wrong("engine/checkpoint/src/a.rs", "use std::fs::File;").contains("std::fs"));
    assert!(wrong("engine/testing/src/audit.rs", "use staunch::file;").contains("names the engine"));
    assert!(wrong("engine/testing/src/rows.rs", "use crate::simulation::run;").contains("names the engine"));
    assert_eq!(wrong("engine/testing/src/storage.rs", "use staunch::core::Storage;"), "");
    let rule = "engine/testing/src/conformance/sink/mod.rs";
    assert!(wrong(rule, "use staunch::core::simulation::Process;").contains("names simulation"));
    assert_eq!(wrong(rule, "use staunch::core::sink::Sink;"), "");
    assert!(wrong("jobs/src/a.rs", "fn f() { todo! () }").contains("todo!"));
    assert!(wrong("jobs/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}").contains("#[ignore"));
    for empty in ["", "\n", "//! Session windows.\n", "/* fn f() {} */"] {
        assert!(wrong("operators/src/a.rs", empty).contains("has no code"), "{empty:?}");
    }
    for announced in
        ["//! Session windows. To be written.\n", "/// Joins are to be\n/// written\n", "/* to be written */"]
    {
        let text = format!("{announced}fn f() {{}}");
        assert!(wrong("operators/src/a.rs", &text).contains("says \"to be written\""), "{announced:?}");
    }
    assert!(wrong("jobs/src/a.rs", &"\n".repeat(601)).contains("601 lines"));
    assert!(wrong("jobs/tests/a.rs", &"\n".repeat(801)).contains("801 lines"));
    for fine in [
        "// todo!() and timely are words here\nmod a;",
        "/* use timely; */ fn f<'a>(c: &'a str) -> bool { c == \"todo!()\" && 'x' != '\\'' }",
        "let raw = r#\"use timely; \" todo!()\"#; let untimely = 1;",
        "const UNDONE: &str = \"to be written\";",
    ] {
        assert_eq!(wrong("engine/checkpoint/src/a.rs", fine), "", "{fine}");
    }
    assert_eq!(wrong("engine/core/src/runtime/a.rs", "use timely::Config;"), "");
}
