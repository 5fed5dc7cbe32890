//! Who traces are sent to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// How long a slow collector thinks about a request: longer than any exporter waits.
const SLOW: Duration = Duration::from_secs(60);

/// How a collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// At once.
    Prompt,
    /// After a minute.
    Slow,
}

/// An OTLP/HTTP endpoint that counts what it is sent, on a thread of its own.
pub(super) struct Collector {
    address: SocketAddr,
    manner: Manner,
    bytes: Arc<AtomicU64>,
    runtime: Option<Runtime>,
}

impl Collector {
    pub(super) fn start(manner: Manner) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let take = async move |State(bytes): State<Arc<AtomicU64>>, body: Bytes| {
            bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
            if manner == Manner::Slow {
                tokio::time::sleep(SLOW).await;
            }
        };
        let paths = Router::new().route("/v1/traces", post(take)).with_state(bytes.clone());
        // It ends with its runtime.
        runtime.spawn(async move { axum::serve(listener, paths).await });
        Ok(Self { address, manner, bytes, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it answers at once.
    pub(super) fn is_prompt(&self) -> bool {
        self.manner == Manner::Prompt
    }

    /// The bytes of spans that it was sent.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
