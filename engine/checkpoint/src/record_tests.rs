use super::*;
use crate::testing::{at, fence, manifest, with_files};
use proptest::prelude::*;

fn records() -> [Record; 2] {
    let checkpoint = with_files(manifest(7, 3, &[5, 6]), &["state/a", "state/b"]);
    [at(1, checkpoint).1, at(1, fence(3, 7, Some(4))).1]
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    for record in records() {
        assert_eq!(Record::decode(&slot_name(Slot(77)), &record.encode(Slot(77))).unwrap(), record);
    }
}

#[test]
fn a_record_is_readable_by_people() {
    let text = String::from_utf8(records()[1].encode(Slot(77))).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("staunch-log 2 "));
    assert!(text.contains("\"generation\": 3"), "{text}");
}

/// Fixture of format 1: a released version's files are read for ever.
#[test]
fn a_record_of_format_1_is_read() {
    let body = "{\"fence\":{\"format\":1,\"job\":\"job\",\"lineage\":\"one\",\"generation\":3,\"next_checkpoint\":7,\
                \"restored\":4,\"holder\":\"host/1\",\"at_ms\":1}}";
    let text = format!("staunch-log 1 {:08x} {}\n{body}", crc32c::crc32c(body.as_bytes()), body.len());
    let Record::Fence(fence) = records()[1].clone() else { unreachable!("the second is a fence") };
    let expected = Record::Fence(Fence { format: 1, ..fence });
    assert_eq!(Record::decode("log/1", text.as_bytes()).unwrap(), expected);
}

/// Fixture of format 2.
#[test]
fn a_record_of_format_2_is_read() {
    let body = "{\"fence\":{\"format\":2,\"job\":\"job\",\"lineage\":\"one\",\"generation\":3,\"next_checkpoint\":7,\
                \"restored\":4,\"holder\":\"host/1\",\"at_ms\":1}}";
    let text = format!("staunch-log 2 6e59b20b {}\n{body}", body.len());
    let Record::Fence(fence) = records()[1].clone() else { unreachable!("the second is a fence") };
    let expected = Record::Fence(Fence { format: 2, ..fence });
    assert_eq!(Record::decode("log/00000000000000000009", text.as_bytes()).unwrap(), expected);
}

/// Fixture of fences of format 3, which know of turns.
#[test]
fn a_fence_of_format_3_is_read() {
    let body = "{\"fence\":{\"format\":3,\"job\":\"job\",\"lineage\":\"one\",\"generation\":3,\"next_checkpoint\":7,\
                \"restored\":4,\"turns\":[{\"fence\":5,\"restored\":null,\"lineage\":\"two\",\"next_checkpoint\":6,\
                \"published\":[2,4]}],\"holder\":\"host/1\",\"at_ms\":1}}";
    let text = format!("staunch-log 2 a9c0f554 {}\n{body}", body.len());
    let turn = Turn {
        fence: Slot(5),
        restored: None,
        lineage: "two".into(),
        next_checkpoint: CheckpointId(6),
        published: vec![Slot(2), Slot(4)],
    };
    let Record::Fence(fence) = records()[1].clone() else { unreachable!("the second is a fence") };
    let expected = Record::Fence(Fence { turns: vec![turn], ..fence });
    assert_eq!(Record::decode("log/00000000000000000009", text.as_bytes()).unwrap(), expected);
}

#[test]
fn every_flipped_bit_is_an_error_that_names_the_record() {
    for record in records() {
        let bytes = record.encode(Slot(77));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = Record::decode(&slot_name(Slot(77)), &damaged).expect_err("a flipped bit");
            assert!(error.to_string().starts_with("log/00000000000000000077: "), "{error}");
        }
    }
}

#[test]
fn every_truncation_is_an_error_that_names_the_record() {
    for record in records() {
        let bytes = record.encode(Slot(77));
        for length in 0..bytes.len() {
            let error = Record::decode(&slot_name(Slot(77)), &bytes[..length]).expect_err("cut off");
            assert!(error.to_string().starts_with("log/00000000000000000077: "), "{error}");
        }
    }
}

#[test]
fn a_record_in_the_place_of_another_is_refused() {
    for record in records() {
        let error = Record::decode(&slot_name(Slot(78)), &record.encode(Slot(77))).unwrap_err();
        assert!(matches!(error, RecordError::Checksum { .. }), "{error}");
        assert!(error.to_string().contains("another record in its place"), "{error}");
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    for extra in [&b"\n"[..], b" ", b"\0", b"staunch-log"] {
        let mut bytes = records()[0].encode(Slot(77));
        bytes.extend_from_slice(extra);
        assert!(matches!(Record::decode("r", &bytes), Err(RecordError::Length { .. })));
    }
}

#[test]
fn an_empty_record_is_an_error_of_its_own() {
    assert_eq!(Record::decode("r", b""), Err(RecordError::Empty { name: "r".into() }));
}

#[test]
fn newer_formats_ask_for_a_newer_version() {
    let newer = RecordError::Newer { name: "r".into(), found: 3, known: 2 };
    assert_eq!(
        Record::decode("r", b"staunch-log 3 whatever it is\n"),
        Err(RecordError::Header { name: "r".into(), reason: "its first line has not four words".into() })
    );
    assert_eq!(Record::decode("r", b"staunch-log 3 sha256:00 17\n"), Err(newer));
    let name = slot_name(Slot(77));
    let inner = crate::Manifest { format: 3, ..manifest(1, 1, &[]) };
    let newer = RecordError::Newer { name: name.clone(), found: 3, known: 2 };
    assert_eq!(Record::decode(&name, &at(1, inner).1.encode(Slot(77))), Err(newer));
    let inner = Fence { format: FENCE_FORMAT + 1, ..fence(1, 1, None) };
    let newer = RecordError::Newer { name: name.clone(), found: FENCE_FORMAT + 1, known: FENCE_FORMAT };
    assert_eq!(Record::decode(&name, &at(1, inner).1.encode(Slot(77))), Err(newer));
}

#[test]
fn a_checkpoint_of_an_older_format_is_refused_by_name_whatever_its_shape() {
    let name = slot_name(Slot(77));
    let older = RecordError::Older { name: name.clone(), found: 1, known: 2 };
    let inner = crate::Manifest { format: 1, ..manifest(1, 1, &[]) };
    assert_eq!(Record::decode(&name, &at(1, inner).1.encode(Slot(77))), Err(older.clone()));
    let body = br#"{"checkpoint":{"format":1,"something":"else"}}"#;
    let mut bytes = header(2, checksum(2, &name, body), body.len() as u64).into_bytes();
    bytes.extend_from_slice(body);
    assert_eq!(Record::decode(&name, &bytes), Err(older));
}

#[test]
fn a_checksum_or_length_spelt_otherwise_is_refused() {
    let text = String::from_utf8(records()[1].encode(Slot(77))).unwrap();
    let (line, body) = text.split_once('\n').unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let (crc, length) = (words[2], words[3]);
    for line in [
        format!("staunch-log 2 {} {length}", crc.to_uppercase() + "0"),
        format!("staunch-log 2 +{crc} {length}"),
        format!("staunch-log 2 {crc} +{length}"),
        format!("staunch-log 2 {crc} 0{length}"),
        format!("staunch-log +2 {crc} {length}"),
        format!("staunch-log 2  {crc} {length}"),
        format!("staunch-log 0 {crc} {length}"),
    ] {
        let error = Record::decode("r", format!("{line}\n{body}").as_bytes());
        assert!(matches!(error, Err(RecordError::Header { .. })), "{line}");
    }
}

#[test]
fn slots_and_their_names_are_one_to_one_and_sort_alike() {
    assert_eq!(slot_name(Slot(42)), "log/00000000000000000042");
    assert_eq!(parse_slot(&slot_name(Slot(u64::MAX))), Some(Slot(u64::MAX)));
    for name in ["log/42", "log/+0000000000000000042", "log/000000000000000000042", "42", "log/", "state/a"] {
        assert_eq!(parse_slot(name), None, "{name}");
    }
    assert_eq!(parse_slot("log/99999999999999999999"), None, "above the largest slot");
}

proptest! {
    #[test]
    fn slot_names_sort_as_slots_do(a: u64, b: u64) {
        prop_assert_eq!(slot_name(Slot(a)).cmp(&slot_name(Slot(b))), a.cmp(&b));
        prop_assert_eq!(parse_slot(&slot_name(Slot(a))), Some(Slot(a)));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes: Vec<u8>, behind_a_header: bool) {
        let mut input = if behind_a_header { b"staunch-log 2 ".to_vec() } else { Vec::new() };
        input.extend(bytes);
        prop_assert!(Record::decode("r", &input).is_err());
    }
}
