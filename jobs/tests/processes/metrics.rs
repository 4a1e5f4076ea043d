//! The metrics endpoint of a running job.

use crate::support::{Case, ended, signal};
use jobs::running::{Metrics, free_address, until};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The names of docs/names.md that have a meaning already.
const NAMES: [&str; 24] = [
    "records_in_total",
    "records_out_total",
    "bytes_in_total",
    "late_records_total",
    "dead_letter_records_total",
    "watermark_seconds",
    "inflight_bytes",
    "state_keys",
    "state_bytes",
    "state_cache_hit_ratio",
    "checkpoint_duration_seconds_count",
    "checkpoint_alignment_seconds_count",
    "checkpoint_stall_seconds_count",
    "checkpoint_bytes",
    "checkpoint_age_seconds",
    "checkpoints_completed_total",
    "checkpoints_failed_total",
    "last_checkpoint_id",
    "committables_pending",
    "commit_duration_seconds_count",
    "commits_total",
    "end_to_end_latency_seconds_count",
    "restarts_total",
    "restore_seconds",
];

#[test]
fn a_running_job_shows_its_metrics() {
    let case = Case::flights();
    let address = free_address().unwrap();
    let mut running =
        case.start(&format!("--workers 2 --rate 6000 --checkpoint-every 100ms --metrics {address}"));
    case.wait_for_lines(&running, 500);
    let metrics = Metrics::of(address).expect("the job answers");
    let names: BTreeSet<&str> = metrics.names().collect();
    let missing: Vec<_> =
        NAMES.iter().filter(|name| !names.contains(format!("staunch_{name}").as_str())).collect();
    assert!(missing.is_empty(), "missing: {missing:?}, there are: {names:?}");

    let read = |metrics: &Metrics| metrics.sum("staunch_records_in_total", &["step=\"flights\""]);
    assert!(read(&metrics) > 1000.0, "{metrics:?}");
    assert!(metrics.sum("staunch_checkpoints_completed_total", &[]) >= 1.0);
    assert!(metrics.sum("staunch_commits_total", &["sink=\"output\"", "result=\"committed\""]) >= 1.0);
    assert!(metrics.sum("staunch_records_out_total", &["step=\"delays\""]) >= 500.0);
    assert!(metrics.sum("staunch_restarts_total", &[]) == 0.0);
    let more = || Metrics::of(address).filter(|now| read(now) > read(&metrics));
    assert!(until(Duration::from_secs(5), more).is_some(), "the counters stand still");
    assert_eq!(ended(&mut running).code, Some(0));
}

/// The first line and the body of an answer.
fn get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

#[test]
fn a_running_job_says_that_it_is_well_and_what_else_can_be_asked() {
    let case = Case::flights();
    let address = free_address().unwrap();
    let mut running = case.start(&format!("--rate 3000 --checkpoint-every 100ms --metrics {address}"));
    case.wait_for_lines(&running, 1);
    let answer = |path| get(address, path).expect("the job answers");
    assert_eq!(answer("/healthz"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    let (status, body) = answer("/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains("staunch_records_in_total{"), "{body}");
    let (status, body) = answer("/health");
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert!(body.contains("/metrics") && body.contains("/healthz"), "it does not say what there is: {body}");
    signal(&running, libc::SIGTERM);
    assert_eq!(ended(&mut running).code, Some(0));
}

#[test]
fn a_metrics_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Case::flights().refused(&format!("--metrics {address}"), 1, &["cannot serve metrics", &address]);
}
