//! What a run says of itself: while it runs and at its end, on a terminal and into a log, and never on standard output.

use crate::support::{Case, LONGEST, data_text};
use jobs::running::until;
use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

/// The two ends of a new terminal: whoever sits before it, and the program in it.
fn terminal() -> (File, OwnedFd) {
    let (mut master, mut slave) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: openpty(3) fills in both numbers, which live longer than the call; the other pointers may be null.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, none, none.cast(), none.cast()) };
    assert_eq!(opened, 0, "no terminal can be had");
    // SAFETY: the numbers are new and open, and nobody else has them.
    unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

#[test]
fn a_run_whose_log_is_piped_says_in_one_line_what_it_did_and_nothing_on_standard_output() {
    let case = Case::flights();
    let mut command = case.command("--workers 2");
    let ended = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(ended.status.success());
    assert!(ended.stdout.is_empty());
    let log = String::from_utf8(ended.stderr).unwrap();
    assert!(!log.contains('\r') && !log.contains("records/s"), "a line for a terminal: {log}");
    let line = log.lines().rfind(|line| line.contains("what the run did")).expect("the last words");
    let said: serde_json::Value = serde_json::from_str(line).unwrap();
    let rows = data_text().lines().count() as u64 - 1;
    assert_eq!(said["fields"]["records_read"], rows);
    assert_eq!(said["fields"]["published"], format!("output={}", case.lines().len()));
    assert!(said["fields"]["checkpoints"].as_u64() >= Some(1), "{said}");
}

#[test]
fn a_run_on_a_terminal_shows_how_it_is_doing_and_ends_with_a_block() {
    let case = Case::flights();
    let (mut screen, inside) = terminal();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flight_delays"));
    command.arg("--input").arg(&case.input).arg("--output").arg(case.output());
    command.arg("--checkpoints").arg(case.checkpoints()).args(["--rate", "12000"]);
    let mut job = command.stdout(Stdio::piped()).stderr(Stdio::from(inside)).spawn().unwrap();
    // Else the terminal stays open when the job ends.
    drop(command);
    let reading = std::thread::spawn(move || {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        // When the last program in a terminal ends, reading from it is an error.
        while let Ok(length @ 1..) = screen.read(&mut piece) {
            all.extend_from_slice(&piece[..length]);
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let status = until(LONGEST, || job.try_wait().unwrap()).expect("the job ends");
    assert!(status.success());
    let shown = reading.join().unwrap();
    assert!(shown.contains(" records, ") && shown.contains("/s"), "no progress: {shown}");
    let rows = data_text().lines().count() - 1;
    for words in ["complete\r\n", &format!("records read   {rows}"), "by output", "dead letters   0", "time "]
    {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    let mut printed = String::new();
    job.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "");
}
