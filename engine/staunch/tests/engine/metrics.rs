//! What a run leaves in its metrics.

use crate::harness::place;
use crate::oracle::{Input, Total};
use staunch::memory::collect;
use staunch::prelude::*;

#[test]
fn after_a_run_every_promised_metric_is_there_and_has_a_sane_value() {
    let input = Input { splits: 4, records: 50_000, keys: 100 };
    let (mut place, output) = (place().workers(2).every_ms(5), collect::<Total>());
    let sink = output.clone();
    let build = move |job: &Job<'_>| {
        input.totals(job, sink.clone(), |_| {});
        Ok(())
    };
    let running = place.start(build.clone());
    assert_eq!(running.stop(), Outcome::Stopped);
    place.config.workers = 1;
    let running = place.start(build);
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    input.check_all(&output.committed());

    let text = running.metrics.render().unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("staunch_") && line.contains("job=\"test\""), "{line}");
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
    }
    let all = 200_000.0;
    let get = |name: &str, labels: &str| running.metric(&format!("staunch_{name}"), labels);
    let read = get("records_in_total", "step=\"numbers\"");
    assert!(read > 0.0 && read <= all);
    assert_eq!(get("records_in_total", "step=\"totals\""), read);
    assert_eq!(get("records_out_total", "step=\"totals\""), read);
    assert_eq!(get("records_in_total", "step=\"output\""), read);
    assert!(get("bytes_in_total", "step=\"numbers\"") >= read);
    assert_eq!(get("late_records_total", ""), 0.0);
    assert_eq!(get("dead_letter_records_total", ""), 0.0);
    assert_eq!(get("inflight_bytes", ""), 0.0);
    assert_eq!(get("state_keys", ""), 400.0);
    assert!(get("state_bytes", "") > 400.0 * 24.0);
    assert!((0.5..=1.0).contains(&get("state_cache_hit_ratio", "")));
    assert!(get("commits_total", "result=\"committed\"") >= 1.0);
    assert_eq!(get("commits_total", "result=\"refused\""), 0.0);
    let completed = get("checkpoints_completed_total", "");
    assert!(completed >= 1.0);
    assert_eq!(get("checkpoints_failed_total", ""), 0.0);
    assert_eq!(get("checkpoint_duration_seconds_count", ""), completed);
    assert!(get("last_checkpoint_id", "") >= completed);
    for name in ["checkpoint_alignment_seconds", "checkpoint_stall_seconds", "commit_duration_seconds"] {
        assert!(get(&format!("{name}_count"), "") >= 1.0, "{name}");
    }
    assert!(get("checkpoint_stall_max_seconds", "") < 1.0);
    assert!(get("checkpoint_bytes_total", "") > 0.0);
    assert!(get("end_to_end_latency_seconds_count", "") >= 1.0);
    assert_eq!(get("committables_pending", ""), 0.0);
    assert_eq!(get("restarts_total", ""), 1.0);
    assert!(get("restore_seconds", "") > 0.0 && get("restore_seconds", "") < 10.0);
    assert!(get("uptime_seconds", "") < 60.0);
    for name in ["checkpoint_age_seconds", "checkpoint_bytes", "watermark_seconds"] {
        assert!(text.contains(&format!("staunch_{name}{{")), "{name}");
    }
}
