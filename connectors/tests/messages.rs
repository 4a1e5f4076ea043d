//! Records that stand alone, as in messages: each format by its contract, without any transport.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use staunch_connectors::formats::{
    Bytes, Csv, Decoder, Destination, Encoder, Encoding, Format, Json, NotDecoded, Text, Undecodable,
};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    name: String,
    price: f64,
    note: Option<u32>,
}

fn order() -> impl Strategy<Value = Order> {
    let price = any::<f64>().prop_filter("JSON has no other numbers", |price| price.is_finite());
    let fields = (any::<u64>(), any::<String>(), price, any::<Option<u32>>());
    fields.prop_map(|(id, name, price, note)| Order { id, name, price, note })
}

fn encode<T>(format: &impl Encoding<T>, record: &T) -> staunch_core::Result<Vec<u8>> {
    let (mut encoder, mut out) = (format.encoder(&Destination::value("orders"))?, Vec::new());
    encoder.encode(record, &mut out).map(|()| out)
}

fn decode<F: Format>(format: &F, bytes: &[u8]) -> Result<Option<F::Record>, Undecodable> {
    format.decoder().unwrap().decode(bytes).map_err(NotDecoded::into_bad)
}

fn csv() -> Csv<Order> {
    Csv::new().columns(["id", "name", "price", "note"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_is_read(order in order(), bytes: Vec<u8>, text: String) {
        let read = decode(&Json::new(), &encode(&Json::new(), &order).unwrap()).unwrap();
        prop_assert_eq!(read, Some(order.clone()));
        for csv in [csv(), csv().delimiter(b';')] {
            let read = decode(&csv, &encode(&csv, &order).unwrap()).unwrap();
            prop_assert_eq!(read, Some(order.clone()));
        }
        prop_assert_eq!(decode(&Bytes, &encode(&Bytes, &bytes).unwrap()).unwrap(), Some(bytes));
        prop_assert_eq!(decode(&Text, &encode(&Text, &text).unwrap()).unwrap(), Some(text));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic(bytes: Vec<u8>) {
        let _ = (decode(&csv(), &bytes), decode(&Json::<Order>::new(), &bytes));
        prop_assert_eq!(decode(&Text, &bytes).is_ok(), std::str::from_utf8(&bytes).is_ok());
        prop_assert_eq!(decode(&Bytes, &bytes).unwrap(), Some(bytes));
    }
}

#[test]
fn what_is_wrong_says_where() {
    let bad = decode(&Text, b"ab\xffc").unwrap_err();
    assert_eq!(
        (bad.offset, bad.to_string()),
        (Some(2), "not UTF-8: bytes that begin no character, at byte 2".into())
    );
    assert!(decode(&Text, b"ab\xc3").unwrap_err().reason.contains("cut off"));
    let bad = decode(&Json::<Order>::new(), b"{\"id\":1,\n\"name\":2}").unwrap_err();
    assert_eq!(bad.offset, Some(16), "{bad}");
    assert!(bad.reason.contains("expected a string at line 2 column 8"), "{bad}");
    let bad = decode(&csv(), b"1,x,cheap,").unwrap_err();
    assert_eq!(bad.field.as_deref(), Some("price"));
    assert!(bad.reason.contains("column `price`") && bad.reason.contains("\"cheap\""), "{bad}");
    let letter = bad.letter("orders[3] offset 17", b"1,x,cheap,");
    assert_eq!((letter.place.as_str(), letter.raw.as_str()), ("orders[3] offset 17", "1,x,cheap,"));
    assert_eq!(letter.reason, bad.to_string());
}

#[test]
fn a_message_is_one_record_and_never_nothing() {
    for (bytes, why) in [
        (b"1,x,2,\n2,y,3,".as_slice(), "more than one record"),
        (b"1,\"x,2,", "a quote is not closed"),
        (b"1,x,2,\r3", "carriage return"),
        (b"1,x,2", "the number of fields is 3, but the list of columns has 4"),
        (b"", "the number of fields is 1"),
    ] {
        let bad = decode(&csv(), bytes).unwrap_err().to_string();
        assert!(bad.contains(why), "{bytes:?}: {bad}");
    }
    assert_eq!(decode(&csv(), b"1,\"a\nb\",2,\r\n").unwrap().unwrap().name, "a\nb");
    assert!(decode(&Json::<u32>::new(), b" ").unwrap_err().reason.contains("EOF"));
    let bad = Json::<u32>::new().decoder().unwrap().decode_deletion(Some(b"1")).unwrap_err().into_bad();
    assert!(bad.reason.contains("no value"), "{bad}");
}

#[test]
fn settings_that_do_not_suffice_for_messages_are_mistakes_of_the_job() {
    let without = Csv::<Order>::new().decoder().unwrap_err();
    assert!(without.to_string().contains(".columns("), "{without}");
    let twice = Csv::<Order>::new().columns(["a", "a"]).decoder().unwrap_err().to_string();
    assert!(twice.contains("column 1 and column 2 `a`"), "{twice}");
    for error in [
        csv().delimiter(b'"').decoder().unwrap_err(),
        encode(&csv().delimiter(b'\n'), &order_of(1)).unwrap_err(),
    ] {
        assert!(error.to_string().contains("delimiter"), "{error}");
        assert_eq!(error.kind(), staunch_core::error::Kind::Job);
    }
}

fn order_of(id: u64) -> Order {
    Order { id, name: "x".into(), price: 1.0, note: None }
}

#[test]
fn a_record_that_would_be_read_as_another_one_is_refused() {
    let refused = |error: staunch_core::Error| error.to_string();
    let nan = Order { price: f64::NAN, ..order_of(1) };
    assert!(refused(encode(&Json::new(), &nan).unwrap_err()).contains("null"));
    assert!(refused(encode(&Csv::new(), &(1, Some(""))).unwrap_err()).contains("looks like None"));
    let (mut encoder, mut out) =
        (Csv::<Vec<u32>>::new().encoder(&Destination::key("t")).unwrap(), Vec::new());
    encoder.encode(&vec![1, 2], &mut out).unwrap();
    assert_eq!(out, b"1,2");
    assert!(refused(encoder.encode(&vec![1, 2, 3], &mut out).unwrap_err()).contains("3 fields"));
}
