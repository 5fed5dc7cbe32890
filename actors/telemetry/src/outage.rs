//! Says once that exports fail, and once that they no longer do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opentelemetry_sdk::error::OTelSdkResult;

use crate::client::Client;

/// Whether exports of one signal fail, and since how many.
#[derive(Debug)]
pub(crate) struct Outage {
    signal: &'static str,
    lasts: AtomicBool,
    failures: AtomicU64,
}

impl Outage {
    pub(crate) fn new(signal: &'static str) -> Self {
        Self { signal, lasts: AtomicBool::new(false), failures: AtomicU64::new(0) }
    }

    /// Takes note of how an export ended.
    pub(crate) fn note(&self, result: &OTelSdkResult, client: &Client) {
        let signal = self.signal;
        match result {
            Ok(()) => {
                if self.lasts.swap(false, Ordering::Relaxed) {
                    let failures = self.failures.swap(0, Ordering::Relaxed);
                    tracing::info!(signal, failures, "telemetry is exported again");
                }
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if !self.lasts.swap(true, Ordering::Relaxed) {
                    let error = client.failure().unwrap_or_else(|| error.to_string());
                    tracing::warn!(
                        signal,
                        error,
                        "telemetry is not exported; it is dropped until the endpoint takes it"
                    );
                }
            }
        }
    }
}
