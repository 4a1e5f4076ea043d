//! Encrypted connections to the real server: whom the sink believes, and what it says of whom it does not believe.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch_core::error::Kind;
use staunch_core::sink::{CommitError, Committer, Sink, SinkContext};
use staunch_postgres::table;
use staunch_testing::conformance::sink::{Life, Row, rows};
use staunch_testing::servers;
use std::time::{Duration, Instant};
use support::orders::{SERVER, orders};
use support::{Schema, run};

const OTHER_AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/other-authority.pem");

/// Server, and the file of the authority that its certificate is from.
fn server() -> Option<(String, String)> {
    Some((servers::address(SERVER)?, servers::address("STAUNCH_POSTGRES_CA")?))
}

/// What a start says that connects to this address.
fn start(address: &str, table_name: &str) -> Result<(), staunch_core::Error> {
    run(async {
        let sink = table::<Row>(address, table_name);
        let mut committer = sink.committer(&SinkContext::alone("out")).await?;
        committer.recover(&[]).await.map(drop)
    })
}

/// Whether the newest session of a sink was encrypted, by the server's word.
fn encrypted(schema: &Schema) -> bool {
    let sql = format!(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
          WHERE application_name LIKE 'staunch %' AND strpos(query, '{}') > 0 ORDER BY backend_start DESC LIMIT 1",
        schema.name
    );
    schema.rows(&sql)[0].get(0)
}

#[test]
fn rows_go_over_tls_to_a_server_that_is_known_by_authority_and_name() {
    let Some((url, ca)) = server() else { return };
    run(async {
        for (options, expected) in [
            (format!("?sslmode=verify-full&sslrootcert={ca}"), true),
            (format!("?sslrootcert={ca}"), true),
            (format!("?sslmode=require&sslrootcert={ca}"), true),
            ("?sslmode=require".to_owned(), true),
            (String::new(), true),
            ("?sslmode=disable".to_owned(), false),
        ] {
            let mut target = orders(&url, &[]);
            target.options.clone_from(&options);
            let mut life = Life::new(target);
            let mut start = life.start(&[]).await.unwrap();
            assert_eq!(encrypted(&life.target.schema), expected, "{options}");
            start.write(rows(0..4)).await.unwrap();
            let listed = start.prepare(1).await.unwrap();
            start.commit(&listed).await.unwrap();
            assert_eq!(life.visible(), rows(0..4));
        }
    });
}

#[test]
fn a_server_of_another_authority_or_name_is_refused_and_the_error_says_what_to_give() {
    let Some((url, ca)) = server() else { return };
    let schema = Schema::new(&url);
    schema.run("CREATE TABLE rows (id bigint, name text)");
    let name = schema.table("rows");
    for mode in ["verify-ca", "verify-full", "require"] {
        let error = start(&format!("{url}?sslmode={mode}&sslrootcert={OTHER_AUTHORITY}"), &name).unwrap_err();
        assert_eq!(error.kind(), Kind::Job, "{error}");
        let said = error.to_string();
        assert!(said.contains("is not believed") && said.contains("sslrootcert"), "{said}");
    }
    // The same server under a name that is not in its certificate.
    let elsewhere = url.replace("127.0.0.1", "db.example") + "?hostaddr=127.0.0.1&sslrootcert=" + &ca;
    let error = start(&elsewhere, &name).unwrap_err();
    assert!(error.kind() == Kind::Job && error.to_string().contains("not valid for name"), "{error}");
    start(&format!("{elsewhere}&sslmode=verify-ca"), &name).unwrap();
    for missing in ["/nowhere/ca.pem", "/dev/null"] {
        let error = start(&format!("{url}?sslrootcert={missing}"), &name).unwrap_err();
        assert!(error.kind() == Kind::Job && error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn a_server_without_encryption_is_refused_where_the_address_requires_it() {
    let Some(own) = servers::Own::up("postgres") else { return };
    let (url, ca) = (own.address(SERVER), own.address("STAUNCH_POSTGRES_CA"));
    let schema = Schema::new(&url);
    schema.run("CREATE TABLE rows (id bigint, name text)");
    support::with(&url, async |client| {
        client.batch_execute("ALTER SYSTEM SET ssl = off").await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    });
    let limit = Instant::now() + Duration::from_secs(30);
    while schema.text("SELECT current_setting('ssl')") != "off" {
        assert!(Instant::now() < limit, "the server reads its configuration");
        std::thread::sleep(Duration::from_millis(10));
    }
    for options in ["sslmode=require".to_owned(), format!("sslrootcert={ca}")] {
        let error = start(&format!("{url}?{options}"), &schema.table("rows")).unwrap_err();
        assert_eq!(error.kind(), Kind::Job, "{error}");
        assert!(error.to_string().contains("offers no encryption"), "{error}");
    }
    start(&url, &schema.table("rows")).unwrap();
}

#[test]
fn an_encrypted_connection_that_is_cut_anywhere_is_made_anew_and_nothing_is_lost_or_doubled() {
    let Some((url, ca)) = server() else { return };
    run(async {
        let mut target = orders(&url, &[]);
        target.options = format!("?sslrootcert={ca}");
        let mut life = Life::new(target);
        let mut start = life.start(&[]).await.unwrap();
        let proxy = life.target.proxy.clone();
        let mut checkpoint = 0;
        for at in (0..2_400).step_by(83) {
            checkpoint += 1;
            start.write(rows(u64::from(checkpoint) * 4..u64::from(checkpoint) * 4 + 4)).await.unwrap();
            let listed = start.prepare(checkpoint).await.unwrap();
            // The second cut is in the handshake of the connection that follows.
            for at in [at, at] {
                proxy.cut_after(at);
                match start.commit(&listed).await {
                    Ok(()) | Err(CommitError::Retry(_)) => {}
                    Err(CommitError::Refused(error)) => panic!("cut after {at} bytes: {error}"),
                }
            }
            proxy.cut_after(-1);
            for _ in 0..100 {
                match start.commit(&listed).await {
                    Ok(()) => break,
                    Err(CommitError::Retry(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(CommitError::Refused(error)) => panic!("cut after {at} bytes: {error}"),
                }
            }
            assert_eq!(life.visible(), rows(4..u64::from(checkpoint) * 4 + 4), "cut after {at} bytes");
        }
        assert!(proxy.cuts() > 20, "{} cuts", proxy.cuts());
    });
}
