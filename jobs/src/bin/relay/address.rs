//! An address of a connector: `scheme://server/path?parameter=value`.
//!
//! Promises that what it says of itself has no password in it. Knows no connector.

use staunch::prelude::{Error, Result};
use std::fmt;

/// An address, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub scheme: String,
    /// User, password, host and port, as they were written.
    pub server: String,
    /// With the slash before it if there is a server.
    pub path: String,
    parameters: Vec<(String, String)>,
}

// Without parameters: they may have passwords in them, too.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, server, path, .. } = self;
        let server = server.rsplit_once('@').map_or(server.as_str(), |(_, server)| server);
        if server.is_empty() && !path.starts_with('/') {
            return write!(f, "{scheme}:{path}");
        }
        write!(f, "{scheme}://{server}{path}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Address {
    /// Reads an address; `${NAME}` in it stands for what `variable` gives. Errors repeat nothing that may be secret.
    ///
    /// # Errors
    /// It is none, or a variable is not set.
    pub fn read(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let text = filled(text, variable)?;
        let (scheme, rest) = text.split_once(':').ok_or_else(|| {
            Error::job("an address begins with the name of a connector and a colon, as in file:///data/in; see --help")
        })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Error::job(format!(
                    "parameter `{name}` is given twice in the address of {scheme}"
                )));
            }
            parameters.push((name, value));
        }
        let (scheme, server) = (scheme.to_owned(), server.to_owned());
        Ok(Self { scheme, server, path: decoded(path)?, parameters })
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Names and values of all parameters, in their order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a parameter that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn needs(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| Error::job(format!("{self} needs the parameter {name}=...; see --help")))
    }

    /// The parts of a value with commas between them; none if there is no such parameter.
    pub fn list(&self, name: &str) -> Vec<String> {
        let parts = self.get(name).into_iter().flat_map(|value| value.split(','));
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// Which of these a parameter is; the first if it is not given.
    ///
    /// # Errors
    /// It is none of them.
    pub fn one_of<T: Copy>(&self, name: &str, values: &[(&str, T)]) -> Result<T> {
        let Some(given) = self.get(name) else { return Ok(values[0].1) };
        values.iter().find(|(value, _)| *value == given).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let all = values.iter().map(|(value, _)| *value).collect::<Vec<_>>().join(", ");
            Error::job(format!("{self}: {name}={given} is none of {all}"))
        })
    }

    /// Whether a parameter is `true`.
    ///
    /// # Errors
    /// It is neither that nor `false`.
    pub fn is(&self, name: &str) -> Result<bool> {
        self.one_of(name, &[("false", false), ("true", true)])
    }

    /// The same without some of its parameters, as a text: for clients that read such addresses themselves.
    pub fn without(&self, names: &[&str]) -> String {
        let Self { scheme, server, path, .. } = self;
        let mut text = format!("{scheme}://{server}{path}");
        let mut mark = '?';
        for (name, value) in self.parameters().filter(|(name, _)| !names.contains(name)) {
            text.push_str(&format!("{mark}{}={}", encoded(name), encoded(value)));
            mark = '&';
        }
        text
    }
}

/// The text with variables filled in. What they hold is no part of the address's form.
fn filled(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| Error::job("an address has ${ without }"))?;
        let value = variable(name)
            .ok_or_else(|| Error::job(format!("the variable {name}, which an address names, is not set")))?;
        filled.push_str(before);
        filled.push_str(&encoded(&value));
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' | b',' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let two = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let value = two.and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(
            value.ok_or_else(|| Error::job("an address has % without two hex digits; write %25 for %"))?,
        );
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| Error::job("an address has bytes in it that are no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Address {
        Address::read(text, |name| (name == "PW").then(|| "p&w@?/%".to_owned())).unwrap()
    }

    #[test]
    fn an_address_has_a_scheme_a_server_a_path_and_parameters() {
        let address = read("kafka://a:1,b:2/orders?format=json&bounded&key=a,b");
        let parts = (address.scheme.as_str(), address.server.as_str(), address.path.as_str());
        assert_eq!(parts, ("kafka", "a:1,b:2", "/orders"));
        assert!(address.is("bounded").unwrap() && !address.is("other").unwrap());
        assert_eq!(address.list("key"), ["a", "b"]);
        assert!(address.is("format").unwrap_err().to_string().contains("none of false, true"));
        assert_eq!(read("file:///a%20b").path, "/a b");
        assert_eq!(read("file:a/b").path, "a/b");
        assert_eq!(read("stdout:").to_string(), "stdout:");
        for wrong in ["orders", "file:%zz", "file:%9", "file:?a=1&a=2", "file:${NO}", "file:${PW"] {
            assert!(Address::read(wrong, |_| None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn passwords_are_never_shown_and_come_from_variables() {
        let address = read("postgres://me:${PW}@h:5/db?table=t&password=x");
        assert_eq!(address.to_string(), "postgres://h:5/db");
        assert_eq!(format!("{address:?}"), "postgres://h:5/db");
        assert_eq!(address.without(&["table"]), "postgres://me:p%26w%40%3F%2F%25@h:5/db?password=x");
        let error = Address::read("me:secret@host?x=%", |_| None).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
