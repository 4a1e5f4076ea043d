//! A connection of our own: the client of the workspace does not speak the protocol of replication.
//!
//! Promises that reading may be given up at any moment without losing anything, and that no length is believed beyond a
//! limit. Knows nothing of slots: statements go out, rows and streams of bytes come in.

use crate::address::Address;
use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::{self, sasl};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::{backend, frontend};
use staunch_core::Error;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

/// Longest message that is taken: more than the server can have in a row.
const MOST_MESSAGE: usize = 1_100 << 20;
/// Bytes that are read at a time.
const READ: usize = 64 << 10;
/// Rows of the answer to one question.
const MOST_ROWS: usize = 1 << 20;
/// How every session writes values: the same whatever the server, the database and the user have set.
const OPTIONS: &str = "-c datestyle=ISO -c intervalstyle=iso_8601 -c timezone=UTC -c extra_float_digits=3 -c bytea_output=hex \
                       -c search_path=pg_catalog -c row_security=off -c statement_timeout=0 -c lock_timeout=0 \
                       -c idle_in_transaction_session_timeout=0";

/// Why something could not be done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection is not there, or not any more.
    Link(String),
    /// The server says no.
    Server { code: String, text: String },
    /// What it means is known already.
    Known(Error),
}

impl Trouble {
    /// Whether it may be over soon without anybody doing anything about it.
    pub fn passes(&self) -> bool {
        match self {
            Self::Link(_) => true,
            Self::Server { code, .. } => {
                let class = code.get(..2).unwrap_or_default();
                // Shutting down, starting, too many connections, out of memory, in use, deadlock, no longer a primary.
                matches!(class, "57" | "08" | "53" | "40" | "58")
                    || matches!(code.as_str(), "55006" | "55P03" | "25006")
            }
            Self::Known(error) => error.kind() == staunch_core::error::Kind::External,
        }
    }

    /// The error that it is, with what was being done.
    pub fn into_error(self, what: impl Into<String>) -> Error {
        let passes = self.passes();
        let text = match self {
            Self::Known(error) => return error,
            Self::Link(text) => text,
            Self::Server { code, text } => format!("{text} ({code})"),
        };
        let error = if passes { Error::external(what) } else { Error::job(what) };
        error.caused_by(text)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Link(text) => f.write_str(text),
            Self::Server { code, text } => write!(f, "{text} ({code})"),
            Self::Known(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Link(error.to_string())
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a connection is for.
#[derive(Clone, Debug)]
pub(super) struct Purpose {
    /// Whether statements of replication may come over it.
    pub replication: bool,
    /// Its name for the server.
    pub name: String,
}

/// A connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// The server's process.
    pub pid: i32,
    standby: bool,
}

impl Wire {
    /// Connects to the first host that takes writes.
    pub async fn connect(address: &Address, purpose: &Purpose) -> Result<Self, Trouble> {
        let (hosts, ports) = (address.config.get_hosts(), address.config.get_ports());
        let wait = address.config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(10));
        let mut last = Trouble::Link("no host is named".to_owned());
        for (at, host) in hosts.iter().enumerate() {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match tokio::time::timeout(wait, Self::connect_to(address, host, port, purpose)).await {
                Ok(Ok(wire)) if wire.standby && hosts.len() > 1 => {
                    last = Trouble::Link("no server takes writes: all are standbys".to_owned());
                }
                Ok(Ok(wire)) => return Ok(wire),
                Ok(Err(trouble)) => last = trouble,
                Err(_) => last = Trouble::Link("no answer".to_owned()),
            }
        }
        Err(match last {
            Trouble::Server { code, text } if matches!(code.get(..2), Some("28" | "3D")) => {
                let what = format!("PostgreSQL at {} does not let this user in", address.place());
                Trouble::Known(Error::job(what).caused_by(text))
            }
            Trouble::Server { code, text } if code == "42501" => Trouble::Known(
                Error::job(format!(
                    "PostgreSQL at {} lets this user not replicate: ALTER ROLE .. REPLICATION",
                    address.place()
                ))
                .caused_by(text),
            ),
            Trouble::Link(text) => {
                Trouble::Link(format!("PostgreSQL at {} cannot be reached: {text}", address.place()))
            }
            other => other,
        })
    }

    async fn connect_to(
        address: &Address,
        host: &Host,
        port: u16,
        purpose: &Purpose,
    ) -> Result<Self, Trouble> {
        let mut wire = match host {
            Host::Tcp(name) => {
                let mut stream = TcpStream::connect((name.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                let stream = match address.config.get_ssl_mode() {
                    SslMode::Disable => Box::new(stream) as Box<dyn Stream>,
                    mode => {
                        let mut request = BytesMut::new();
                        frontend::ssl_request(&mut request);
                        stream.write_all(&request).await?;
                        match (stream.read_u8().await?, mode) {
                            (b'S', _) => encrypted(address, name, stream).await?,
                            (_, SslMode::Prefer) => Box::new(stream),
                            _ => {
                                return Err(Trouble::Known(address.refused(crate::tls::Refused::NoTls)));
                            }
                        }
                    }
                };
                Self { stream, input: BytesMut::new(), pid: 0, standby: false }
            }
            Host::Unix(folder) => {
                let stream = tokio::net::UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?;
                Self { stream: Box::new(stream), input: BytesMut::new(), pid: 0, standby: false }
            }
        };
        wire.begin(address, purpose).await?;
        Ok(wire)
    }

    /// Says who we are, and waits until the server is ready.
    async fn begin(&mut self, address: &Address, purpose: &Purpose) -> Result<(), Trouble> {
        let config = &address.config;
        let user = config.get_user().map_or_else(|| std::env::var("USER").unwrap_or_default(), str::to_owned);
        let database = config.get_dbname().unwrap_or(&user);
        let options =
            config.get_options().map_or_else(|| OPTIONS.to_owned(), |theirs| format!("{theirs} {OPTIONS}"));
        let mut parameters = vec![
            ("user", user.as_str()),
            ("database", database),
            ("client_encoding", "UTF8"),
            ("application_name", purpose.name.as_str()),
            ("options", options.as_str()),
        ];
        if purpose.replication {
            parameters.push(("replication", "database"));
        }
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out)?;
        self.send(&out).await?;
        let password = config.get_password().map(<[u8]>::to_vec);
        let password = || {
            password.clone().ok_or_else(|| {
                let what =
                    format!("PostgreSQL at {} wants a password, and the address has none", address.place());
                Trouble::Known(Error::job(what))
            })
        };
        let mut scram = None;
        loop {
            out.clear();
            match self.message().await? {
                Message::AuthenticationOk | Message::NoticeResponse(_) => {}
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(&password()?, &mut out)?
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = authentication::md5_hash(user.as_bytes(), &password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut out)?;
                }
                Message::AuthenticationSasl(_) => {
                    let begun = sasl::ScramSha256::new(&password()?, sasl::ChannelBinding::unsupported());
                    frontend::sasl_initial_response(sasl::SCRAM_SHA_256, begun.message(), &mut out)?;
                    scram = Some(begun);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let begun = scram.as_mut().ok_or_else(|| unexpected("an answer to no question"))?;
                    begun.update(body.data())?;
                    frontend::sasl_response(begun.message(), &mut out)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    scram
                        .as_mut()
                        .ok_or_else(|| unexpected("an answer to no question"))?
                        .finish(body.data())?;
                }
                Message::ParameterStatus(body) => {
                    self.standby |= body.name()? == "in_hot_standby" && body.value()? == "on";
                }
                Message::BackendKeyData(body) => self.pid = body.process_id(),
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => return Err(refusal(&body)),
                _ => return Err(unexpected("a way of authentication that is not known here")),
            }
            if !out.is_empty() {
                let answer = out.split();
                self.send(&answer).await?;
            }
        }
    }

    /// Writes bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next message if all of it is here: its kind, and what is in it.
    pub fn here(&mut self) -> Result<Option<(u8, Bytes)>, Trouble> {
        let Some(header) = self.input.first_chunk::<5>() else { return Ok(None) };
        let [kind, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=MOST_MESSAGE).contains(&length) {
            return Err(unexpected("a message of an impossible length"));
        }
        if self.input.len() <= length {
            return Ok(None);
        }
        let mut message = self.input.split_to(length + 1);
        message.advance(5);
        Ok(Some((kind, message.freeze())))
    }

    /// The next message. May be given up and called again.
    pub async fn frame(&mut self) -> Result<(u8, Bytes), Trouble> {
        loop {
            if let Some(frame) = self.here()? {
                return Ok(frame);
            }
            self.input.reserve(READ);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Trouble::Link("the server closed the connection".to_owned()));
            }
        }
    }

    /// The next message, for all but copies in both directions, which the library does not know.
    async fn message(&mut self) -> Result<Message, Trouble> {
        let (kind, body) = self.frame().await?;
        parsed(kind, &body)
    }

    /// Asks one thing, and waits for the whole answer: rows of texts.
    pub async fn query(&mut self, statement: &str) -> Result<Vec<Vec<Option<String>>>, Trouble> {
        self.ask(statement).await?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            match self.message().await? {
                Message::DataRow(body) => {
                    if rows.len() == MOST_ROWS {
                        return Err(unexpected("an answer without end"));
                    }
                    rows.push(texts(&body)?);
                }
                Message::ErrorResponse(body) => failed = Some(refusal(&body)),
                Message::ReadyForQuery(_) => return failed.map_or(Ok(rows), Err),
                Message::CopyOutResponse(_) => return Err(unexpected("a copy that was not asked for")),
                _ => {}
            }
        }
    }

    /// One row of texts; NULL is empty.
    pub async fn row(&mut self, statement: &str) -> Result<Option<Vec<String>>, Trouble> {
        let mut rows = self.query(statement).await?;
        let row = if rows.is_empty() { None } else { Some(rows.swap_remove(0)) };
        Ok(row.map(|row| row.into_iter().map(Option::unwrap_or_default).collect()))
    }

    async fn ask(&mut self, statement: &str) -> Result<(), Trouble> {
        let mut out = BytesMut::new();
        frontend::query(statement, &mut out)?;
        self.send(&out).await
    }

    /// Begins COPY .. TO STDOUT, or START_REPLICATION.
    pub async fn copy(&mut self, statement: &str) -> Result<(), Trouble> {
        self.ask(statement).await?;
        loop {
            match self.frame().await? {
                (b'W' | b'H', _) => return Ok(()),
                (b'E', body) => match parsed(b'E', &body)? {
                    Message::ErrorResponse(body) => return Err(refusal(&body)),
                    _ => return Err(unexpected("no copy")),
                },
                (b'N' | b'S', _) => {}
                _ => return Err(unexpected("no copy")),
            }
        }
    }

    /// The next piece of a copy; none at its end, after which the next question may be asked.
    pub async fn copied(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            match self.frame().await? {
                (b'd', piece) => return Ok(Some(piece)),
                (b'Z', _) => return Ok(None),
                (b'E', body) => return Err(error(&body)),
                _ => {}
            }
        }
    }
}

async fn encrypted(address: &Address, name: &str, stream: TcpStream) -> Result<Box<dyn Stream>, Trouble> {
    let mut tls = address.tls().await.map_err(Trouble::Known)?;
    let connect = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, name)?;
    let failed = |error: io::Error| match crate::tls::Refused::among(&error) {
        Some(what) => Trouble::Known(address.refused(what).caused_by(error)),
        None => Trouble::Link(error.to_string()),
    };
    let stream = TlsConnect::<TcpStream>::connect(connect, stream).await.map_err(failed)?;
    Ok(Box::new(stream))
}

/// The error that an error message is.
pub(super) fn error(body: &Bytes) -> Trouble {
    match parsed(b'E', body) {
        Ok(Message::ErrorResponse(body)) => refusal(&body),
        Ok(_) => unexpected("no error"),
        Err(trouble) => trouble,
    }
}

fn unexpected(what: &str) -> Trouble {
    Trouble::Link(format!("the server sent something unexpected: {what}"))
}

fn parsed(kind: u8, body: &Bytes) -> Result<Message, Trouble> {
    let mut whole = BytesMut::with_capacity(body.len() + 5);
    whole.extend_from_slice(&[kind]);
    let length = u32::try_from(body.len() + 4).map_err(|_| unexpected("a message that is too long"))?;
    whole.extend_from_slice(&length.to_be_bytes());
    whole.extend_from_slice(body);
    backend::Message::parse(&mut whole)?.ok_or_else(|| unexpected("half a message"))
}

fn texts(body: &backend::DataRowBody) -> Result<Vec<Option<String>>, Trouble> {
    use tokio_postgres::fallible_iterator::FallibleIterator;
    let text = |range: Option<std::ops::Range<usize>>| {
        Ok(range.map(|range| String::from_utf8_lossy(&body.buffer()[range]).into_owned()))
    };
    Ok(body.ranges().map(text).collect()?)
}

fn refusal(body: &backend::ErrorResponseBody) -> Trouble {
    use tokio_postgres::fallible_iterator::FallibleIterator;
    let (mut code, mut text, mut more) = (String::new(), String::new(), String::new());
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes());
        match field.type_() {
            b'C' => code = value.into_owned(),
            b'M' => text = value.into_owned(),
            b'D' | b'H' => more = format!("{more}; {value}"),
            _ => {}
        }
    }
    Trouble::Server { code, text: text + &more }
}

/// A text as SQL has it.
pub(super) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

/// A name as SQL has it.
pub(super) fn identifier(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}
