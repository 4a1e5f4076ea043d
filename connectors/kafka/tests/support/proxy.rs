//! A proxy in front of a broker that knows requests from one another, and loses those that it is told to lose.
//!
//! Brokers say where they are; the proxy puts itself in their place in what they say.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub const PRODUCE: i16 = 0;
pub const METADATA: i16 = 3;
pub const INIT_PRODUCER_ID: i16 = 22;
pub const ADD_PARTITIONS: i16 = 24;
pub const END_TXN: i16 = 26;

/// What happens to a request, and its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The broker does not get it.
    Lost,
    /// The broker gets it, the client hears nothing of that.
    AnswerLost,
    /// Both get it, after what [`Proxy::on_strike`] does.
    Passed,
    /// The broker gets it, later; the client hears nothing, and its connection breaks.
    Late,
}

type Then = Box<dyn FnOnce(&Proxy) + Send>;

#[derive(Default)]
struct Plan {
    /// The request to strike at: by its kind, or any; how many of them are let through before.
    strike: Option<(Option<i16>, usize, Fate)>,
    struck: usize,
    seen: usize,
    /// Nobody gets through.
    down: bool,
    /// Requests that the broker will get later.
    late: Vec<Vec<u8>>,
    delivered: usize,
    /// What is done when a request is struck at, before anything else happens to it.
    then: Option<Then>,
}

#[derive(Clone)]
pub struct Proxy {
    broker: String,
    port: u16,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    pub fn start(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { broker: broker.to_owned(), port, plan: Arc::default() };
        let this = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if this.plan.lock().unwrap().down {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&this.broker) else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let lost = Arc::new(Mutex::new(Vec::new()));
                let (there, back) = (this.clone(), this.clone());
                let heard = Arc::clone(&lost);
                thread::spawn(move || there.pass_on(from, to, &lost));
                thread::spawn(move || back.pass_back(server, client, &heard));
            }
        });
        proxy
    }

    /// Where clients find it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Strikes at a request of a kind, or at any, after so many others.
    pub fn strike(&self, kind: Option<i16>, after: usize, fate: Fate) {
        let mut plan = self.plan.lock().unwrap();
        plan.strike = Some((kind, after, fate));
    }

    /// What is done at the next strike; it may take its time.
    pub fn on_strike(&self, then: impl FnOnce(&Proxy) + Send + 'static) {
        self.plan.lock().unwrap().then = Some(Box::new(then));
    }

    pub fn heal(&self) {
        self.plan.lock().unwrap().strike = None;
    }

    /// Nobody gets through any more, or everybody does again.
    pub fn down(&self, down: bool) {
        self.plan.lock().unwrap().down = down;
    }

    /// Requests that were struck at.
    pub fn struck(&self) -> usize {
        self.plan.lock().unwrap().struck
    }

    /// Requests that were delivered late.
    pub fn delivered(&self) -> usize {
        self.plan.lock().unwrap().delivered
    }

    /// Requests that came, also of those that were passed on.
    pub fn seen(&self) -> usize {
        self.plan.lock().unwrap().seen
    }

    /// Gives the broker what comes late, and says what it answered: the bytes behind the length.
    pub fn deliver_late(&self) -> Vec<Vec<u8>> {
        let late = std::mem::take(&mut self.plan.lock().unwrap().late);
        let deliver = |frame: Vec<u8>| {
            let mut server = TcpStream::connect(&self.broker).unwrap();
            server.write_all(&frame).unwrap();
            read_frame(&mut server).unwrap()[4..].to_vec()
        };
        let answers: Vec<Vec<u8>> = late.into_iter().map(deliver).collect();
        self.plan.lock().unwrap().delivered += answers.len();
        answers
    }

    fn fate(&self, kind: i16) -> Option<Fate> {
        let mut plan = self.plan.lock().unwrap();
        plan.seen += 1;
        let (wanted, after, fate) = plan.strike?;
        if wanted.is_some_and(|wanted| wanted != kind) {
            return None;
        }
        if after > 0 {
            plan.strike = Some((wanted, after - 1, fate));
            return None;
        }
        plan.strike = None;
        plan.struck += 1;
        Some(fate)
    }

    fn pass_on(&self, mut client: TcpStream, mut server: TcpStream, lost: &Mutex<Vec<[u8; 4]>>) {
        while let Some(frame) = read_frame(&mut client) {
            let kind = i16::from_be_bytes([frame[4], frame[5]]);
            let id = [frame[8], frame[9], frame[10], frame[11]];
            let fate = self.fate(kind);
            if fate == Some(Fate::AnswerLost) {
                lost.lock().unwrap().push(id);
                // The broker is to have it, before whatever happens then.
                if server.write_all(&frame).is_err() {
                    break;
                }
            }
            let then = fate.and_then(|_| self.plan.lock().unwrap().then.take());
            if let Some(then) = then {
                then(self);
            }
            if self.plan.lock().unwrap().down {
                break;
            }
            match fate {
                None | Some(Fate::Passed) => {}
                Some(Fate::Lost) => break,
                Some(Fate::AnswerLost) => continue,
                Some(Fate::Late) => {
                    self.plan.lock().unwrap().late.push(frame);
                    break;
                }
            }
            if server.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }

    fn pass_back(&self, mut server: TcpStream, mut client: TcpStream, lost: &Mutex<Vec<[u8; 4]>>) {
        let port: u16 = self.broker.rsplit_once(':').unwrap().1.parse().unwrap();
        let name = |port: u16| [&b"127.0.0.1"[..], &u32::from(port).to_be_bytes()].concat();
        let (theirs, ours) = (name(port), name(self.port));
        while let Some(mut frame) = read_frame(&mut server) {
            if lost.lock().unwrap().iter().any(|id| *id == frame[4..8]) {
                break;
            }
            while let Some(at) = frame.windows(theirs.len()).position(|some| some == theirs) {
                frame[at..at + ours.len()].copy_from_slice(&ours);
            }
            if client.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }
}

/// A length, and so many bytes; with the length.
fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = length.to_vec();
    frame.resize(4 + usize::try_from(u32::from_be_bytes(length)).ok()?, 0);
    stream.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}
