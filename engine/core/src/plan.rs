//! The graph of a job, as data: for checks before anything runs, and for people.

use crate::error::{Error, Result};
use crate::sink::Guarantee;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Index of a node in [`Plan::nodes`].
pub type NodeId = usize;

/// The graph of a job.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Plan {
    /// Steps in the order in which the program named them.
    pub nodes: Vec<Node>,
}

/// One step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// Where its input comes from.
    pub inputs: Vec<NodeId>,
    /// Whether the records that it puts out have event times.
    pub event_time: bool,
}

/// What a step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A source.
    Source {
        /// Its name.
        name: String,
    },
    /// A stateless verb (`map`, `filter`, ...).
    Stateless {
        /// The verb.
        verb: &'static str,
    },
    /// A keyed, stateful step.
    Stateful {
        /// Its name.
        name: String,
        /// The operator (`count`, `fold`, ...).
        operator: &'static str,
        /// What it was told: the length of a window, by name.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        parameters: BTreeMap<String, String>,
        /// Shapes of its states, by name.
        schemas: BTreeMap<String, String>,
    },
    /// A side output of a step, such as its late records.
    Side {
        /// What it carries.
        output: String,
    },
    /// A sink.
    Sink {
        /// Its name.
        name: String,
        /// What it promises.
        guarantee: Guarantee,
    },
}

impl Node {
    /// The name in checkpoints and metrics, if it has one.
    pub fn name(&self) -> Option<&str> {
        match &self.what {
            What::Source { name } | What::Stateful { name, .. } | What::Sink { name, .. } => Some(name),
            What::Stateless { .. } | What::Side { .. } => None,
        }
    }

    /// The parameters of an operator, for people.
    fn told(&self) -> String {
        let What::Stateful { parameters, .. } = &self.what else { return String::new() };
        let told: Vec<String> = parameters.iter().map(|(name, value)| format!("{name} {value}")).collect();
        if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
    }

    pub(crate) fn label(&self) -> String {
        match &self.what {
            What::Source { name } => format!("source `{name}`"),
            What::Stateless { verb } => (*verb).to_owned(),
            What::Stateful { name, operator, .. } => format!("{operator} `{name}`"),
            What::Side { output } => output.clone(),
            What::Sink { name, guarantee: Guarantee::ExactlyOnce } => format!("sink `{name}`"),
            What::Sink { name, guarantee: Guarantee::AtLeastOnce } => {
                format!("sink `{name}` (at least once)")
            }
        }
    }
}

impl Plan {
    pub(crate) fn add(&mut self, what: What, inputs: Vec<NodeId>, event_time: bool) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(Node { id, what, inputs, event_time });
        id
    }

    /// Why a node's records have no event time: the sources that assign none, and the steps that do not
    /// pass on what they get.
    pub(crate) fn without_event_time(&self, node: NodeId) -> (BTreeSet<&str>, BTreeSet<&str>) {
        let (mut sources, mut steps) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![node];
        while let Some(id) = open.pop() {
            let node = &self.nodes[id];
            let untimed = node.inputs.iter().filter(|input| !self.nodes[**input].event_time);
            let before = open.len();
            open.extend(untimed);
            match &node.what {
                What::Source { name } => sources.extend([name.as_str()]),
                What::Side { output } if open.len() == before => steps.extend([output.as_str()]),
                _ if open.len() == before => steps.extend(node.name()),
                _ => {}
            }
        }
        (sources, steps)
    }

    /// Checks what can be checked before anything runs.
    ///
    /// # Errors
    /// One sentence that says what is wrong: a name twice, a bad name, output that goes nowhere.
    pub fn check(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for name in self.nodes.iter().filter_map(Node::name) {
            check_name(name)?;
            if !names.insert(name) {
                return Err(Error::job(format!(
                    "the name `{name}` is given to two steps; each name must be unique, because checkpoints and metrics find a step by it"
                )));
            }
        }
        if self.nodes.is_empty() {
            return Err(Error::job("the job has no steps; begin with job.source(name, source)"));
        }
        let used: BTreeSet<NodeId> = self.nodes.iter().flat_map(|n| n.inputs.iter().copied()).collect();
        for node in &self.nodes {
            let optional = matches!(node.what, What::Sink { .. } | What::Side { .. });
            if !optional && !used.contains(&node.id) {
                return Err(Error::job(format!(
                    "the output of {} goes nowhere; end it with .sink(name, sink) (discard::sink() throws records away)",
                    node.label()
                )));
            }
        }
        Ok(())
    }

    /// The graph as lines of text.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            let inputs: Vec<String> = node.inputs.iter().map(|id| format!("#{id}")).collect();
            let from = if inputs.is_empty() { String::new() } else { format!("  <- {}", inputs.join(", ")) };
            let time = if node.event_time { "  [event time]" } else { "" };
            let _ = writeln!(out, "#{:<3} {}{}{time}{from}", node.id, node.label(), node.told());
        }
        out
    }

    /// The graph as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
    }

    /// The graph for Graphviz.
    pub fn to_dot(&self) -> String {
        let mut out = String::from("digraph job {\n  rankdir=LR;\n  node [shape=box];\n");
        for node in &self.nodes {
            let shape = match node.what {
                What::Source { .. } => ", shape=cds",
                What::Sink { .. } => ", shape=folder",
                What::Stateful { .. } => ", style=bold",
                _ => "",
            };
            let _ = writeln!(out, "  n{} [label={:?}{shape}];", node.id, node.label());
            for input in &node.inputs {
                let _ = writeln!(out, "  n{input} -> n{};", node.id);
            }
        }
        out.push_str("}\n");
        out
    }
}

/// Names become parts of file names, metric labels and transaction names.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 100
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && !name.starts_with('-');
    if good {
        return Ok(());
    }
    Err(Error::job(format!(
        "{name:?} is not a name for a step; use 1 to 100 of a-z, A-Z, 0-9, _ and -, not starting with -"
    )))
}
