//! Sinks in whole jobs: what their halves learn of each other, and what they do beside each other.

use crate::harness::place;
use staunch::core::error::Kind;

#[cfg(feature = "sqlite")]
mod a_table {
    use super::*;
    use serde::Serialize;
    use staunch::memory;

    #[derive(Clone, Serialize)]
    struct Reading {
        sensor: u64,
        value: f64,
    }

    /// What a job says that writes readings into such a table; nothing of it may be decided.
    fn refusal(columns: &str, value: f64) -> String {
        let place = place().workers(2);
        let path = place.config.checkpoints.with_extension("db");
        let (create, target) = (format!("CREATE TABLE IF NOT EXISTS readings ({columns})"), path.clone());
        let error = place.fail(move |job| {
            let readings =
                memory::collection([Reading { sensor: 1, value: 0.5 }, Reading { sensor: 2, value }]);
            let table = staunch::sqlite::table(&target, "readings").create(create.clone());
            job.source("sensors", readings).sink("readings", table);
            Ok(())
        });
        assert_eq!((error.kind(), error.step()), (Kind::Job, Some("readings")), "{error}");
        assert!(place.manifests().is_empty(), "nothing is decided: {error}");
        error.to_string()
    }

    #[test]
    fn with_a_wrong_column_is_refused_in_a_job_before_anything_is_decided() {
        let why = refusal("sensor INTEGER, reading REAL", 1.0);
        assert!(why.contains("has no column `value`; its columns are sensor, reading"), "{why}");
    }

    #[test]
    fn that_would_change_a_value_is_refused_in_a_job_before_anything_is_decided() {
        let why = refusal("sensor TEXT, value REAL", 1.0);
        assert!(why.contains("column `sensor` TEXT: it would become text"), "{why}");
        let why = refusal("sensor INTEGER, value REAL", f64::NAN);
        assert!(why.contains("would be written as null"), "{why}");
    }
}
