//! Whatever comes in place of a message of the log: an error, or a message whose places are inside of it. Never a panic, and
//! never an absurd allocation.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../../../engine/checkpoint/tests/fuzz/mutate.rs"]
mod mutate;

use mutate::{Watched, fuzz};
use staunch_postgres::source::Lsn;
use staunch_postgres::source::pgoutput::{Cell, Message, Tuple, decode};

#[global_allocator]
static WATCHED: Watched = Watched;

/// Appends text and its end.
fn name(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

fn row(bytes: &mut Vec<u8>, cells: &[Option<&str>]) {
    bytes.extend_from_slice(&(cells.len() as i16).to_be_bytes());
    for cell in cells {
        match cell {
            None => bytes.push(b'n'),
            Some("unchanged") => bytes.push(b'u'),
            Some(text) => {
                bytes.push(b't');
                bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
}

fn begin() -> Vec<u8> {
    let mut bytes = b"B".to_vec();
    bytes.extend_from_slice(&0x16_0000_0010_u64.to_be_bytes());
    bytes.extend_from_slice(&7_i64.to_be_bytes());
    bytes.extend_from_slice(&42_u32.to_be_bytes());
    bytes
}

fn relation() -> Vec<u8> {
    let mut bytes = b"R\0\0\x40\x01".to_vec();
    name(&mut bytes, "public");
    name(&mut bytes, "items");
    bytes.extend_from_slice(b"d\0\x02");
    for (key, column, oid) in [(1, "id", 20_u32), (0, "note", 25)] {
        bytes.push(key);
        name(&mut bytes, column);
        bytes.extend_from_slice(&oid.to_be_bytes());
        bytes.extend_from_slice(&(-1_i32).to_be_bytes());
    }
    bytes
}

fn changed(kind: &[u8], rows: &[(u8, &[Option<&str>])]) -> Vec<u8> {
    let mut bytes = kind.to_vec();
    bytes.extend_from_slice(b"\0\0\x40\x01");
    for (what, cells) in rows {
        bytes.push(*what);
        row(&mut bytes, cells);
    }
    bytes
}

fn corpus() -> Vec<Vec<u8>> {
    let commit =
        [b"C\0".as_slice(), &1_u64.to_be_bytes(), &2_u64.to_be_bytes(), &3_u64.to_be_bytes()].concat();
    vec![
        begin(),
        commit,
        relation(),
        changed(b"I", &[(b'N', &[Some("1"), Some("é")])]),
        changed(b"U", &[(b'K', &[Some("1"), None]), (b'N', &[Some("2"), Some("unchanged")])]),
        changed(b"U", &[(b'N', &[Some("2"), Some("unchanged")])]),
        changed(b"D", &[(b'O', &[Some("1"), Some("b")])]),
        b"T\0\0\0\x01\0\0\0\x40\x01".to_vec(),
        b"Y\0\0\0\x01".to_vec(),
    ]
}

fn is_inside(tuple: &Tuple) {
    for cell in &tuple.cells {
        if let Cell::Text(from, to) = cell {
            std::str::from_utf8(&tuple.bytes[*from as usize..*to as usize]).unwrap();
        }
    }
}

#[test]
fn messages_are_read_as_they_were_written() {
    let read = |bytes: Vec<u8>| decode(bytes.into()).unwrap();
    let (commit, end) = (Lsn(0x16_0000_0010), Lsn(2));
    assert_eq!(read(begin()), Message::Begin { commit, time: 7, transaction: 42 });
    assert_eq!(read(corpus().swap_remove(1)), Message::Commit { commit: Lsn(1), end });
    let Message::Relation { id: 0x4001, schema, name, columns } = read(relation()) else {
        panic!("a relation")
    };
    assert_eq!((schema.as_str(), name.as_str()), ("public", "items"));
    let columns: Vec<_> =
        columns.iter().map(|column| (column.key, column.name.as_str(), column.oid)).collect();
    assert_eq!(columns, [(true, "id", 20), (false, "note", 25)]);
    let Message::Update { old: Some(old), new, .. } = read(corpus().swap_remove(4)) else {
        panic!("an update")
    };
    assert!(!old.whole && old.tuple.cells[1] == Cell::Null);
    assert_eq!(new.cells[1], Cell::Unchanged);
    assert_eq!(read(corpus().swap_remove(7)), Message::Truncate { ids: vec![0x4001] });
    assert_eq!(read(corpus().swap_remove(8)), Message::Other);
}

#[test]
fn a_message_that_is_cut_anywhere_is_an_error_and_one_that_is_too_long_as_well() {
    for message in corpus().into_iter().take(8) {
        for length in 0..message.len() {
            assert!(decode(message[..length].to_vec().into()).is_err(), "{length} of {message:?}");
        }
        assert!(decode([message, vec![0]].concat().into()).is_err());
    }
}

#[test]
fn whatever_comes_is_an_error_or_a_message_whose_places_are_inside_of_it() {
    let (mut good, mut bad) = (0_u32, 0_u32);
    fuzz("pgoutput", &corpus(), |_, input| match decode(input.to_vec().into()) {
        Err(why) => {
            bad += 1;
            assert!(!why.0.is_empty());
        }
        Ok(message) => {
            good += 1;
            match message {
                Message::Insert { new, .. } | Message::Update { old: None, new, .. } => is_inside(&new),
                Message::Update { old: Some(old), new, .. } => {
                    is_inside(&old.tuple);
                    is_inside(&new);
                }
                Message::Delete { old, .. } => is_inside(&old.tuple),
                _ => {}
            }
        }
    });
    assert!(good > bad / 50 && bad > good / 50, "{good} messages, {bad} errors");
}
