//! The HTTP client of the exporters: blocking, used only on the exporters' own threads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::otlp::{EndpointError, Otlp};

/// How long one request may take. Nobody waits for it but the exporter's thread.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// An answer says little: what was refused, if anything.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Why the last request failed; the exporter passes on only that it did.
    failure: Mutex<Option<String>>,
}

impl Client {
    pub(crate) fn new(otlp: &Otlp) -> Result<Self, EndpointError> {
        let mut tls = TlsConfig::builder();
        if let Some(file) = otlp.ca_file() {
            let authority = |source| EndpointError::Authority { file: file.to_owned(), source };
            let pem = std::fs::read(file).map_err(|error| authority(error.into()))?;
            let items = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            });
            let roots: Result<Vec<Certificate<'static>>, _> = items.collect();
            let roots = roots.map_err(|error| authority(error.into()))?;
            tls = tls.root_certs(RootCerts::new_with_certs(&roots));
        }
        let agent = Agent::config_builder()
            .timeout_global(Some(REQUEST_TIME_MAX))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(2)
            .user_agent(concat!("fleet-telemetry/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build()
            .new_agent();
        Ok(Self { agent, headers: otlp.headers().to_vec(), failure: Mutex::new(None) })
    }

    /// Why the last request failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, body.to_vec());
        let (parts, mut body) = self.agent.run(request)?.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(parts, Bytes::from(body)))
    }
}

#[async_trait]
impl HttpClient for Client {
    /// Blocks. The processors drive it on threads of their own.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        let failure = match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(response.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        Ok(answer?)
    }
}
