//! Where a server is, how to get there, and what to say if that fails.
//!
//! Knows nothing of what a connection is for: the sink and whatever else talks to PostgreSQL connect through here.

use crate::session::said;
use crate::tls::{Refused, Tls, Trust};
use staunch_core::background::blocking;
use staunch_core::place::Place;
use staunch_core::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};

/// How long to wait for a server that does not answer to a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What an address looks like.
const LIKE: &str = "postgres://user:password@host:5432/database?sslmode=verify-full&sslrootcert=/path/ca.pem";

/// An address such as `postgres://user:password@host:5432/database`, read.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub config: Config,
    pub trust: Trust,
    /// Certificates of the authorities to believe; none for those that the system believes.
    pub authorities: Option<PathBuf>,
}

impl Address {
    /// Reads an address. Touches nothing outside.
    pub fn parse(url: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::job(format!("the address of PostgreSQL cannot be read; write it like {LIKE}"))
                .caused_by(why)
        };
        let (rest, mode, file) = take_tls(url).map_err(bad)?;
        let mut config: Config = rest.parse().map_err(|e: tokio_postgres::Error| bad(said(&e)))?;
        if config.get_hosts().is_empty() {
            return Err(Error::job("the address of PostgreSQL names no host"));
        }
        let trust = match (mode.as_deref(), &file) {
            (Some(mode @ ("disable" | "prefer")), Some(_)) => {
                return Err(bad(format!(
                    "sslmode={mode} believes anybody, and sslrootcert would not be looked at"
                )));
            }
            (Some("disable"), None) => {
                config.ssl_mode(SslMode::Disable);
                Trust::Anybody
            }
            (Some("prefer"), None) => Trust::Anybody,
            (Some("require"), None) => Trust::Anybody,
            (Some("require" | "verify-ca"), _) => Trust::Authority,
            (Some("verify-full"), _) | (None, Some(_)) => Trust::AuthorityAndName,
            (None, None) => Trust::Anybody,
            (Some(other), _) => {
                return Err(bad(format!(
                    "sslmode={other} is none of disable, prefer, require, verify-ca and verify-full"
                )));
            }
        };
        if trust != Trust::Anybody || mode.as_deref() == Some("require") {
            config.ssl_mode(SslMode::Require);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        Ok(Self { config, trust, authorities: file.filter(|file| file != "system").map(Into::into) })
    }

    /// Where the server is, without passwords.
    pub fn place(&self) -> String {
        let config = &self.config;
        let hosts = config.get_hosts().iter().enumerate().map(|(at, host)| {
            let port = config.get_ports().get(at).or(config.get_ports().first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        });
        let database = config.get_dbname().or(config.get_user()).unwrap_or("postgres");
        format!("{}/{database}", hosts.collect::<Vec<_>>().join(","))
    }

    /// What makes encrypted connections as the address wants them. Reads the file of authorities each time, so that
    /// one that is renewed is heeded.
    pub async fn tls(&self) -> Result<Tls> {
        if self.config.get_ssl_mode() == SslMode::Disable {
            return Ok(Tls::none());
        }
        let (trust, file) = (self.trust, self.authorities.clone());
        blocking(move || Tls::new(trust, file.as_deref())).await?
    }

    /// Connects. The connection is closed when the task is aborted, whatever was sent.
    pub async fn connect(&self) -> Result<(Client, JoinHandle<()>)> {
        let tls = self.tls().await?;
        let (client, connection) = self.config.connect(tls).await.map_err(|e| self.failed(&e))?;
        let driver = tokio::spawn(async move {
            // What went wrong is said to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok((client, driver))
    }

    /// What to say if there is no connection, or its first statements fail.
    pub fn failed(&self, error: &tokio_postgres::Error) -> Error {
        let place = self.place();
        let class = error.code().map_or("", |code| &code.code()[..2]);
        let text = said(error);
        if let Some(why) = Refused::of(error) {
            return self.refused(why).caused_by(text);
        }
        match class {
            "28" => Error::job(format!("PostgreSQL at {place} does not let this user in")).caused_by(text),
            "3D" => Error::job(format!("PostgreSQL at {place} has no such database")).caused_by(text),
            "42" => Error::job(format!("PostgreSQL at {place} refuses")).caused_by(text),
            _ if text.contains("invalid configuration") => {
                Error::job(format!("PostgreSQL at {place} cannot be asked like this")).caused_by(text)
            }
            _ => Error::external(format!("PostgreSQL at {place} cannot be reached")).caused_by(text),
        }
    }
}

impl Address {
    /// What to say if no encrypted connection will ever be made.
    pub fn refused(&self, why: Refused) -> Error {
        let place = self.place();
        Error::job(match why {
            Refused::Certificate(what) => format!(
                "PostgreSQL at {place} shows a certificate that is not believed: {what}. Give the certificate of the \
                 authority that it is from (sslrootcert=/path/ca.pem), and the name of the host that it is for"
            ),
            Refused::NoTls => format!(
                "PostgreSQL at {place} offers no encryption, and the address requires it: set `ssl = on` at the server, \
                 or, where the network is safe, give sslmode=disable"
            ),
        })
    }
}

/// The place of a table, for jobs whose steps would get in each other's way.
pub(crate) fn places(url: &str, table: &str) -> Vec<Place> {
    let server = Address::parse(url).map(|address| address.place());
    server.map_or_else(|_| Vec::new(), |server| vec![Place::Named(format!("postgres://{server}/{table}"))])
}

/// Takes what concerns encryption out of an address: what is left, the mode, and the file of authorities. tokio-postgres
/// knows neither the file nor the modes that look at certificates.
fn take_tls(url: &str) -> Result<(String, Option<String>, Option<String>), String> {
    let (mut mode, mut file) = (None, None);
    let Some((before, query)) = url.split_once('?').filter(|(before, _)| before.contains("://")) else {
        return Ok((url.to_owned(), None, None));
    };
    let mut others = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let kept = match name {
            "sslmode" => &mut mode,
            "sslrootcert" => &mut file,
            _ => {
                others.push(pair);
                continue;
            }
        };
        if kept.replace(decoded(value)?).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    let rest = if others.is_empty() { before.to_owned() } else { format!("{before}?{}", others.join("&")) };
    Ok((rest, mode, file))
}

/// A value of an address, without its escapes.
fn decoded(value: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| format!("`{value}` has a % without two hexadecimal digits"))?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("`{value}` is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Address> {
        Address::parse(&format!("postgres://shop:secret@db.example:5433/shop{query}"))
    }

    #[test]
    fn modes_mean_what_they_mean_to_every_client_of_postgresql() {
        let of = |query| {
            let address = read(query).unwrap();
            (address.config.get_ssl_mode(), address.trust)
        };
        assert_eq!(of(""), (SslMode::Prefer, Trust::Anybody));
        assert_eq!(of("?sslmode=disable"), (SslMode::Disable, Trust::Anybody));
        assert_eq!(of("?sslmode=require"), (SslMode::Require, Trust::Anybody));
        assert_eq!(of("?sslmode=require&sslrootcert=/ca"), (SslMode::Require, Trust::Authority));
        assert_eq!(of("?sslmode=verify-ca"), (SslMode::Require, Trust::Authority));
        assert_eq!(of("?sslmode=verify-full"), (SslMode::Require, Trust::AuthorityAndName));
        assert_eq!(of("?sslrootcert=%2Fetc%2Fca.pem"), (SslMode::Require, Trust::AuthorityAndName));
    }

    #[test]
    fn other_parameters_of_an_address_stay() {
        let address =
            read("?sslmode=verify-full&application_name=a&sslrootcert=/etc/my%20ca.pem&options=-c%20x")
                .unwrap();
        assert_eq!(address.config.get_application_name(), Some("a"));
        assert_eq!(address.config.get_options(), Some("-c x"));
        assert_eq!(address.authorities, Some(PathBuf::from("/etc/my ca.pem")));
        assert_eq!(address.place(), "db.example:5433/shop");
    }

    #[test]
    fn what_would_not_be_heeded_is_refused() {
        for (query, says) in [
            ("?sslmode=verify", "none of disable"),
            ("?sslmode=prefer&sslrootcert=/ca", "would not be looked at"),
            ("?sslmode=require&sslmode=disable", "given twice"),
            ("?sslrootcert=%2", "hexadecimal"),
            ("?sslcert=/mine", "sslcert"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.to_string().contains(says) && !error.to_string().contains("secret"), "{error}");
        }
    }
}
