//! Exit codes that no ordinary run shows: 3 and 130, those of programs that go wrong, and of processes that cannot say
//! how they end. (The others: `refusals.rs`, `disk_full.rs`, `signals.rs`.)

use crate::support::{Case, LONGEST, data_text, ended, example, signal, skipped, wait_for_log};
use jobs::running::until;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

#[test]
fn a_bug_in_a_connector_ends_the_job_with_3_and_asks_to_be_reported() {
    let Some(example) = example("broken_source") else { return };
    let case = Case::new(example, PathBuf::new()).with_input("lines.txt", "one\ntwo\n");
    for _ in 0..2 {
        case.refused("", 3, &["step `lines`", "a split without a file", "this is a bug", "please report it"]);
        assert!(case.lines().is_empty());
    }
}

/// The stop waits, because its output cannot be published.
#[test]
fn a_second_signal_while_a_job_stops_ends_it_with_130_and_the_rerun_continues() {
    for (first, second) in [(libc::SIGTERM, libc::SIGTERM), (libc::SIGINT, libc::SIGTERM)] {
        let case = Case::flights();
        let mut running = case.start("--workers 2 --rate 3000 --checkpoint-every 100ms");
        case.wait_for_lines(&running, 100);
        let blocked = case.block_commits();
        wait_for_log(&running, "commit failed, trying again");
        let published = case.lines();
        signal(&running, first);
        wait_for_log(&running, "stop requested");
        assert!(running.ended().unwrap().is_none(), "a stop waits until its output is published");
        signal(&running, second);
        let killed = ended(&mut running);
        assert_eq!(killed.code, Some(130), "{}", killed.log);
        assert_eq!(case.lines(), published);

        blocked.end();
        let again = case.complete("--workers 3");
        assert!(again.log.contains("\"restoring"), "it began from nothing: {}", again.log);
        case.assert_batch_result();
    }
}

fn misbehaving() -> Option<Case> {
    Some(Case::new(example("misbehaving")?, PathBuf::new()).with_input("lines.txt", "one\ntwo\n"))
}

#[test]
fn a_program_that_panics_while_it_builds_its_graph_ends_with_2_and_its_text() {
    let Some(case) = misbehaving() else { return };
    let ended = case.run("--what build-panics");
    assert_eq!(ended.code, Some(2), "{}", ended.log);
    let last = ended.log.lines().last().unwrap();
    assert_eq!(last, "error: the program panicked while it built the graph: no columns are configured");
    // The panic itself is an entry of the log, and says where.
    let panic = ended.log.lines().find(|line| line.starts_with('{') && line.contains("panicked"));
    assert!(panic.is_some_and(|line| line.contains("misbehaving.rs:")), "{}", ended.log);
}

#[test]
fn a_program_that_builds_another_graph_each_time_ends_with_2_and_advice_and_no_panic() {
    let Some(case) = misbehaving() else { return };
    for workers in 1..=3 {
        let ended = case.run(&format!("--what other-graph --workers {workers}"));
        assert_eq!(ended.code, Some(2), "{}", ended.log);
        let last = ended.log.lines().last().unwrap();
        for word in ["error: the program builds another graph", "`counts`", "map", "a HashMap"] {
            assert!(last.contains(word), "no {word:?}: {last}");
        }
        assert!(!ended.log.contains("panicked"), "{}", ended.log);
    }
}

#[test]
fn a_reader_that_panics_on_its_own_thread_ends_the_job_with_2_and_its_text() {
    let Some(case) = misbehaving() else { return };
    let ended = case.run("--what reader-panics --workers 2");
    assert_eq!(ended.code, Some(2), "{}", ended.log);
    let last = ended.log.lines().last().unwrap();
    for word in ["error: ", "step `lines`", "the reader of ", " panicked", "a line without a colon"] {
        assert!(last.contains(word), "no {word:?}: {last}");
    }
}

#[test]
fn a_job_whose_standard_error_is_closed_goes_on_and_ends_with_its_own_code() {
    let Some(program) = example("follow_lines") else { return };
    let case = Case::new(program, PathBuf::new()).with_input("lines.txt", "one\n");
    let mut command = case.command("--checkpoint-every 20ms");
    command.env("RUST_LOG", "debug").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut job = command.spawn().unwrap();
    // Whoever read the log goes away after a line.
    let mut log = BufReader::new(job.stderr.take().unwrap());
    log.read_line(&mut String::new()).unwrap();
    drop(log);
    let lines = |count: usize| until(LONGEST, || (case.lines().len() >= count).then_some(()));
    assert!(lines(1).is_some(), "nothing is published");
    File::options().append(true).open(&case.input).unwrap().write_all(b"two\n").unwrap();
    assert!(lines(2).is_some(), "it does not go on");
    // SAFETY: kill(2) takes no pointers; the process is our child and not waited for yet.
    assert_eq!(unsafe { libc::kill(job.id() as libc::pid_t, libc::SIGTERM) }, 0);
    let status = until(LONGEST, || job.try_wait().unwrap()).expect("the job ends");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn an_error_that_cannot_be_written_keeps_its_exit_code() {
    let case = Case::flights();
    for code in [2, 0] {
        let arguments = if code == 2 { "--input nothing" } else { "" };
        let mut full = case.command(arguments);
        full.stderr(File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(full.status().unwrap().code(), Some(code));
        fs::remove_dir_all(case.checkpoints()).unwrap();
        let _ = fs::remove_dir_all(case.output());
        let mut closed = case.command(arguments);
        closed.stderr(Stdio::piped());
        let mut child = closed.spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
    case.assert_batch_result();
}

#[test]
fn a_plan_that_nobody_reads_to_its_end_is_no_error_and_one_that_cannot_be_written_is_1() {
    let case = Case::flights();
    let plan = |stdout: Stdio| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flight_delays"));
        command.arg("plan").arg("--input").arg(&case.input).arg("--output").arg(case.output());
        command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut closed = plan(Stdio::piped());
    drop(closed.stdout.take());
    assert_eq!(closed.wait().unwrap().code(), Some(0));
    let full = plan(File::options().write(true).open("/dev/full").unwrap().into());
    let full = full.wait_with_output().unwrap();
    assert_eq!(full.status.code(), Some(1));
    let error = String::from_utf8(full.stderr).unwrap();
    assert!(error.contains("cannot print to standard output"), "{error}");
}

/// A limit on threads counts for ordinary users only: root runs the job as nobody.
#[test]
fn a_job_that_may_start_no_more_threads_ends_with_1_and_says_so_and_never_hangs() {
    let case = Case::flights_in(data_text());
    fs::set_permissions(case.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    // Where it was built, others may not look.
    let program = case.path("program");
    fs::copy(env!("CARGO_BIN_EXE_flight_delays"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for limit in 1..=10 {
        let mut command = std::process::Command::new(&program);
        command.args(case.command("").get_args());
        // SAFETY: geteuid(2) takes nothing and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            command.uid(65_534).gid(65_534);
        }
        let most = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        let limited = move || match unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &most) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        };
        // SAFETY: setrlimit(2) may be called between fork and exec, and only reads what it is given.
        unsafe { command.pre_exec(limited) };
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        // A process that another test starts just now may have the copy open until it is another program.
        let is_busy = |error: &std::io::Error| error.kind() == ErrorKind::ExecutableFileBusy;
        let started =
            until(LONGEST, || Some(command.spawn()).filter(|started| !started.as_ref().is_err_and(is_busy)));
        let mut running = match started.expect("the copy can be run") {
            Ok(running) => running,
            Err(error) => return skipped(&format!("the job cannot be started as another user: {error}")),
        };
        let status = until(LONGEST, || running.try_wait().unwrap()).expect("the job ends");
        let mut log = String::new();
        running.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        match status.code() {
            // There were enough.
            Some(0) => return,
            code => assert!(
                code == Some(1) && (log.contains("cannot start") || log.contains("no thread")),
                "{limit}: {code:?} {log}"
            ),
        }
    }
}
