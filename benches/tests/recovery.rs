//! The measurement of recovery runs: it kills a real process, and says of each size how often.

use std::path::Path;
use std::process::Command;

#[test]
fn a_job_is_killed_and_the_table_says_how_often() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recovery");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let result = dir.join("recovery.md");
    let output = Command::new(env!("CARGO_BIN_EXE_recovery"))
        .args(["--thousand-keys", "1,2", "--kills", "2"])
        .arg("--dir")
        .arg(&dir)
        .arg("--result")
        .arg(&result)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&result).unwrap();
    for keys in ["| 1 thousand | 2 |", "| 2 thousand | 2 |"] {
        let row = text.lines().find(|line| line.starts_with(keys));
        let row = row.unwrap_or_else(|| panic!("no row {keys} in:\n{text}"));
        assert_eq!(row.matches("longest of 2: ").count(), 2, "{row}");
    }
    assert!(text.contains("- commit: "), "{text}");
}
