//! Whatever bytes are found where a record of the log should be: no panic, no absurd allocation, and nothing
//! but what was written is believed.

mod mutate;

use mutate::{Watched, fuzz};
use staunch_checkpoint::{
    CheckpointId, Committable, Fence, FileKind, FileRef, Generation, Guarantee, Kind, Manifest, Record,
    SegmentRef, Shard, SinkPart, Slot, SourcePart, SplitPart, StatePart, Turn, parse_slot, slot_name,
};

#[global_allocator]
static WATCHED: Watched = Watched;

const SLOT: Slot = Slot(42);

fn manifest(kind: Kind) -> Manifest {
    let file = |n: u64, kind| FileRef { name: format!("state/{n}"), kind, offset: n, bytes: n, crc32c: 7 };
    let files = vec![file(1, FileKind::Base), file(2, FileKind::Delta), file(3, FileKind::Spill)];
    let committable = |checkpoint, instance| Committable {
        checkpoint: CheckpointId(checkpoint),
        instance,
        generation: Generation(3),
        records: 17,
        payload: serde_json::json!({ "chunks": [{ "name": "staged/out/1", "bytes": 3 }], "why": null }),
    };
    Manifest {
        format: 2,
        job: "job".into(),
        lineage: "one".into(),
        checkpoint: CheckpointId(7),
        generation: Generation(3),
        kind,
        taken_at_ms: 1_700_000_000_000,
        groups: 128,
        workers: 2,
        sources: [(
            "in".to_owned(),
            SourcePart {
                splits: vec![SplitPart {
                    id: "a".into(),
                    split: serde_json::json!({ "path": "a" }),
                    position: Some(serde_json::json!({ "offset": 12, "head": 1 })),
                    finished: false,
                    max_event_time_ms: Some(-5),
                }],
                forgotten: vec!["b".into()],
                segments: vec![SegmentRef {
                    name: "splits/in/6-g3".into(),
                    bytes: 300,
                    crc32c: 7,
                    splits: 2,
                }],
                max_event_time_ms: Some(40),
            },
        )]
        .into(),
        states: [(
            "counts".to_owned(),
            StatePart {
                operator: "window count".into(),
                parameters: [("window".into(), "1m".into())].into(),
                shards: vec![Shard { worker: 1, watermark_ms: Some(5), files }],
                ..StatePart::of("u64 -> u64")
            },
        )]
        .into(),
        sinks: [("out".to_owned(), SinkPart { pending: vec![committable(6, 0), committable(7, 1)] })].into(),
        guarantee: Guarantee::ExactlyOnce,
        expires: Vec::new(),
    }
}

fn records() -> Vec<Record> {
    let fence = Fence {
        format: 2,
        job: "job".into(),
        lineage: "one".into(),
        generation: Generation(3),
        next_checkpoint: CheckpointId(7),
        restored: Some(Slot(4)),
        turns: vec![Turn {
            fence: Slot(3),
            restored: Some(Slot(1)),
            lineage: "one".into(),
            next_checkpoint: CheckpointId(2),
            published: vec![Slot(2)],
        }],
        holder: "process 1 on host".into(),
        at_ms: 1,
    };
    let kinds = [Kind::Periodic, Kind::Savepoint { name: "s".into() }, Kind::Stop, Kind::Final];
    let mut records: Vec<Record> = kinds.map(|kind| Record::Checkpoint(Box::new(manifest(kind)))).into();
    records.push(Record::Fence(fence));
    records
}

#[test]
fn a_mutated_record_is_refused_or_is_the_record() {
    let records = records();
    let corpus: Vec<Vec<u8>> = records.iter().map(|record| record.encode(SLOT)).collect();
    let name = slot_name(SLOT);
    fuzz("records of the log", &corpus, |_, input| {
        match Record::decode(&name, input) {
            // Two mutations may cancel out, or one whole record may follow nothing of another.
            Ok(record) => assert!(records.contains(&record), "believed: {record:?}"),
            Err(error) => assert!(error.to_string().starts_with(&name), "{error}"),
        }
    });
}

/// Behind the checksum: a body that somebody else wrote, with everything about it in order.
#[test]
fn a_mutated_body_under_a_right_checksum_is_refused_or_reads_back_as_it_is_written() {
    let bodies: Vec<Vec<u8>> = records()
        .iter()
        .map(|record| {
            let bytes = record.encode(SLOT);
            let line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            bytes[line..].to_vec()
        })
        .collect();
    let name = slot_name(SLOT);
    fuzz("bodies of records", &bodies, |_, body| {
        let crc = crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), body);
        let mut bytes = format!("staunch-log 2 {crc:08x} {}\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        if let Ok(record) = Record::decode(&name, &bytes) {
            // JSON numbers with fractions are not written by any connector, and need not survive.
            let fractions = body.windows(3).any(|w| matches!(w, [b'0'..=b'9', b'.' | b'e' | b'E', _]));
            let again = Record::decode(&name, &record.encode(SLOT));
            assert!(fractions || again.as_ref() == Ok(&record), "{again:?}");
        }
    });
}

#[test]
fn a_mutated_name_is_a_slot_only_if_the_slot_has_that_name() {
    let corpus: Vec<Vec<u8>> = [0, 1, 42, u64::MAX].map(|slot| slot_name(Slot(slot)).into_bytes()).to_vec();
    fuzz("names of slots", &corpus, |_, input| {
        let Ok(name) = std::str::from_utf8(input) else { return };
        if let Some(slot) = parse_slot(name) {
            assert_eq!(slot_name(slot), name);
        }
    });
}
