//! A job in a real process that is killed, stopped, cut off, and whose server is killed and stopped; what it wrote is
//! compared by the identity of each record, by a client that is not the sink.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch_testing::audit::Findings;
use staunch_testing::process::{kill, wait, wait_stopped, wake};
use staunch_testing::servers;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use support::job::{Job, LIFE};
use support::orders::SERVER;
use support::{Proxy, Stalled};

/// Points in which a commit dies: the engine's around it, and the sink's own inside of it.
const AT_COMMITS: &[&str] = &[
    "sink.preparing",
    "sink.cut",
    "sink.half_flushed",
    "sink.prepared",
    "decision.due",
    "decision.visible",
    "decision.made",
    "commit.due",
    "postgres/begun",
    "postgres/token_stored",
    "postgres/some_rows_sent",
    "postgres/rows_written",
    "postgres/committed",
    "commit.some_done",
    "commit.at_target",
    "commit.done",
    "commit.all_done",
];

const AT_STARTS: &[&str] = &[
    "recovery.claimed",
    "postgres/recovery.fence_due",
    "postgres/recovery.fenced",
    "recovery.sink_fenced",
    "recovery.some_orphans_removed",
    "postgres/rows_written",
    "postgres/committed",
    "recovery.some_recommitted",
    "recovery.recommitted",
];

#[test]
fn a_job_that_is_killed_at_any_point_of_a_commit_has_every_row_once() {
    let Some(url) = servers::address(SERVER) else { return };
    let mut kills = 0;
    for point in AT_COMMITS {
        for nth in [1, 3] {
            let Some(mut job) = Job::new(&url) else { return };
            job.die(&format!("{point}:kill:{nth}"));
            // The next life dies as well, unless all that is left is done before it comes there.
            let died = job.live(Some(&format!("{point}:kill"))).signal().is_some();
            job.complete(point);
            kills += 1 + usize::from(died);
        }
    }
    assert!(kills > 3 * AT_COMMITS.len(), "{kills} kills");
    println!("MEASURED: PostgreSQL: {kills} kills at {} points, no row lost or doubled", AT_COMMITS.len());
}

#[test]
fn a_job_that_is_killed_at_any_point_of_a_start_has_every_row_once() {
    let Some(url) = servers::address(SERVER) else { return };
    for point in AT_STARTS {
        let Some(mut job) = Job::new(&url) else { return };
        // It leaves behind what is decided and not committed, and what is staged and not decided.
        job.die(if *point == "recovery.some_orphans_removed" {
            "decision.due:kill:3"
        } else {
            "commit.due:kill:3"
        });
        job.die(&format!("{point}:kill"));
        job.complete(point);
    }
}

#[test]
fn errors_inside_of_a_commit_are_borne_and_asked_again() {
    let Some(url) = servers::address(SERVER) else { return };
    for point in ["postgres/begun", "postgres/token_stored", "postgres/rows_written", "postgres/committed"] {
        let Some(mut job) = Job::new(&url) else { return };
        let status = job.live(Some(&format!("{point}:error:2")));
        assert!(status.success() && job.hits(point) > 2, "{point}: {status}: {}", job.log());
        assert_eq!(job.findings(), Findings::default(), "{point}");
        job.is_quiet(point);
    }
}

/// The old process stands still, the new one takes over and ends; then the old one wakes.
#[test]
fn a_process_that_wakes_after_its_successor_took_over_commits_nothing_more() {
    let Some(url) = servers::address(SERVER) else { return };
    for point in [
        "commit.due",
        "postgres/begun",
        "postgres/token_stored",
        "postgres/rows_written",
        "postgres/committed",
    ] {
        let Some(mut job) = Job::new(&url) else { return };
        let mut old = job.start(Some(&format!("{point}:stop:3")));
        assert!(wait_stopped(&mut old, LIFE).unwrap(), "{point}: {}", job.log());
        // As on a storage without locks: what is left is the fence.
        std::fs::remove_file(job.checkpoints().join("lock")).unwrap();
        let completed = catch_unwind(AssertUnwindSafe(|| job.finish(point)));
        wake(&old);
        let status = wait(&mut old, LIFE).unwrap();
        let said = job.log_of(1);
        assert!(completed.is_ok(), "{point}: the new one: {}", job.log());
        let fenced = ["was taken over by start 2", "has taken the job over: start 2"];
        let fenced = fenced.iter().any(|why| said.contains(why));
        assert!(!status.success() && fenced, "{point}: {status}: {said}");
        assert_eq!(job.findings(), Findings::default(), "{point}: after the old one woke");
        job.nothing_is_open(point);
    }
}

/// Connections that are cut in one test.
const CUTS: u32 = 40;

#[test]
fn connections_that_are_cut_all_the_time_lose_and_double_nothing() {
    let Some(url) = servers::address(SERVER) else { return };
    let Some(mut job) = Job::new(&url) else { return };
    let proxy = Proxy::start(&url);
    (job.expected.records, job.rate) = (1_000, 500);
    job.url = proxy.url(&url) + "?sslmode=disable";
    let (mut at, mut lives, limit) = (200, 0, Instant::now() + LIFE);
    loop {
        lives += 1;
        let mut child = job.start(None);
        while child.try_wait().unwrap().is_none() && proxy.cuts() < CUTS {
            let before = proxy.cuts();
            proxy.cut_after(at % 5_000);
            at += 397;
            while proxy.cuts() == before && child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < limit, "{}", job.log());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let status = wait(&mut child, LIFE).unwrap();
        if status.success() {
            break;
        }
        // A start without its server gives up, and is to be run again.
        assert_eq!(status.code(), Some(1), "{}", job.log());
    }
    proxy.cut_after(-1);
    assert_eq!(proxy.cuts(), CUTS);
    assert_eq!(job.findings(), Findings::default());
    job.is_quiet("after the cuts");
    println!("MEASURED: PostgreSQL: {} connections of a job cut, in {lives} lives", proxy.cuts());
}

#[test]
fn a_server_that_is_killed_again_and_again_under_a_job_has_every_row_once() {
    let Some(mut own) = servers::Own::up("postgres") else { return };
    let Some(mut job) = Job::new(&own.address(SERVER)) else { return };
    (job.expected.records, job.rate) = (1_500, 500);
    let mut child = job.start(None);
    let mut seen = 0;
    for _ in 0..3 {
        let limit = Instant::now() + LIFE;
        // It has committed since the last time.
        loop {
            let now = job.rows().len();
            if now > seen {
                seen = now;
                break;
            }
            assert!(Instant::now() < limit && child.try_wait().unwrap().is_none(), "{}", job.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        own.kill();
        own.start();
        assert!(job.rows().len() >= seen, "what was visible stays");
    }
    assert!(wait(&mut child, LIFE).unwrap().success(), "{}", job.log());
    assert!(job.log().contains("commit failed, trying again"), "the kills were felt: {}", job.log());
    assert_eq!(job.findings(), Findings::default());
    job.is_quiet("at the end");
}

#[test]
fn a_server_that_stands_still_is_waited_for_and_a_job_that_is_killed_meanwhile_goes_on() {
    let Some(own) = servers::Own::up("postgres") else { return };
    let Some(mut job) = Job::new(&own.address(SERVER)) else { return };
    (job.expected.records, job.rate) = (1_000, 500);
    job.arguments = vec!["--open-timeout", "2s"];
    let mut child = job.start(None);
    let limit = Instant::now() + LIFE;
    while job.rows().is_empty() {
        assert!(Instant::now() < limit && child.try_wait().unwrap().is_none(), "{}", job.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let stalled = Stalled::all_of(own.pid());
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "it waits: {}", job.log());
    kill(&mut child).unwrap();
    let status = job.live(None);
    assert_eq!(status.code(), Some(1), "a server without an answer is a fault of the outside: {}", job.log());
    drop(stalled);
    job.complete("after the server goes on");
}

/// The proof would prove nothing if it could not see what it looks for.
#[test]
fn a_start_that_publishes_nothing_of_what_was_decided_is_seen_to_lose_rows() {
    let Some(url) = servers::address(SERVER) else { return };
    let Some(mut job) = Job::new(&url) else { return };
    job.bug = Some("recommit_skipped");
    job.die("commit.due:kill:3");
    let status = job.live(None);
    assert!(status.success() || status.code().is_some(), "{status}");
    assert!(job.findings().missing > 0, "a planted bug is seen: {:?}", job.findings());
}

#[test]
fn the_same_kills_at_least_once_double_rows_and_lose_none() {
    let Some(url) = servers::address(SERVER) else { return };
    let mut all = Findings::default();
    for nth in [2, 3, 4, 5, 6, 8] {
        for point in ["decision.made", "commit.done", "postgres/committed"] {
            let Some(mut job) = Job::new(&url) else { return };
            job.arguments = vec!["--guarantee", "at-least-once"];
            job.rate = 20_000;
            job.expected.records = 3_000;
            job.die(&format!("{point}:kill:{nth}"));
            assert!(job.live(None).success(), "{}", job.log());
            let found = job.findings();
            all.doubled += found.doubled;
            all.missing += found.missing;
            all.foreign += found.foreign;
        }
        if all.doubled > 0 {
            break;
        }
    }
    assert!(all.doubled > 0, "no fault showed that the guarantee is weaker");
    assert_eq!((all.missing, all.foreign), (0, 0), "at least once loses nothing and invents nothing");
}
