//! A schema of its own at the real server, a reader that is not the sink, and a proxy that cuts connections.
#![allow(dead_code, unreachable_pub)]

pub mod copy;
pub mod items;
pub mod job;
pub mod orders;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::SeqCst};
use std::thread;
use tokio_postgres::{Client, NoTls, Row};

pub fn run<R>(work: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Runs work with a connection of its own, on a thread of its own: also for callers that are in a runtime.
pub fn with<R: Send + 'static>(url: &str, work: impl AsyncFnOnce(Client) -> R + Send + 'static) -> R {
    let url = url.to_owned();
    let working = move || {
        run(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
            work(client).await
        })
    };
    thread::spawn(working).join().unwrap()
}

/// A schema that goes with the value.
pub struct Schema {
    pub url: String,
    pub name: String,
}

impl Schema {
    pub fn new(url: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t_{}_{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let schema = Self { url: url.to_owned(), name };
        schema.run(&format!("DROP SCHEMA IF EXISTS {0} CASCADE; CREATE SCHEMA {0}", schema.name));
        schema
    }

    pub fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    pub fn run(&self, sql: &str) {
        let sql = format!("SET search_path = {}; {sql}", self.name);
        with(&self.url, async move |client| client.batch_execute(&sql).await.unwrap());
    }

    pub fn rows(&self, sql: &str) -> Vec<Row> {
        let (path, sql) = (format!("SET search_path = {}", self.name), sql.to_owned());
        with(&self.url, async move |client| {
            client.batch_execute(&path).await.unwrap();
            client.query(&sql, &[]).await.unwrap()
        })
    }

    /// Names of the prepared transactions that have written to a table of the schema.
    pub fn prepared(&self) -> Vec<String> {
        let found = format!(
            "SELECT DISTINCT gid FROM pg_prepared_xacts
               JOIN pg_locks own ON own.locktype = 'transactionid' AND own.transactionid = transaction
               JOIN pg_locks held ON held.virtualtransaction = own.virtualtransaction AND held.pid IS NULL
               JOIN pg_class c ON c.oid = held.relation
              WHERE own.pid IS NULL AND relnamespace = '{}'::regnamespace ORDER BY gid",
            self.name
        );
        self.rows(&found).iter().map(|row| row.get(0)).collect()
    }

    /// Rolls back a prepared transaction.
    pub fn roll_back(&self, name: &str) {
        let sql = format!("ROLLBACK PREPARED '{}'", name.replace('\'', "''"));
        with(&self.url, async move |client| client.batch_execute(&sql).await.unwrap());
    }

    pub fn text(&self, sql: &str) -> String {
        self.rows(sql)[0].get::<_, Option<String>>(0).unwrap_or_default()
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // What is prepared holds locks, without anybody there.
        for name in self.prepared() {
            self.roll_back(&name);
        }
        // A test that failed may still hold locks.
        if !thread::panicking() {
            self.run(&format!("DROP SCHEMA {} CASCADE", self.name));
        }
    }
}

/// Passes connections on until it is told to cut them.
#[derive(Clone)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The next COMMIT reaches the server, its answer nobody.
    lose_commit: AtomicBool,
    /// Bytes of clients that still pass, if not negative: then the connection is cut.
    left: AtomicI64,
    cuts: AtomicU32,
}

impl Proxy {
    pub fn start(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = config.get_hosts()[0].clone() else {
            panic!("a server on TCP");
        };
        let server = (host, config.get_ports()[0]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { left: AtomicI64::new(-1), ..State::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(server.clone()) else { continue };
                let state = Arc::clone(&shared);
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let losing = Arc::new(AtomicBool::new(false));
                let lost = Arc::clone(&losing);
                let other = Arc::clone(&shared);
                thread::spawn(move || pass_on(from, to, &state, &losing));
                thread::spawn(move || pass_back(upstream, client, &other, &lost));
            }
        });
        Self { port, state }
    }

    /// The address of the server through here.
    pub fn url(&self, url: &str) -> String {
        let (before, rest) = url.split_once("://").unwrap();
        let (user, rest) = rest.split_once('@').unwrap();
        let after = rest.split_once('/').map_or(String::new(), |(_, after)| format!("/{after}"));
        format!("{before}://{user}@127.0.0.1:{}{after}", self.port)
    }

    pub fn lose_next_commit(&self) {
        self.state.lose_commit.store(true, SeqCst);
    }

    pub fn cut_after(&self, bytes: i64) {
        self.state.left.store(bytes, SeqCst);
    }

    pub fn cuts(&self) -> u32 {
        self.state.cuts.load(SeqCst)
    }
}

fn pass_on(mut client: TcpStream, mut server: TcpStream, state: &State, losing: &AtomicBool) {
    let mut buffer = [0; 64 << 10];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..read];
        let commits = |seven: &[u8]| seven == b"COMMIT\0" || seven == b"COMMIT ";
        if bytes.windows(7).any(commits) && state.lose_commit.swap(false, SeqCst) {
            losing.store(true, SeqCst);
        }
        let left = state.left.load(SeqCst);
        let passes = if left < 0 { read } else { read.min(usize::try_from(left).unwrap()) };
        if left >= 0 {
            state.left.store(left - i64::try_from(passes).unwrap(), SeqCst);
        }
        if server.write_all(&bytes[..passes]).is_err() {
            break;
        }
        if passes < read {
            state.left.store(-1, SeqCst);
            state.cuts.fetch_add(1, SeqCst);
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn pass_back(mut server: TcpStream, mut client: TcpStream, state: &State, losing: &AtomicBool) {
    let mut buffer = [0; 64 << 10];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        if losing.load(SeqCst) {
            state.cuts.fetch_add(1, SeqCst);
            break;
        }
        if client.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

/// A process with all its children that stand still until this is dropped.
pub struct Stalled(Vec<u32>);

impl Stalled {
    pub fn all_of(parent: u32) -> Self {
        signal(&[parent], "STOP");
        let mut all = vec![parent];
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let mut after = stat.rsplit_once(") ").map_or("", |(_, after)| after).split(' ');
            if after.nth(1).and_then(|of| of.parse().ok()) == Some(parent) {
                signal(&[pid], "STOP");
                all.push(pid);
            }
        }
        Self(all)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        signal(&self.0, "CONT");
    }
}

fn signal(processes: &[u32], name: &str) {
    let processes = processes.iter().map(u32::to_string);
    // One that ended meanwhile is no trouble.
    std::process::Command::new("kill").arg(format!("-{name}")).args(processes).status().unwrap();
}
