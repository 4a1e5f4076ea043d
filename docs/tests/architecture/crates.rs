//! Which crate may depend on which, and whether the table of dependencies says so.

use crate::tree::{files, none, read};
use std::collections::{BTreeMap, BTreeSet};

/// Crates of this workspace, and those of them that each may depend on (docs/ARCHITECTURE.md, "Layers").
/// Development dependencies are free: tests may look below.
const EDGES: &[(&str, &str, &[&str])] = &[
    ("engine/crash", "staunch-crash", &[]),
    ("engine/checkpoint", "staunch-checkpoint", &[]),
    ("engine/state", "staunch-state", &["staunch-checkpoint", "staunch-crash"]),
    ("engine/core", "staunch-core", &["staunch-checkpoint", "staunch-crash", "staunch-state"]),
    ("operators", "staunch-operators", &["staunch-core"]),
    ("connectors", "staunch-connectors", &["staunch-core"]),
    ("connectors/kafka", "staunch-kafka", &["staunch-core", "staunch-connectors"]),
    ("connectors/postgres", "staunch-postgres", &["staunch-core"]),
    (
        "engine/staunch",
        "staunch",
        &["staunch-core", "staunch-operators", "staunch-connectors", "staunch-kafka", "staunch-postgres"],
    ),
    ("jobs", "jobs", &["staunch"]),
    ("benches", "benches", &["staunch", "staunch-checkpoint", "staunch-state", "staunch-testing"]),
    ("docs", "docs", &["staunch"]),
    ("engine/shim", "staunch-shim", &[]),
    ("engine/testing", "staunch-testing", &["staunch", "staunch-shim"]),
];

/// Libraries that only some crates may depend on, development dependencies included.
const RESERVED: &[(&str, &[&str])] = &[
    ("timely", &["engine/core", "benches"]),
    ("rocksdb", &["engine/state", "benches"]),
    ("rdkafka", &["connectors/kafka", "jobs", "benches"]),
    ("hyper", &["engine/staunch", "connectors"]),
    ("hyper-util", &["engine/staunch", "connectors"]),
    ("http-body-util", &["engine/staunch", "connectors"]),
    ("prometheus", &["engine/core"]),
    ("signal-hook", &["engine/staunch"]),
    ("clap", &["engine/staunch", "engine/testing", "jobs", "benches", "docs"]),
    ("anyhow", &["engine/staunch", "engine/testing", "jobs", "benches"]),
];

/// All that the pure protocol may depend on.
const PROTOCOL_MAY: &[&str] = &["serde", "serde_json", "thiserror", "crc32c"];

/// Whom a dependency is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum For {
    /// The crate itself.
    Crate,
    /// Its tests and examples, or its build.
    Tests,
}

/// Dependencies that a manifest names.
fn dependencies(manifest: &str) -> Vec<(For, String)> {
    let (mut inside, mut found): (Option<For>, _) = (None, Vec::new());
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            let (kind, single) = match section.split_once("dependencies.") {
                Some((before, name)) => (format!("{before}dependencies"), Some(name)),
                None => (section.to_owned(), None),
            };
            let whom = match kind.strip_suffix("dependencies") {
                None => None,
                Some(before) if before.ends_with("dev-") || before.ends_with("build-") => Some(For::Tests),
                Some(_) => Some(For::Crate),
            };
            found.extend(whom.and_then(|whom| Some((whom, single?.to_owned()))));
            inside = whom.filter(|_| single.is_none());
        } else if let Some(whom) = inside.filter(|_| !line.is_empty() && !line.starts_with('#')) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            found.push((whom, name.trim_matches('"').to_owned()));
        }
    }
    found
}

/// What is wrong with the dependencies of the crate in `folder`.
fn wrong_edges(folder: &str, manifest: &str) -> Vec<String> {
    let Some((_, name, allowed)) = EDGES.iter().find(|(known, ..)| *known == folder) else {
        return vec![format!(
            "{folder}/Cargo.toml is a crate that docs/tests/architecture/crates.rs does not know: add a row to EDGES, and to \
             \"Layers\" in docs/ARCHITECTURE.md"
        )];
    };
    let mut wrong = Vec::new();
    let all = dependencies(manifest);
    for (_, dependency) in all.iter().filter(|(whom, _)| *whom == For::Crate) {
        let ours = EDGES.iter().any(|(_, other, _)| other == dependency);
        if ours && !allowed.contains(&dependency.as_str()) {
            wrong.push(format!(
                "{folder}/Cargo.toml: {name} may not depend on {dependency}; it may on [{}]. Move the code to the layer \
                 that may, or use what a layer in between offers",
                allowed.join(", ")
            ));
        }
        if *name == "staunch-checkpoint" && !PROTOCOL_MAY.contains(&dependency.as_str()) {
            wrong.push(format!(
                "{folder}/Cargo.toml: the protocol is pure and may not depend on {dependency}; feed what it needs in as \
                 an event, from engine/core/src/runtime"
            ));
        }
    }
    for (_, dependency) in &all {
        let reserved = RESERVED.iter().find(|(library, _)| library == dependency);
        if let Some((library, may)) = reserved.filter(|(_, may)| !may.contains(&folder)) {
            wrong.push(format!(
                "{folder}/Cargo.toml: only {} may depend on {library}; use what that crate offers instead",
                may.join(" and ")
            ));
        }
    }
    wrong
}

/// The crates that use a library, by their folders: themselves, and only in their tests.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Users {
    crates: BTreeSet<String>,
    tests: BTreeSet<String>,
}

impl Users {
    /// What a row of the table says: `a`, `b`; tests of `c`.
    fn in_row(cell: &str) -> Self {
        let names = |list: &str| list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let (crates, tests) = cell.split_once("tests of").unwrap_or((cell, ""));
        Self { crates: names(crates), tests: names(tests) }
    }

    /// The same, for the table.
    fn row(&self) -> String {
        let list = |names: &BTreeSet<String>| {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let mut parts = vec![list(&self.crates)];
        parts.extend((!self.tests.is_empty()).then(|| format!("tests of {}", list(&self.tests))));
        parts.retain(|part| !part.is_empty());
        parts.join("; ")
    }
}

/// Who uses which library, according to the manifests: folders and texts.
fn used(manifests: &[(&str, String)]) -> BTreeMap<String, Users> {
    let mut found: BTreeMap<String, Users> = BTreeMap::new();
    for (folder, manifest) in manifests {
        let all = dependencies(manifest);
        let ours = |name: &str| EDGES.iter().any(|(_, crate_name, _)| *crate_name == name);
        for (whom, library) in all.iter().filter(|(_, name)| !ours(name)) {
            let users = found.entry(library.clone()).or_default();
            match whom {
                For::Crate => drop(users.crates.insert((*folder).to_owned())),
                For::Tests if all.contains(&(For::Crate, library.clone())) => {}
                For::Tests => drop(users.tests.insert((*folder).to_owned())),
            }
        }
    }
    found
}

/// Rows of the table under "Dependencies": a library, and what is said of who uses it. One that says `-` comes
/// with another library.
fn rows(document: &str) -> Vec<(String, String)> {
    let section = document.split("\n## Dependencies\n").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let mut found = Vec::new();
    for line in lines {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let (libraries, users) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        // What stands in brackets or backticks is about versions and features.
        let plain: String = libraries.split('`').step_by(2).collect();
        let plain: String =
            plain.split('(').map(|part| part.rsplit(')').next().unwrap_or_default()).collect();
        let names = plain.split(',').filter_map(|name| name.split_whitespace().next());
        found.extend(names.map(|name| (name.to_owned(), users.to_owned())));
    }
    found
}

/// Where the table and the manifests disagree.
fn wrong_rows(document: &str, manifests: &[(&str, String)]) -> Vec<String> {
    let (mut used, mut wrong) = (used(manifests), Vec::new());
    for (library, said) in rows(document) {
        match used.remove(&library) {
            None if said == "-" => {}
            None => wrong.push(format!(
                "docs/ARCHITECTURE.md, \"Dependencies\": no crate depends on {library}, or it has two rows: delete this one"
            )),
            Some(users) if users == Users::in_row(&said) => {}
            Some(users) => wrong.push(format!(
                "docs/ARCHITECTURE.md, \"Dependencies\": {library} is used by {}, and not by {said}: correct the row",
                users.row()
            )),
        }
    }
    let missing = used.iter().map(|(library, users)| {
        format!(
            "docs/ARCHITECTURE.md, \"Dependencies\": {library}, used by {}, has no row: say what it is for",
            users.row()
        )
    });
    wrong.extend(missing);
    wrong
}

#[test]
fn crates_depend_only_on_the_layers_below_them() {
    let manifests = files("Cargo.toml").into_iter().filter(|path| path.contains('/'));
    none(
        manifests.flat_map(|path| wrong_edges(path.trim_end_matches("/Cargo.toml"), &read(&path))).collect(),
    );
}

#[test]
fn the_table_of_dependencies_says_what_the_manifests_say() {
    let manifests: Vec<(&str, String)> =
        EDGES.iter().map(|(folder, ..)| (*folder, read(format!("{folder}/Cargo.toml")))).collect();
    none(wrong_rows(&read("docs/ARCHITECTURE.md"), &manifests));
}

#[test]
fn a_planted_error_in_the_table_of_dependencies_is_found() {
    let manifests = [
        ("a", "[dependencies]\nserde.workspace = true\nhyper = \"1\"\nstaunch.workspace = true\n".to_owned()),
        ("b/c", "[dependencies.serde]\nversion = \"1\"\n[dev-dependencies]\nserde = \"1\"\n".to_owned()),
        (
            "d",
            "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n[dev-dependencies]\nserde = \"1\"\n"
                .to_owned(),
        ),
    ];
    let table = |rows: &str| {
        format!(
            "# A\n\n## Dependencies\n\n| crate | used by | why |\n|---|---|---|\n{rows}\n## B\n\n| x | - | - |\n"
        )
    };
    let right = "| serde `=1` (derive, rc) | `a`, `b/c`; tests of `d` | x |\n| hyper | `a` | x |\n| libc | `d` | x |\n\
                 | bincode 1.3 (through serde) | - | x |\n";
    assert!(wrong_rows(&table(right), &manifests).is_empty(), "{:?}", wrong_rows(&table(right), &manifests));
    for (now, planted, found) in [
        ("`a`, `b/c`; tests of `d`", "`a`, `b/c`", "serde is used by `a`, `b/c`; tests of `d`"),
        ("`a`, `b/c`; tests of `d`", "`a`, `b/c`, `d`", "serde is used by"),
        ("`a`, `b/c`; tests of `d`", "all", "serde is used by"),
        ("| hyper | `a` | x |\n", "", "hyper, used by `a`, has no row"),
        ("| libc |", "| libc, rand |", "no crate depends on rand"),
        ("| bincode", "| libc | `d` | x |\n| bincode", "or it has two rows"),
    ] {
        let wrong = wrong_rows(&table(&right.replace(now, planted)), &manifests).join("\n");
        assert!(wrong.contains(found), "{planted}: {wrong}");
    }
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
