//! A client of schema registries: few requests, answers kept.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use staunch_core::source::base64;
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");
/// One request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// A request with all its repetitions.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Largest answer.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Schemas that are kept; beyond, all are asked for anew.
const MAX_KEPT: usize = 10_000;
/// Schemas that one may refer to, those that they refer to included.
const MAX_REFERENCES: usize = 200;

/// A schema registry: a description that connects when it is asked. Its clones share what it has learnt.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    /// Without a slash at its end, and without the password.
    url: String,
    authorization: Option<HeaderValue>,
    client: Client<HttpConnector, Full<Bytes>>,
    schemas: Mutex<HashMap<u32, Arc<Registered>>>,
    patience: Duration,
}

/// A schema as a registry has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registered {
    /// `AVRO`, `PROTOBUF` or `JSON`.
    pub kind: String,
    /// The schema itself.
    pub text: String,
    /// The texts of the schemas that it refers to, and of those that they refer to.
    pub references: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct Number {
    id: u32,
}

/// What a registry says of a request that it does not fulfil.
#[derive(Deserialize, Default)]
struct Problem {
    #[serde(default)]
    error_code: u32,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// The registry at a URL: `http://host:8081`, or `http://user:password@host:8081/path`.
    ///
    /// # Errors
    /// The URL is none, or not of `http`: encrypted connections are not there yet.
    pub fn at(url: impl AsRef<str>) -> Result<Self> {
        Self::patient(url.as_ref(), PATIENCE)
    }

    fn patient(url: &str, patience: Duration) -> Result<Self> {
        let wrong =
            |why: &str| Error::job(format!("the URL of the schema registry {why}; write http://host:8081"));
        let rest = url.strip_prefix("http://").ok_or_else(|| wrong("does not begin with http://"))?;
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let url = format!("http://{}", place.trim_end_matches('/'));
        url.parse::<Uri>().map_err(|e| wrong("is not readable").caused_by(e))?;
        let authorization =
            user.map(|user| HeaderValue::from_str(&format!("Basic {}", base64(user.as_bytes()))));
        let authorization =
            authorization.transpose().map_err(|e| wrong("has a user that cannot be sent").caused_by(e))?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self(Arc::new(Inner { url, authorization, client, schemas: Mutex::default(), patience })))
    }

    /// The schema of this number; `None` if the registry has none.
    ///
    /// # Errors
    /// The registry cannot be asked, or refuses to answer.
    pub async fn schema(&self, id: u32) -> Result<Option<Arc<Registered>>> {
        let kept = || self.0.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept().get(&id) {
            return Ok(Some(Arc::clone(known)));
        }
        let what = format!("schema {id}");
        let answer = match self.ask(Method::GET, &format!("/schemas/ids/{id}"), None).await? {
            Ok(answer) => answer,
            Err((StatusCode::NOT_FOUND, _)) => return Ok(None),
            Err(refused) => return Err(self.refused(&what, refused)),
        };
        let answer: Answer = self.parsed(&what, &answer)?;
        let references = self.references(&answer).await?;
        let kind = answer.schema_type.unwrap_or_else(|| "AVRO".to_owned());
        let found = Arc::new(Registered { kind, text: answer.schema, references });
        let mut kept = kept();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(id, Arc::clone(&found));
        Ok(Some(found))
    }

    /// All that a schema refers to.
    async fn references(&self, answer: &Answer) -> Result<Vec<String>> {
        let key = |reference: &Reference| (reference.subject.clone(), reference.version);
        let mut open: Vec<_> = answer.references.iter().map(key).collect();
        let (mut seen, mut texts) = (open.clone(), Vec::new());
        while let Some((subject, version)) = open.pop() {
            if seen.len() > MAX_REFERENCES {
                return Err(Error::job(format!(
                    "a schema of {self} refers to more than {MAX_REFERENCES} others"
                )));
            }
            let what = format!("version {version} of subject `{subject}`, which a schema refers to");
            let path = format!("/subjects/{}/versions/{version}", escaped(&subject));
            let answer =
                self.ask(Method::GET, &path, None).await?.map_err(|refused| self.refused(&what, refused))?;
            let answer: Answer = self.parsed(&what, &answer)?;
            for next in answer.references.iter().map(key) {
                if !seen.contains(&next) {
                    seen.push(next.clone());
                    open.push(next);
                }
            }
            texts.push(answer.schema);
        }
        Ok(texts)
    }

    /// Registers a schema under a subject, unless it is there, and gives its number.
    ///
    /// # Errors
    /// The registry refuses it (incompatible with what is there, not valid, not allowed), or cannot be asked.
    pub async fn register(&self, subject: &str, kind: &str, text: &str) -> Result<u32> {
        self.number(&format!("/subjects/{}/versions", escaped(subject)), subject, kind, text).await
    }

    /// The number of a schema that is registered under a subject.
    ///
    /// # Errors
    /// It is not registered, or the registry cannot be asked.
    pub async fn lookup(&self, subject: &str, kind: &str, text: &str) -> Result<u32> {
        self.number(&format!("/subjects/{}", escaped(subject)), subject, kind, text).await
    }

    async fn number(&self, path: &str, subject: &str, kind: &str, text: &str) -> Result<u32> {
        let what = format!("the schema for subject `{subject}`");
        let body = match kind {
            "AVRO" => json!({"schema": text}),
            kind => json!({"schema": text, "schemaType": kind}),
        };
        let answer = self
            .ask(Method::POST, path, Some(&body))
            .await?
            .map_err(|refused| self.refused(&what, refused))?;
        Ok(self.parsed::<Number>(&what, &answer)?.id)
    }

    /// Asks, again if what is in the way may pass. What the registry does not fulfil is an answer too.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Result<Bytes, (StatusCode, Problem)>> {
        let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let asked = tokio::time::timeout(REQUEST_LIMIT, self.ask_once(&method, path, body)).await;
            let why = match asked {
                Ok(Ok((status, bytes))) if status.is_success() => return Ok(Ok(bytes)),
                Ok(Ok((status, bytes))) if !may_pass(status) => {
                    return Ok(Err((status, serde_json::from_slice(&bytes).unwrap_or_default())));
                }
                Ok(Ok((status, _))) => format!("it answers {status}"),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {} s", REQUEST_LIMIT.as_secs()),
            };
            if begin.elapsed() + pause > self.0.patience {
                return Err(Error::external(format!("the schema registry {self} cannot be asked: {why}")));
            }
            tracing::warn!(registry = %self, path, why, "the schema registry does not answer, trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask_once(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), String> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder().method(method).uri(format!("{}{path}", self.0.url));
        let mut request = request.header(ACCEPT, TYPE).header(CONTENT_TYPE, TYPE);
        if let Some(authorization) = &self.0.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let answer = self.0.client.request(request).await.map_err(|e| chain(&e))?;
        let status = answer.status();
        let bytes =
            Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|e| e.to_string())?;
        Ok((status, bytes.to_bytes()))
    }

    fn parsed<'b, A: Deserialize<'b>>(&self, what: &str, bytes: &'b [u8]) -> Result<A> {
        serde_json::from_slice(bytes).map_err(|e| {
            Error::external(format!("{what}: {self} answers what a schema registry does not; check the URL"))
                .caused_by(e)
        })
    }

    /// What to make of an answer that says no.
    fn refused(&self, what: &str, (status, problem): (StatusCode, Problem)) -> Error {
        let advice = match (status, problem.error_code) {
            (StatusCode::UNAUTHORIZED, _) => "it wants to know who asks: http://user:password@host",
            (StatusCode::FORBIDDEN, _) => "this user may not do that",
            (StatusCode::NOT_FOUND, 40401) => {
                "there is no such subject; register a schema first, or use `.register(true)`"
            }
            (StatusCode::NOT_FOUND, 40402) => "there is no such version",
            (StatusCode::NOT_FOUND, 40403) => {
                "the subject has other schemas and not this one; register it first, or use `.register(true)`"
            }
            (StatusCode::NOT_FOUND, _) => "there is no such thing; check the URL",
            (StatusCode::CONFLICT, _) => {
                "it is not compatible with those that are there, by the rule of the subject; change the schema, or the rule"
            }
            (StatusCode::UNPROCESSABLE_ENTITY, _) => "it is not valid for this registry",
            _ => "it refuses",
        };
        let Problem { error_code, message } = problem;
        Error::job(format!(
            "{what}: the schema registry {self} answers {status} ({error_code}: {message}): {advice}"
        ))
    }
}

/// Whether the same request may work later.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
}

/// An error with its causes: the client's own says only that it failed.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// As a part of a path.
fn escaped(subject: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let escape = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    subject.bytes().map(escape).collect()
}

impl Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.url)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.0.url).finish()
    }
}
