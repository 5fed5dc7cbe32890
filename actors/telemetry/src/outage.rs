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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;
    use crate::otlp::Otlp;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one thread").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_outage_is_told_of_when_it_begins_and_when_it_ends() {
        let otlp = Otlp::configured(Some("http://127.0.0.1:9"), None);
        let client = Client::new(&otlp.expect("valid").expect("an endpoint")).expect("a client");
        let outage = Outage::new("traces");
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let down = || Err(OTelSdkError::InternalFailure("refused".into()));
            for result in [Ok(()), down(), down(), down(), Ok(()), Ok(()), down()] {
                outage.note(&result, &client);
            }
        });
        let text = String::from_utf8(lines.0.lock().expect("one thread").clone()).expect("text");
        let levels: Vec<_> =
            text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(levels.len(), 3, "{text}");
        assert!(text.contains("failures=3"), "{text}");
    }
}
