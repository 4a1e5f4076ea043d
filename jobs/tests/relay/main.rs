//! `relay` as its users run it: a real process between real systems, killed in between, judged by other clients.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use jobs::running::{Running, until};
use jobs::{output, tables, topics};
use staunch_testing::servers;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Longest that a job may take to end.
const LONGEST: Duration = Duration::from_secs(120);

/// A relay with its checkpoints, and a place for files.
struct Relay {
    folder: TempDir,
    arguments: Vec<String>,
}

impl Relay {
    fn new(from: &str, to: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["--from", from, "--to", to].map(str::to_owned).to_vec();
        Self { folder, arguments }
    }

    /// The same with more arguments.
    fn and(mut self, more: &[&str]) -> Self {
        self.arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of an address is one of the folder, so that each test has its own.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.current_dir(self.folder.path()).env_remove("RUST_LOG").args(&self.arguments);
        command.args(["--checkpoints", "checkpoints", "--checkpoint-every", "100ms", "--log", "json"]);
        command
    }

    fn output(&self) -> Output {
        self.command().output().unwrap()
    }

    /// Runs it to a good end.
    fn complete(&self) -> String {
        let done = self.output();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{said}");
        said
    }

    /// Runs it to a bad end; the error.
    fn refused(&self) -> String {
        let done = self.output();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{said}");
        said.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n")
    }

    /// Kills it again and again as soon as more has arrived, then runs it to its end. `arrived` counts.
    fn complete_over_kills(&self, kills: usize, arrived: impl Fn() -> usize) {
        for _ in 0..kills {
            let before = arrived();
            let mut running = Running::start(&mut self.command()).unwrap();
            let more =
                until(LONGEST, || (arrived() > before || running.ended().unwrap().is_some()).then_some(()));
            assert!(more.is_some(), "nothing arrives:\n{}", running.log().join("\n"));
            assert!(
                running.ended().unwrap().is_none(),
                "it ended before the kill:\n{}",
                running.log().join("\n")
            );
            running.kill().unwrap();
        }
        let mut running = Running::start(self.command().args(["--workers", "2"])).unwrap();
        let status = running.wait(LONGEST).unwrap();
        assert!(status.success(), "{}", running.log().join("\n"));
    }
}

/// A name that no other test has.
fn fresh(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn sqlite(relay: &Relay, sql: &str) -> Vec<String> {
    let Ok(database) = rusqlite::Connection::open(relay.path("x.db")) else { return Vec::new() };
    database.busy_timeout(LONGEST).unwrap();
    let Ok(mut statement) = database.prepare(sql) else { return Vec::new() };
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Orders with a decimal of more digits than a double has.
fn order(id: usize) -> String {
    format!("{{ \"id\": {id}, \"amount\": 12345678901234567890.{id:06}, \"note\": \"n\u{e4} {id}\" }}")
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS t (id INTEGER NOT NULL, amount TEXT, note TEXT)";

#[test]
fn lines_of_files_are_in_a_table_of_sqlite_once_after_kills() {
    let to = format!("sqlite:x.db?table=t&create={}", TABLE.replace(' ', "%20"));
    let relay = Relay::new("file:in", &to).and(&["--rate", "6000"]);
    fs::create_dir(relay.path("in")).unwrap();
    for file in 0..3 {
        let lines: Vec<String> = (0..4000).map(|line| order(file * 4000 + line)).collect();
        fs::write(relay.path(&format!("in/{file}.jsonl")), lines.join("\n")).unwrap();
    }
    let count = || sqlite(&relay, "SELECT count(*) || '' FROM t").first().map_or(0, |n| n.parse().unwrap());
    relay.complete_over_kills(3, count);
    let found = sqlite(&relay, "SELECT id || ' ' || amount || ' ' || note FROM t ORDER BY id");
    let expected: Vec<String> =
        (0..12_000).map(|id| format!("{id} 12345678901234567890.{id:06} n\u{e4} {id}")).collect();
    assert_eq!(found, expected);
}

#[test]
fn csv_goes_to_json_with_numbers_where_they_are_named_and_bad_rows_are_dead_letters() {
    let relay = Relay::new("file:in.csv?format=csv&numbers=id,amount", "file:out")
        .and(&["--dead-letters", "file:refused"]);
    fs::write(relay.path("in.csv"), "id,amount,zip\n1,1.50,01234\n2,,\"a,b\"\nthree,1,x\n4\n5,-2e3,9\n")
        .unwrap();
    relay.complete();
    let lines = output::committed_lines(&relay.path("out")).unwrap();
    let expected = [
        r#"{"id":1,"amount":1.50,"zip":"01234"}"#,
        r#"{"id":2,"amount":null,"zip":"a,b"}"#,
        r#"{"id":5,"amount":-2e3,"zip":"9"}"#,
    ];
    assert_eq!(lines, expected);
    let letters = output::committed_lines(&relay.path("refused")).unwrap();
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(letters.iter().any(|l| l.contains("holds no number") && l.contains("three,1,x")), "{letters:?}");
    assert!(letters.iter().any(|l| l.contains("line 5")), "{letters:?}");
}

#[test]
fn json_goes_to_csv_and_to_standard_output() {
    let relay = Relay::new("file:in.jsonl", "file:out?format=csv&columns=b,a");
    fs::write(relay.path("in.jsonl"), "{\"a\": 1.0, \"b\": \"x,y\"}\n\n{\"b\": null}\n").unwrap();
    relay.complete();
    assert_eq!(output::committed_lines(&relay.path("out")).unwrap(), ["\"x,y\",1.0", ",", "b,a"]);
    let shown = Relay::new(&format!("file://{}", relay.path("in.jsonl").display()), "stdout:").output();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "{\"a\":1.0,\"b\":\"x,y\"}\n{\"b\":null}\n");
    let from = format!("file://{}?format=text", relay.path("in.jsonl").display());
    let shown = Relay::new(&from, "stdout:?format=raw").output();
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("{\"a\": 1.0"), "{shown:?}");
}

#[test]
fn a_bad_record_without_dead_letters_stops_the_job_and_is_named() {
    let relay = Relay::new("file:in.jsonl", "file:out");
    fs::write(relay.path("in.jsonl"), "{}\n{\"a\":1,}\n").unwrap();
    let error = relay.refused();
    assert!(error.contains("in.jsonl line 2") && error.contains("not JSON"), "{error}");
}

#[test]
fn what_is_wrong_with_an_address_is_said_with_what_was_meant_and_without_passwords() {
    for (from, to, words) in [
        ("file:in?folow=true", "stdout:", "did you mean `follow`?"),
        ("file:in", "sqlite:x.db?tabel=t", "did you mean `table`?"),
        ("file:in", "sqlite:x.db", "needs the parameter table="),
        ("file:in?format=text", "file:out", "give the source format=json"),
        ("stdout:", "file:out", "stdout: is a sink only"),
        (
            "file:in",
            "postgres://me:secret@127.0.0.1:1/d",
            "postgres://127.0.0.1:1/d needs the parameter table=",
        ),
        ("file:in", "postgres://me:secret@127.0.0.1:1/d?table=t&kay=x", "did you mean `key`?"),
        ("kafka://127.0.0.1:1/t?sasl.password=secret&start=soon", "stdout:", "start=soon is none of"),
        (
            "kafka://127.0.0.1:1/t?sasl.password=secret&group.id=x",
            "stdout:",
            "group.id of Kafka cannot be set",
        ),
        ("file:in", "postgres://me:${NO_SUCH}@127.0.0.1:1/d?table=t", "variable NO_SUCH"),
    ] {
        let relay = Relay::new(from, to);
        fs::write(relay.path("in"), "{}\n").unwrap();
        let error = relay.refused();
        assert!(error.contains(words) && !error.contains("secret"), "{from} {to}: {error}");
        assert!(!relay.path("out").exists());
    }
}

#[test]
fn a_password_is_in_no_plan_log_manifest_or_error() {
    let to = "postgres://me:secret-1@127.0.0.1:1/d?table=t";
    let relay =
        Relay::new("file:in", to).and(&["--dead-letters", "postgres://me:${PW}@127.0.0.1:1/d?table=u"]);
    fs::write(relay.path("in"), "{}\n").unwrap();
    let mut plan = Command::new(env!("CARGO_BIN_EXE_relay"));
    plan.arg("plan").args(&relay.arguments).arg("--json").env("PW", "secret-2");
    let plan = plan.output().unwrap();
    assert!(plan.status.success(), "{plan:?}");
    let run = relay.command().env("PW", "secret-2").env("RUST_LOG", "trace").output().unwrap();
    assert_eq!(run.status.code(), Some(1), "nobody listens there: {run:?}");
    let mut said = [plan.stdout, plan.stderr, run.stdout, run.stderr].concat();
    let mut folders = vec![relay.path("checkpoints")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path())
            } else {
                said.extend(fs::read(entry.path()).unwrap())
            }
        }
    }
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("127.0.0.1:1/d"), "{said}");
    assert!(!said.contains("secret-"), "{said}");
}

#[test]
fn a_topic_is_in_a_table_of_postgresql_once_after_kills_and_what_is_no_record_is_a_dead_letter_once() {
    let (Some(broker), Some(url)) = (servers::address("STAUNCH_KAFKA"), servers::address("STAUNCH_POSTGRES"))
    else {
        return;
    };
    let (topic, schema) = (fresh("relay"), fresh("relay"));
    topics::create(&broker, &topic, 3).unwrap();
    let values: Vec<Vec<u8>> = (0..6000)
        .map(|id| match id % 100 {
            7 => format!("poison {id}\0\u{1}").into_bytes(),
            8 => vec![0xff, (id / 100) as u8],
            _ => order(id).into_bytes(),
        })
        .collect();
    let messages = values.iter().zip(0..).map(|(value, at)| (at % 3, Some(&b"k"[..]), Some(&value[..])));
    topics::produce(&broker, &topic, messages).unwrap();
    topics::produce(&broker, &topic, [(0, Some(&b"gone"[..]), None)]).unwrap();
    let sql = |text: &str| tables::psql(&url, text).unwrap();
    sql(&format!(
        "CREATE SCHEMA {schema};
         CREATE TABLE {schema}.t (id bigint PRIMARY KEY, amount numeric, note text);
         CREATE TABLE {schema}.refused (source text, place text, reason text, raw text, raw_base64 text, cut boolean, beside jsonb)"
    ));
    // No key: what comes twice is an error, and no update.
    let to = format!("{url}?table={schema}.t");
    let refused = format!("{url}?table={schema}.refused");
    let relay = Relay::new(&format!("kafka://{broker}/{topic}?bounded=true"), &to).and(&[
        "--dead-letters",
        &refused,
        "--rate",
        "2000",
    ]);
    relay.complete_over_kills(3, || sql(&format!("SELECT count(*) FROM {schema}.t"))[0].parse().unwrap());

    let found = sql(&format!("SELECT id, amount, note FROM {schema}.t ORDER BY id"));
    let good = (0..6000).filter(|id| !matches!(id % 100, 7 | 8));
    let expected: Vec<String> =
        good.map(|id| format!("{id}|12345678901234567890.{id:06}|n\u{e4} {id}")).collect();
    assert_eq!(found, expected);
    let letters = sql(&format!(
        "SELECT source || ' ' || (beside->>'topic') || ' ' || (beside->>'key') || ' ' || (raw_base64 IS NOT NULL)
           FROM {schema}.refused WHERE beside->>'tombstone' IS NULL"
    ));
    let kinds = letters.iter().fold(BTreeMap::<&String, u32>::new(), |mut kinds, line| {
        *kinds.entry(line).or_default() += 1;
        kinds
    });
    let line = format!("kafka://{broker}/{topic} {topic} k true");
    assert_eq!(kinds, BTreeMap::from([(&line, 120)]));
    let places = sql(&format!(
        "SELECT count(DISTINCT (beside->'partition', beside->'offset')), count(*) FROM {schema}.refused"
    ));
    assert_eq!(places, ["121|121"], "each once, the tombstone too");
    sql(&format!("DROP SCHEMA {schema} CASCADE"));
}
