//! Refuses what the architecture forbids: edges between crates, names in the wrong place, files that are
//! too long, work that was left undone, and documents that speak of things that are not there.
//!
//! Each rule is a function over text, so that the last tests here can plant a violation and see it found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates of this workspace, and those of them that each may depend on (docs/ARCHITECTURE.md, "Layers").
/// Development dependencies are free: tests may look below.
const EDGES: &[(&str, &str, &[&str])] = &[
    ("engine/crash", "staunch-crash", &[]),
    ("engine/checkpoint", "staunch-checkpoint", &[]),
    ("engine/state", "staunch-state", &["staunch-checkpoint", "staunch-crash"]),
    ("engine/core", "staunch-core", &["staunch-checkpoint", "staunch-crash", "staunch-state"]),
    ("operators", "staunch-operators", &["staunch-core"]),
    ("connectors", "staunch-connectors", &["staunch-core"]),
    ("engine/staunch", "staunch", &["staunch-core", "staunch-operators", "staunch-connectors"]),
    ("jobs", "jobs", &["staunch"]),
    ("benches", "benches", &["staunch", "staunch-testing"]),
    ("docs", "docs", &["staunch"]),
    ("engine/testing", "staunch-testing", &["staunch"]),
];

/// Libraries that only some crates may depend on, development dependencies included.
const RESERVED: &[(&str, &[&str])] = &[
    ("timely", &["engine/core", "benches"]),
    ("differential-dataflow", &["engine/core", "operators", "benches"]),
    ("rocksdb", &["engine/state", "benches"]),
    ("hyper", &["engine/staunch"]),
    ("hyper-util", &["engine/staunch"]),
    ("http-body-util", &["engine/staunch"]),
    ("prometheus", &["engine/core"]),
    ("signal-hook", &["engine/staunch"]),
    ("clap", &["engine/staunch", "engine/testing", "jobs", "benches", "docs"]),
    ("anyhow", &["engine/staunch", "engine/testing", "jobs", "benches"]),
];

/// All that the pure protocol may depend on.
const PROTOCOL_MAY: &[&str] = &["serde", "serde_json", "thiserror", "crc32c"];
/// What the pure protocol must not know: files, clocks, threads, networks, other runtimes.
const PROTOCOL_MUST_NOT: &[&str] =
    &["std::fs", "std::net", "std::process", "std::thread", "Instant", "SystemTime", "tokio", "timely"];

const MOST_LINES: usize = 600;
const MOST_LINES_OF_TESTS: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("docs is in the workspace").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Names at the top that belong to builds, according to `.gitignore`.
fn ignored() -> BTreeSet<String> {
    let own = read(".gitignore");
    own.lines()
        .filter_map(|line| line.strip_prefix('/'))
        .map(|n| n.trim_end_matches('/').to_owned())
        .collect()
}

fn folders() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root())
        .expect("the workspace can be listed")
        .map(|entry| entry.expect("the workspace can be listed"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".git" && !ignored().contains(name))
        .collect();
    names.sort();
    names
}

/// Files of the workspace with this ending, as paths from its root, sorted.
fn files(ending: &str) -> Vec<String> {
    fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    folders().iter().for_each(|folder| walk(&root().join(folder), ending, &mut found));
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        if entry.path().is_file() && entry.file_name().to_string_lossy().ends_with(ending) {
            found.push(entry.path());
        }
    }
    let relative = |path: PathBuf| path.strip_prefix(root()).ok().map(|p| p.to_string_lossy().into_owned());
    let mut found: Vec<String> = found.into_iter().filter_map(relative).collect();
    found.sort();
    found
}

/// Fails with all violations, one a line.
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// Rust text without comments and without what is inside of string and character literals.
fn code_of(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let (mut code, mut at) = (String::with_capacity(text.len()), 0);
    let next = |at: usize| bytes.get(at).copied().unwrap_or('\0');
    while at < bytes.len() {
        match (bytes[at], next(at + 1)) {
            ('/', '/') => {
                while at < bytes.len() && bytes[at] != '\n' {
                    at += 1;
                }
            }
            ('/', '*') => {
                at += 2;
                while at < bytes.len() && (bytes[at], next(at + 1)) != ('*', '/') {
                    at += 1;
                }
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
    code
}

/// Whether a name occurs in code as a whole word.
fn names(code: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name)
        .any(|(at, _)| !code[..at].ends_with(word) && !code[at + name.len()..].starts_with(word))
}

/// Dependencies that a manifest names; with `all`, those of tests and builds too.
fn dependencies(manifest: &str, all: bool) -> Vec<String> {
    let (mut inside, mut found) = (false, Vec::new());
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            let (kind, single) = match section.split_once("dependencies.") {
                Some((before, name)) => (format!("{before}dependencies"), Some(name)),
                None => (section.to_owned(), None),
            };
            let wanted = kind == "dependencies" || (all && kind.ends_with("dependencies"));
            inside = wanted && single.is_none();
            found.extend(single.filter(|_| wanted).map(str::to_owned));
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            found.push(name.trim_matches('"').to_owned());
        }
    }
    found
}

/// What is wrong with the dependencies of the crate in `folder`.
fn wrong_edges(folder: &str, manifest: &str) -> Vec<String> {
    let Some((_, name, allowed)) = EDGES.iter().find(|(known, ..)| *known == folder) else {
        return vec![format!(
            "{folder}/Cargo.toml is a crate that docs/tests/architecture.rs does not know: add a row to EDGES, and to \
             \"Layers\" in docs/ARCHITECTURE.md"
        )];
    };
    let mut wrong = Vec::new();
    for dependency in dependencies(manifest, false) {
        let ours = EDGES.iter().any(|(_, other, _)| *other == dependency);
        if ours && !allowed.contains(&&*dependency) {
            wrong.push(format!(
                "{folder}/Cargo.toml: {name} may not depend on {dependency}; it may on [{}]. Move the code to the layer \
                 that may, or use what a layer in between offers",
                allowed.join(", ")
            ));
        }
        if *name == "staunch-checkpoint" && !PROTOCOL_MAY.contains(&&*dependency) {
            wrong.push(format!(
                "{folder}/Cargo.toml: the protocol is pure and may not depend on {dependency}; feed what it needs in as \
                 an event, from engine/core/src/runtime"
            ));
        }
    }
    for dependency in dependencies(manifest, true) {
        let reserved = RESERVED.iter().find(|(library, _)| *library == dependency);
        if let Some((library, may)) = reserved.filter(|(_, may)| !may.contains(&folder)) {
            wrong.push(format!(
                "{folder}/Cargo.toml: only {} may depend on {library}; use what that crate offers instead",
                may.join(" and ")
            ));
        }
    }
    wrong
}

/// What is wrong with the names in a Rust file.
fn wrong_names(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
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
    let code: String = code_of(text).split_whitespace().collect();
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

/// Test files and tests that a document names in backticks: `path.rs` or `path.rs::test`.
fn named_tests(document: &str) -> Vec<(String, Option<String>)> {
    let spans = document.split('`').skip(1).step_by(2);
    spans
        .filter_map(|span| {
            let (path, test) = match span.split_once("::") {
                Some((path, test)) => (path, Some(test.to_owned())),
                None => (span, None),
            };
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            (plain && path.contains('/') && path.ends_with(".rs")).then(|| (path.to_owned(), test))
        })
        .collect()
}

/// Where the links of a document lead, those to web pages apart.
fn links(document: &str) -> Vec<String> {
    let (mut found, mut in_block) = (Vec::new(), false);
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(targets.filter(|t| !t.contains("://") && !t.starts_with('#')).map(str::to_owned));
        }
    }
    found
}

/// The anchors of a document's headings, as they are made by those who show it.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The book, and what stands beside it at the top.
fn documents() -> Vec<String> {
    files(".md").into_iter().filter(|path| path.starts_with("docs/") || !path.contains('/')).collect()
}

#[test]
fn crates_depend_only_on_the_layers_below_them() {
    let manifests = files("Cargo.toml").into_iter().filter(|path| path.contains('/'));
    none(
        manifests.flat_map(|path| wrong_edges(path.trim_end_matches("/Cargo.toml"), &read(&path))).collect(),
    );
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
fn the_readme_names_every_folder_at_the_top() {
    let readme = read("README.md");
    let missing = folders().into_iter().filter(|folder| !readme.contains(&format!("`{folder}/")));
    let what = |folder| {
        format!("README.md does not mention `{folder}/`: add it to \"Where things are\", with its purpose")
    };
    none(missing.map(what).collect());
}

#[test]
fn the_readme_shows_the_smallest_job_exactly_as_it_is_tested() {
    let job = read("jobs/src/bin/word_count.rs");
    for document in ["README.md", "docs/first-job.md"] {
        assert!(
            read(document).contains(&format!("```rust,no_run\n{job}```\n")),
            "{document} shows another word_count than jobs/src/bin/word_count.rs: copy the file into its first Rust block"
        );
    }
}

#[test]
fn tests_that_documents_name_exist() {
    let mut wrong = Vec::new();
    for document in documents() {
        for (path, test) in named_tests(&read(&document)) {
            let Ok(text) = fs::read_to_string(root().join(&path)) else {
                wrong.push(format!(
                    "{document} names {path}, which does not exist: correct the path, or take the claim back"
                ));
                continue;
            };
            if let Some(test) = test.filter(|test| !text.contains(&format!("fn {test}("))) {
                wrong.push(format!("{document} names {path}::{test}, and the file has no such function: correct the name, or take the claim back"));
            }
        }
    }
    none(wrong);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let here = root().join(&document);
        for link in links(&read(&document)) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { here.clone() } else { here.with_file_name(path) };
            if !target.exists() {
                wrong.push(format!("{document} links to {link}, which does not exist: correct the link"));
            } else if !anchor.is_empty() && !anchors(&read(&target)).contains(anchor) {
                wrong.push(format!(
                    "{document} links to {link}, and there is no such heading: correct the link"
                ));
            }
        }
    }
    none(wrong);
}

#[test]
fn blocks_of_documents_say_their_language() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = read(&document);
        let fences = text.lines().zip(1..).filter(|(line, _)| line.trim_start().starts_with("```"));
        for (opening, number) in fences.step_by(2).filter(|(line, _)| line.trim() == "```") {
            wrong.push(format!("{document} line {number}: {opening} opens a block without a language: write ```text, ```sh or ```rust"));
        }
    }
    none(wrong);
}

#[test]
fn every_metric_and_every_option_is_in_the_list_of_names() {
    let names = read("docs/names.md");
    let metrics = read("engine/core/src/metrics.rs");
    let made =
        ["counters(", "counter(", "float_gauges(", "gauges(", "int_gauge(", "gauge(", "seconds(", "opts("];
    let calls = metrics.split("Fresh metrics of a job").nth(1).expect("where metrics are made");
    let calls: String = calls.split_whitespace().collect::<Vec<_>>().join(" ");
    let first = |call: &str| {
        let literal = call.trim_start().strip_prefix('"')?;
        literal.split('"').next().map(str::to_owned)
    };
    let found: BTreeSet<String> =
        made.iter().flat_map(|call| calls.split(call).skip(1)).filter_map(first).collect();
    assert!(
        found.len() > 20,
        "the metrics are made in another way now: correct this test; it found {found:?}"
    );
    let missing = found.iter().filter(|name| !names.contains(&format!("`staunch_{name}`")));
    let mut wrong: Vec<String> = missing
        .map(|name| format!("docs/names.md does not explain the metric `staunch_{name}`: add a row"))
        .collect();

    let cli = read("engine/staunch/src/cli.rs");
    let options = cli.split("struct EngineArgs {").nth(1).and_then(|rest| rest.split("\n}").next());
    let fields = options.expect("the options are in EngineArgs").lines().map(str::trim);
    let fields = fields.filter(|line| !line.starts_with(['/', '#'])).filter_map(|line| line.split_once(':'));
    for (field, _) in fields {
        let option = format!("`--{}", field.replace('_', "-"));
        if !names.contains(&option) {
            wrong.push(format!("docs/names.md does not explain the option {option}`: add a row"));
        }
    }
    none(wrong);
}

#[test]
fn a_planted_edge_is_found() {
    let manifest = |lines: &str| format!("[package]\nname = \"x\"\n\n[dependencies]\n{lines}\n");
    for (folder, lines, found) in [
        ("operators", "staunch-state.workspace = true", "may not depend on staunch-state"),
        (
            "connectors",
            "staunch-core.workspace = true\nstaunch-checkpoint = { path = \"x\" }",
            "staunch-checkpoint",
        ),
        ("connectors", "timely = \"0.31\"", "only engine/core and benches may depend on timely"),
        ("jobs", "staunch.workspace = true\n[dev-dependencies]\nrocksdb.workspace = true", "rocksdb"),
        ("jobs", "staunch.workspace = true\n[dependencies.hyper]\nversion = \"1\"", "hyper"),
        ("engine/checkpoint", "tokio.workspace = true", "the protocol is pure"),
        ("engine/new", "serde.workspace = true", "add a row to EDGES"),
    ] {
        let wrong = wrong_edges(folder, &manifest(lines)).join("\n");
        assert!(wrong.contains(found), "{folder}: {wrong}");
    }
    assert!(wrong_edges("operators", &manifest("staunch-core.workspace = true\nserde = \"1\"")).is_empty());
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
    assert!(wrong("jobs/src/a.rs", "fn f() { todo! () }").contains("todo!"));
    assert!(wrong("jobs/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}").contains("#[ignore"));
    assert!(wrong("jobs/src/a.rs", &"\n".repeat(601)).contains("601 lines"));
    assert!(wrong("jobs/tests/a.rs", &"\n".repeat(801)).contains("801 lines"));
    for fine in [
        "// todo!() and timely are words here",
        "/* use timely; */ fn f<'a>(c: &'a str) -> bool { c == \"todo!()\" && 'x' != '\\'' }",
        "let raw = r#\"use timely; \" todo!()\"#; let untimely = 1;",
    ] {
        assert_eq!(wrong("engine/checkpoint/src/a.rs", fine), "", "{fine}");
    }
    assert_eq!(wrong("engine/core/src/runtime/a.rs", "use timely::Config;"), "");
}

#[test]
fn planted_claims_in_documents_are_found() {
    let document =
        "See `a/tests/b.rs::it_works`, `c/d.rs` and `x.rs`, and [here](e.md#f), [there](https://g.org).";
    let named = [("a/tests/b.rs".to_owned(), Some("it_works".to_owned())), ("c/d.rs".to_owned(), None)];
    assert_eq!(named_tests(document), named);
    assert_eq!(links(document), ["e.md#f"]);
    assert!(anchors("# A title: of it\n\n## Of `b`-s\n").contains("a-title-of-it"));
}
