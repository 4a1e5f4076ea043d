//! Encrypted connections: whom to believe, and how tokio-postgres is given it.
//!
//! The three levels are those of every client of PostgreSQL: anybody, whoever has a certificate of an authority, and of
//! those only the one whose name was asked for. Certificates of clients, and binding a password to the channel, are not
//! offered.

use staunch_core::{Error, Result};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// Whose certificates are believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// Whoever answers: against those who listen, not against those who pretend.
    Anybody,
    /// Who has a certificate of an authority, whatever name is in it.
    Authority,
    /// Who has one for the name in the address.
    AuthorityAndName,
}

/// Makes encrypted connections; `None` where the address wants none.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// For addresses without encryption.
    pub fn none() -> Self {
        Self(None)
    }

    /// Reads the authorities, of the system without a file. Blocks.
    pub fn new(trust: Trust, authorities: Option<&Path>) -> Result<Self> {
        let provider = Arc::new(crypto::ring::default_provider());
        let inner = match trust {
            Trust::Anybody => None,
            Trust::Authority | Trust::AuthorityAndName => {
                let roots = Arc::new(roots(authorities)?);
                let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
                Some(
                    built
                        .map_err(|e| Error::job("no authority for certificates can be used").caused_by(e))?,
                )
            }
        };
        let looks = Arc::new(Looks { trust, inner, provider: Arc::clone(&provider) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::internal("TLS cannot be set up").caused_by(e))?
            .dangerous()
            .with_custom_certificate_verifier(looks)
            .with_no_client_auth();
        Ok(Self(Some(Arc::new(config))))
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(Error::job(
                "this system has no list of authorities for certificates: install it (ca-certificates), or give the \
                 authority of the server in its address (sslrootcert=/path/ca.pem)",
            ));
        }
        return Ok(roots);
    };
    let unreadable = |why: String| {
        Error::job(format!("the certificates in {} (sslrootcert) cannot be read", file.display()))
            .caused_by(why)
    };
    let read = CertificateDer::pem_file_iter(file).map_err(|e| unreadable(e.to_string()))?;
    for certificate in read {
        let certificate = certificate.map_err(|e| unreadable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unreadable(e.to_string()))?;
    }
    if roots.is_empty() { Err(unreadable("it has no certificate in PEM form".to_owned())) } else { Ok(roots) }
}

/// Looks at certificates as much as the address wants.
#[derive(Debug)]
struct Looks {
    trust: Trust,
    /// None if anybody is believed.
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Looks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is looked at last.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.trust == Trust::Authority => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let with = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, with)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let with = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, with)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why an encrypted connection was not made, if running again does not help.
#[derive(Debug)]
pub(crate) enum Refused {
    /// We do not believe the server.
    Certificate(String),
    /// It offers no encryption.
    NoTls,
}

impl Refused {
    /// Finds it among the causes of an error.
    pub fn of(error: &tokio_postgres::Error) -> Option<Self> {
        Self::among(std::error::Error::source(error)?)
    }

    /// The same, the error itself included.
    pub fn among(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(at) = cause {
            if let Some(tls) =
                at.downcast_ref::<io::Error>().and_then(|e| e.get_ref()?.downcast_ref::<TlsError>())
            {
                return match tls {
                    TlsError::InvalidCertificate(what) => Some(Self::Certificate(what.to_string())),
                    _ => None,
                };
            }
            if at.to_string() == "server does not support TLS" {
                return Some(Self::NoTls);
            }
            cause = at.source();
        }
        None
    }
}

/// One connection to be made.
pub(crate) struct Connect {
    config: Option<Arc<ClientConfig>>,
    name: Result<ServerName<'static>, String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Encrypted<S>;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Connect> {
        // A socket in the file system has no name, and is not encrypted.
        let name = ServerName::try_from(domain.to_owned()).map_err(|e| format!("host `{domain}`: {e}"));
        Ok(Connect { config: self.0.clone(), name })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let config = self.config.ok_or_else(|| io::Error::other("the address wants no encryption"))?;
            let name = self.name.map_err(io::Error::other)?;
            let encrypted = TlsConnector::from(config).connect(name, stream).await?;
            Ok(Encrypted(Box::new(encrypted)))
        })
    }
}

/// An encrypted stream, for tokio-postgres.
#[derive(Debug)]
pub(crate) struct Encrypted<S>(Box<client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
