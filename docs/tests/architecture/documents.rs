//! Documents speak of what is there: files, tests, headings, options, metrics.

use crate::tree::{files, folders, none, read, root};
use std::collections::BTreeSet;
use std::fs;

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

/// With another profile, a crate beside the checkout would compile RocksDB a second time.
#[test]
fn the_manifest_of_a_crate_of_ones_own_has_the_profile_of_this_workspace() {
    let profile = |text: &str| -> Vec<String> {
        let lines =
            text.lines().skip_while(|line| *line != "[profile.release]").take_while(|line| *line != "```");
        lines.filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
    };
    let here = profile(&read("Cargo.toml"));
    assert!(here.len() > 3, "{here:?}");
    assert_eq!(profile(&read("docs/first-job.md")), here, "docs/first-job.md, \"In a crate of your own\"");
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
fn planted_claims_in_documents_are_found() {
    let document =
        "See `a/tests/b.rs::it_works`, `c/d.rs` and `x.rs`, and [here](e.md#f), [there](https://g.org).";
    let named = [("a/tests/b.rs".to_owned(), Some("it_works".to_owned())), ("c/d.rs".to_owned(), None)];
    assert_eq!(named_tests(document), named);
    assert_eq!(links(document), ["e.md#f"]);
    assert!(anchors("# A title: of it\n\n## Of `b`-s\n").contains("a-title-of-it"));
}
