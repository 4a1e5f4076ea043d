//! `plan`: the graph as text, JSON and dot, without running anything.

use crate::support::Case;
use std::process::Command;

fn plan(case: &Case, format: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flight_delays"));
    command.arg("plan").arg("--input").arg(&case.input).arg("--output").arg(case.output());
    let output = command.args(format.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!case.output().exists(), "a plan writes nothing");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_plan_as_text_names_every_step() {
    let text = plan(&Case::flights(), "");
    for name in ["`flights`", "`delays`", "`output`"] {
        assert!(text.contains(name), "no {name} in:\n{text}");
    }
}

#[test]
fn the_plan_as_json_is_a_graph_from_source_to_sink() {
    let json: serde_json::Value = serde_json::from_str(&plan(&Case::flights(), "--json")).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    let kind = |kind: &str| {
        nodes.iter().find(|node| node["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {json}"))
    };
    assert_eq!(kind("source")["name"], "flights");
    assert_eq!(kind("source")["event_time"], true);
    assert_eq!(kind("stateful")["name"], "delays");
    assert_eq!(kind("sink")["name"], "output");
    // From the sink back to the source.
    let mut at = kind("sink");
    for _ in 0..nodes.len() {
        let Some(before) = at["inputs"].as_array().unwrap().first() else { break };
        at = nodes.iter().find(|node| node["id"] == *before).unwrap();
    }
    assert_eq!(at["kind"], "source");
}

#[test]
fn the_plan_as_dot_is_a_digraph() {
    let dot = plan(&Case::flights(), "--dot");
    assert!(dot.starts_with("digraph") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("->") && dot.contains("delays"), "{dot}");
}

#[test]
fn a_plan_as_json_and_dot_at_once_is_refused() {
    let case = Case::flights();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flight_delays"));
    command.args(["plan", "--json", "--dot", "--input"]).arg(&case.input).arg("--output").arg(case.output());
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}
