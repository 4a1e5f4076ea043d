//! Prometheus metrics of a running job. Names and labels are in docs/names.md.

mod watch;

use crate::time::Timestamp;
use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
pub(crate) use watch::{Doing, Watch};

/// All metrics of one job.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    records_in: IntCounterVec,
    records_out: IntCounterVec,
    bytes_in: IntCounterVec,
    late_records: IntCounterVec,
    dead_letters: IntCounterVec,
    watermark: GaugeVec,
    watermark_lag: GaugeVec,
    /// In the order of [`Doing`].
    shares: [GaugeVec; 3],
    /// All steps that run, by name and worker.
    watches: Arc<Mutex<BTreeMap<(String, String), Arc<Watch>>>>,
    inflight: IntGaugeVec,
    stash: IntGaugeVec,
    stash_max: IntGaugeVec,
    state_keys: IntGaugeVec,
    state_bytes: IntGaugeVec,
    cache_hit_ratio: GaugeVec,
    rocksdb_keys: IntGaugeVec,
    connector: GaugeVec,
    pub(crate) commits: IntCounterVec,
    pub(crate) records_published: IntCounterVec,
    /// Records read by all sources.
    pub(crate) records_read: Arc<AtomicU64>,
    pub(crate) checkpoint_duration: Histogram,
    pub(crate) checkpoint_alignment: Histogram,
    pub(crate) checkpoint_stall: Histogram,
    /// The longest time that one step stood still for a checkpoint.
    pub(crate) checkpoint_stall_max: Gauge,
    pub(crate) checkpoint_bytes: IntGauge,
    pub(crate) checkpoint_bytes_total: IntCounter,
    pub(crate) checkpoint_age: Gauge,
    pub(crate) checkpoints_completed: IntCounter,
    pub(crate) checkpoints_failed: IntCounter,
    pub(crate) last_checkpoint: IntGauge,
    pub(crate) committables_pending: IntGauge,
    pub(crate) commit_duration: Histogram,
    pub(crate) end_to_end_latency: Histogram,
    pub(crate) restore_seconds: Gauge,
    pub(crate) restarts: Counter,
    pub(crate) uptime: Gauge,
}

/// Makes metrics and registers them. Names are constants and label sets are fixed, so neither can be
/// refused.
struct Maker {
    registry: Registry,
    job: String,
}

impl Maker {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("staunch_{name}"), help).const_label("job", &self.job)
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("metric names and labels are constants that are valid");
        self.registry
            .register(Box::new(collector.clone()))
            .expect("each metric is registered once in a registry of its own");
        collector
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(self.opts(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.opts(name, help), &["step", "worker"]))
    }

    fn float_gauges(&self, name: &str, help: &str) -> GaugeVec {
        self.register(GaugeVec::new(self.opts(name, help), &["step", "worker"]))
    }

    fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(self.opts(name, help)))
    }

    fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(self.opts(name, help)))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(self.opts(name, help)))
    }

    fn seconds(&self, name: &str, help: &str) -> Histogram {
        let opts = HistogramOpts {
            common_opts: self.opts(name, help),
            buckets: vec![
                0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
                10.0, 60.0,
            ],
        };
        self.register(Histogram::with_opts(opts))
    }
}

impl Metrics {
    /// Fresh metrics of a job.
    pub fn new(job: &str) -> Self {
        let make = Maker { registry: Registry::new(), job: job.to_owned() };
        let each: &[&str] = &["step", "worker"];
        Self {
            records_in: make.counters("records_in_total", "Records that a step took in", each),
            records_out: make.counters("records_out_total", "Records that a step put out", each),
            bytes_in: make.counters("bytes_in_total", "Bytes that a source read", each),
            late_records: make.counters(
                "late_records_total",
                "Records behind the watermark and its lateness",
                each,
            ),
            dead_letters: make.counters(
                "dead_letter_records_total",
                "Input that could not be understood, skipped or sent to the dead letters",
                each,
            ),
            watermark: make.float_gauges("watermark_seconds", "Watermark, in seconds since 1970"),
            watermark_lag: make.float_gauges("watermark_lag_seconds", "Time from the watermark to now"),
            shares: [
                make.float_gauges("idle_ratio", "Share of time in which a step had nothing to do"),
                make.float_gauges("busy_ratio", "Share of time in which a step worked"),
                make.float_gauges("backpressured_ratio", "Share of time in which a source was held back"),
            ],
            watches: Arc::default(),
            inflight: make.gauges("inflight_bytes", "Bytes that a source has in flight"),
            stash: make.gauges("alignment_stash_records", "Records put aside until the barrier"),
            stash_max: make
                .gauges("alignment_stash_max_records", "Most records that were put aside at a time"),
            state_keys: make.gauges("state_keys", "State entries in memory"),
            state_bytes: make.gauges("state_bytes", "State in memory, in bytes (estimated)"),
            cache_hit_ratio: make
                .float_gauges("state_cache_hit_ratio", "Share of state accesses found in memory"),
            rocksdb_keys: make.gauges("rocksdb_keys", "State entries in RocksDB (its estimate)"),
            connector: make.register(GaugeVec::new(
                make.opts("connector", "A figure of a connector's own"),
                &["step", "worker", "figure"],
            )),
            commits: make.counters("commits_total", "Commits, by result", &["sink", "result"]),
            records_published: make.counters(
                "records_published_total",
                "Records whose commit was confirmed",
                &["sink"],
            ),
            records_read: Arc::default(),
            checkpoint_duration: make
                .seconds("checkpoint_duration_seconds", "Barrier to decision of a checkpoint"),
            checkpoint_alignment: make
                .seconds("checkpoint_alignment_seconds", "Wait of a step for the barrier to pass"),
            checkpoint_stall: make.seconds(
                "checkpoint_stall_seconds",
                "Time in which a step cannot process because of a checkpoint",
            ),
            checkpoint_stall_max: make
                .gauge("checkpoint_stall_max_seconds", "Longest single stall of a step"),
            checkpoint_bytes: make
                .int_gauge("checkpoint_bytes", "Bytes written for the last checkpoint's state"),
            checkpoint_bytes_total: make
                .counter("checkpoint_bytes_total", "Bytes written for the state of all checkpoints"),
            checkpoint_age: make.gauge(
                "checkpoint_age_seconds",
                "Age of the oldest input that no complete checkpoint covers",
            ),
            checkpoints_completed: make.counter("checkpoints_completed_total", "Checkpoints decided"),
            checkpoints_failed: make.counter("checkpoints_failed_total", "Checkpoints abandoned"),
            last_checkpoint: make.int_gauge("last_checkpoint_id", "Newest decided checkpoint"),
            committables_pending: make
                .int_gauge("committables_pending", "Prepared output decided and not yet committed"),
            commit_duration: make.seconds("commit_duration_seconds", "Time that a commit takes"),
            end_to_end_latency: make.seconds(
                "end_to_end_latency_seconds",
                "Oldest record of an epoch read to the epoch's output committed",
            ),
            restore_seconds: make.gauge("restore_seconds", "Time that the last restore took"),
            restarts: make.register(Counter::with_opts(
                make.opts("restarts_total", "Times that the job was started again on its checkpoints"),
            )),
            uptime: make.gauge("uptime_seconds", "Time since this process started the job"),
            registry: make.registry,
        }
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// They cannot be encoded.
    pub fn render(&self) -> crate::Result<String> {
        self.look();
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(|e| crate::Error::internal("metrics cannot be encoded").caused_by(e))
    }

    /// How the job is doing now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let now = Timestamp::from(SystemTime::now());
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let lags = watches.values().filter_map(|watch| watch.lag_seconds(now));
        Progress {
            records_read: self.records_read.load(Relaxed),
            last_checkpoint: u32::try_from(self.last_checkpoint.get()).unwrap_or(0),
            checkpoint_age: self.checkpoint_age.get(),
            watermark_lag: lags.reduce(f64::max),
        }
    }

    /// Records that a step took in, on all workers.
    pub(crate) fn taken_in(&self, step: &str) -> u64 {
        self.sum(&self.records_in, |name| name == step)
    }

    /// Records of a sink whose commit was confirmed.
    pub(crate) fn published(&self, sink: &str) -> u64 {
        self.records_published.with_label_values(&[sink]).get()
    }

    /// Records that were late, and input that was not understood.
    pub(crate) fn left_out(&self) -> (u64, u64) {
        (self.sum(&self.late_records, |_| true), self.sum(&self.dead_letters, |_| true))
    }

    fn sum(&self, counters: &IntCounterVec, of: impl Fn(&str) -> bool) -> u64 {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = watches.keys().filter(|(step, _)| of(step));
        steps.map(|(step, worker)| counters.with_label_values(&[step.as_str(), worker]).get()).sum()
    }

    /// Works out what depends on when one asks.
    fn look(&self) {
        let now = Timestamp::from(SystemTime::now());
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for ((step, worker), watch) in watches.iter() {
            let labels: &[&str] = &[step, worker];
            if let Some(lag) = watch.lag_seconds(now) {
                self.watermark_lag.with_label_values(labels).set(lag);
            }
            for (gauge, share) in self.shares.iter().zip(watch.shares().into_iter().flatten()) {
                gauge.with_label_values(labels).set(share);
            }
        }
    }

    /// A figure of a connector's own.
    pub(crate) fn connector(&self, step: &str, instance: u32, figure: &str) -> Gauge {
        self.connector.with_label_values(&[step, &instance.to_string(), figure])
    }

    /// For a step that begins to run.
    pub(crate) fn step(&self, step: &str, worker: usize) -> StepMetrics {
        let worker = worker.to_string();
        let watch = Arc::new(Watch::new());
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.insert((step.to_owned(), worker.clone()), Arc::clone(&watch));
        drop(watches);
        let labels: &[&str] = &[step, &worker];
        StepMetrics {
            records_in: self.records_in.with_label_values(labels),
            records_out: self.records_out.with_label_values(labels),
            bytes_in: self.bytes_in.with_label_values(labels),
            late_records: self.late_records.with_label_values(labels),
            dead_letters: self.dead_letters.with_label_values(labels),
            watermark: self.watermark.with_label_values(labels),
            watch,
            inflight: self.inflight.with_label_values(labels),
            stash: Stash {
                records: self.stash.with_label_values(labels),
                max: self.stash_max.with_label_values(labels),
            },
            state_keys: self.state_keys.with_label_values(labels),
            state_bytes: self.state_bytes.with_label_values(labels),
            cache_hit_ratio: self.cache_hit_ratio.with_label_values(labels),
            rocksdb_keys: self.rocksdb_keys.with_label_values(labels),
        }
    }
}

/// How a job is doing, at a glance.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Records read by all sources; at most a second old while the job runs.
    pub records_read: u64,
    /// The newest checkpoint of this process; 0 before the first.
    pub last_checkpoint: u32,
    /// Seconds since the last decision, while there is input that no checkpoint covers; otherwise 0.
    pub checkpoint_age: f64,
    /// Seconds from the watermark that is furthest behind to now, with event time.
    pub watermark_lag: Option<f64>,
}

/// Metrics of one step on one worker; counted by batch.
#[derive(Clone, Debug)]
pub(crate) struct StepMetrics {
    pub(crate) records_in: IntCounter,
    pub(crate) records_out: IntCounter,
    pub(crate) bytes_in: IntCounter,
    pub(crate) late_records: IntCounter,
    pub(crate) dead_letters: IntCounter,
    watermark: Gauge,
    pub(crate) watch: Arc<Watch>,
    pub(crate) inflight: IntGauge,
    pub(crate) stash: Stash,
    pub(crate) state_keys: IntGauge,
    pub(crate) state_bytes: IntGauge,
    pub(crate) cache_hit_ratio: Gauge,
    pub(crate) rocksdb_keys: IntGauge,
}

impl StepMetrics {
    /// The step has applied this watermark.
    pub(crate) fn applied(&self, watermark: Timestamp) {
        self.watermark.set(watermark.as_millis() as f64 / 1e3);
        self.watch.applied(watermark);
    }
}

/// What a step has put aside because it belongs to a later epoch.
#[derive(Clone, Debug)]
pub(crate) struct Stash {
    pub(crate) records: IntGauge,
    pub(crate) max: IntGauge,
}

impl Stash {
    /// It is so many records now.
    pub(crate) fn holds(&self, records: usize) {
        let records = records as i64;
        self.records.set(records);
        if records > self.max.get() {
            self.max.set(records);
        }
    }
}
