//! Schema registries. What a registry may answer comes from a fake here, which says so in its name; the last test talks to a
//! real one, and says if there is none.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::run;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use staunch_connectors::formats::{
    Avro, Decoder, Destination, Encoder, Encoding, Format, NotDecoded, Registry,
};
use staunch_core::error::Kind;
use staunch_testing::servers;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Order {
    id: i64,
}

fn schema(fields: Value) -> String {
    json!({"type": "record", "name": "Order", "fields": fields}).to_string()
}

fn id_only() -> String {
    schema(json!([{"name": "id", "type": "long"}]))
}

/// No registry: answers each request as a function says, and writes down what it was asked.
struct FakeRegistry {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeRegistry {
    fn new(answer: impl Fn(&str, usize) -> (u16, Value) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut first, mut length, mut authorization) = (String::new(), 0, String::new());
                reader.read_line(&mut first).unwrap();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let line = line.trim_end().to_ascii_lowercase();
                    length =
                        line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
                    if line.starts_with("authorization") {
                        authorization = format!(" {line}");
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let what = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
                log.lock()
                    .unwrap()
                    .push(format!("{what}{authorization} {}", String::from_utf8(body).unwrap()));
                let (status, answer) = answer(&what, number);
                let answer = answer.to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    answer.len()
                );
                // A client that has given up is no failure of the fake.
                let _ = stream.write_all(format!("{head}{answer}").as_bytes());
            }
        });
        Self { url, asked }
    }

    fn registry(&self) -> Registry {
        Registry::at(&self.url).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn framed(id: u32, record: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], record].concat()
}

/// Decodes as a transport does: what is lacking is fetched, and asked for again.
async fn decode<D: Decoder>(decoder: &mut D, bytes: &[u8]) -> Result<Option<D::Record>, String> {
    match decoder.decode(bytes) {
        Err(NotDecoded::Lacks) => decoder.fetch().await.map_err(|e| e.to_string())?,
        other => return other.map_err(|e| e.into_bad().to_string()),
    }
    decoder.decode(bytes).map_err(|e| e.into_bad().to_string())
}

#[test]
fn a_schema_is_asked_for_once_and_its_number_is_before_each_record() {
    let fake = FakeRegistry::new(|_, _| (200, json!({"schema": id_only()})));
    let registry = fake.registry();
    run(async {
        let mut decoder = Avro::<Order>::registered(&registry).decoder().unwrap();
        for id in [1, -1] {
            let bytes = framed(300, &[if id == 1 { 2 } else { 1 }]);
            assert_eq!(decode(&mut decoder, &bytes).await, Ok(Some(Order { id })));
        }
        let mut another = Avro::<Order>::registered(&registry).decoder().unwrap();
        assert_eq!(decode(&mut another, &framed(300, &[2])).await, Ok(Some(Order { id: 1 })));
    });
    assert_eq!(fake.asked(), ["GET /schemas/ids/300 "]);
}

#[test]
fn a_message_without_a_schemas_number_or_with_one_that_nobody_knows_is_bad_input() {
    let fake = FakeRegistry::new(|what, _| match what {
        "GET /schemas/ids/1" => (404, json!({"error_code": 40403, "message": "Schema not found"})),
        "GET /schemas/ids/2" => (200, json!({"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"})),
        "GET /schemas/ids/3" => (200, json!({"schema": "{\"type\":\"nothing\"}"})),
        _ => (200, json!({"schema": schema(json!([{"name": "name", "type": "string"}]))})),
    });
    run(async {
        let mut decoder = Avro::<Order>::registered(&fake.registry()).schema(id_only()).decoder().unwrap();
        for (bytes, why) in [
            (framed(1, &[]), "does not have it"),
            (framed(2, &[]), "of type PROTOBUF"),
            (framed(3, &[]), "schema 3"),
            (framed(4, &[0]), "field `id`: it was not written, and has no default"),
            (vec![0, 0, 0], "3 bytes"),
            (vec![], "0 bytes"),
            (b"{\"id\":1}".to_vec(), "the first byte is 123"),
        ] {
            let bad = decode(&mut decoder, &bytes).await.unwrap_err();
            assert!(bad.contains(why), "{bytes:?}: {bad}");
        }
    });
}

#[test]
fn schemas_that_refer_to_others_are_put_together() {
    let fake = FakeRegistry::new(|what, _| match what {
        "GET /schemas/ids/7" => {
            let reference = json!([{"name": "Money", "subject": "a/b money", "version": 2}]);
            (
                200,
                json!({"schema": schema(json!([{"name": "id", "type": "Money"}])), "references": reference}),
            )
        }
        "GET /subjects/a%2Fb%20money/versions/2" => {
            let money =
                json!({"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"}]});
            (200, json!({"subject": "money", "version": 2, "id": 6, "schema": money.to_string()}))
        }
        what => panic!("{what}"),
    });
    run(async {
        let mut decoder = Avro::<Value>::registered(&fake.registry()).decoder().unwrap();
        assert_eq!(decode(&mut decoder, &framed(7, &[10])).await, Ok(Some(json!({"id": {"cents": 5}}))));
    });
}

#[test]
fn a_writer_asks_for_the_number_of_its_schema_or_registers_it() {
    let fake = FakeRegistry::new(|_, _| (200, json!({"id": 42})));
    let format = Avro::<Order>::registered(&fake.registry()).schema(id_only());
    run(async {
        for format in [format.clone(), format.register(true)] {
            let mut encoder = format.encoder(&Destination::value("orders")).unwrap();
            let mut out = Vec::new();
            assert!(encoder.encode(&Order { id: 1 }, &mut out).is_err(), "nobody has asked for the number");
            Encoder::<Order>::open(&mut encoder).await.unwrap();
            encoder.encode(&Order { id: 1 }, &mut out).unwrap();
            assert_eq!(out, framed(42, &[2]));
        }
    });
    let body = json!({"schema": id_only()});
    let paths = ["POST /subjects/orders-value", "POST /subjects/orders-value/versions"];
    assert_eq!(fake.asked(), paths.map(|path| format!("{path} {body}")));
}

#[test]
fn what_a_registry_refuses_is_a_mistake_of_the_job_and_says_what_to_do() {
    for (status, code, why) in [
        (401, 401, "user:password@"),
        (403, 403, "may not"),
        (404, 40401, "no such subject"),
        (404, 40403, "register it first"),
        (409, 409, "not compatible"),
        (422, 42201, "not valid"),
    ] {
        let fake =
            FakeRegistry::new(move |_, _| (status, json!({"error_code": code, "message": "its own words"})));
        let error =
            run(async { fake.registry().register("orders-value", "AVRO", &id_only()).await }).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(why) && text.contains("its own words") && text.contains("orders-value"),
            "{text}"
        );
        assert_eq!((error.kind(), fake.asked().len()), (Kind::Job, 1), "{text}");
    }
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let fake = FakeRegistry::new(|_, number| match number {
        0 => (503, json!({"error_code": 503, "message": "starting"})),
        1 => (429, json!({})),
        _ => (200, json!({"schema": id_only()})),
    });
    let found = run(async { fake.registry().schema(1).await }).unwrap();
    assert_eq!((found.unwrap().text.clone(), fake.asked().len()), (id_only(), 3));
}

#[test]
fn a_password_is_sent_and_never_shown() {
    let fake = FakeRegistry::new(|_, _| (200, json!({"id": 1})));
    let url = fake.url.replace("http://", "http://me:secret@");
    let registry = Registry::at(&url).unwrap();
    run(async { registry.lookup("s", "AVRO", "\"int\"").await }).unwrap();
    assert!(fake.asked()[0].contains("authorization: basic bwu6c2vjcmv0"), "{:?}", fake.asked());
    assert!(!format!("{registry} {registry:?}").contains("secret"));
    for wrong in ["https://host", "host:8081", "http://a b"] {
        assert_eq!(Registry::at(wrong).unwrap_err().kind(), Kind::Job, "{wrong}");
    }
}

#[test]
fn a_real_registry_takes_schemas_that_are_compatible_and_refuses_others() {
    let Some(url) = servers::address("STAUNCH_REGISTRY") else { return };
    let (registry, topic) = (Registry::at(url).unwrap(), format!("orders-{}", std::process::id()));
    let format = Avro::<Order>::registered(&registry).schema(id_only()).register(true);
    run(async {
        let mut early = Avro::<Order>::registered(&registry)
            .schema(id_only())
            .encoder(&Destination::value(&topic))
            .unwrap();
        let absent = Encoder::<Order>::open(&mut early).await.unwrap_err().to_string();
        assert!(absent.contains("404"), "{absent}");
        let mut encoder = format.encoder(&Destination::value(&topic)).unwrap();
        Encoder::<Order>::open(&mut encoder).await.unwrap();
        Encoder::<Order>::open(&mut early).await.unwrap();
        let mut bytes = Vec::new();
        encoder.encode(&Order { id: 5 }, &mut bytes).unwrap();
        let more = schema(
            json!([{"name": "id", "type": "long"}, {"name": "note", "type": "string", "default": "-"}]),
        );
        let mut decoder = Avro::<Value>::registered(&registry).schema(more).decoder().unwrap();
        assert_eq!(decode(&mut decoder, &bytes).await, Ok(Some(json!({"id": 5, "note": "-"}))));
        let unknown = decode(&mut decoder, &framed(99_999_999, &[])).await.unwrap_err();
        assert!(unknown.contains("does not have it"), "{unknown}");
        let invalid =
            registry.register(&format!("{topic}-value"), "AVRO", "{\"type\":\"nothing\"}").await.unwrap_err();
        assert_eq!(invalid.kind(), Kind::Job, "{invalid}");
    });
}
