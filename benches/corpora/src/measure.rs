//! Compressing batches, and what that takes.

use std::io::{Read, Write};
use std::time::Duration;

use protocol::compress::Compression;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::corpus::Kind;
use crate::form::{Form, Records};

/// The batch sizes of the tiers, in records.
pub const BATCH_RECORDS: [usize; 3] = [10, 100, 1_000];

/// A compressor at a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Method {
    /// Which compressor.
    pub codec: Compression,
    /// Its level; 0 where there is none.
    pub level: u32,
}

impl Method {
    /// What is measured: the levels in use (zstd 3, gzip 6) and those around them.
    pub const ALL: [Self; 8] = [
        Self { codec: Compression::None, level: 0 },
        Self { codec: Compression::Zstd, level: 1 },
        Self { codec: Compression::Zstd, level: 3 },
        Self { codec: Compression::Zstd, level: 9 },
        Self { codec: Compression::Zstd, level: 19 },
        Self { codec: Compression::Gzip, level: 1 },
        Self { codec: Compression::Gzip, level: 6 },
        Self { codec: Compression::Gzip, level: 9 },
    ];

    /// The name in tables.
    pub fn name(self) -> String {
        match self.codec {
            Compression::None => "none".to_owned(),
            Compression::Zstd => format!("zstd {}", self.level),
            Compression::Gzip => format!("gzip {}", self.level),
        }
    }

    /// Compresses one batch by itself, as links do.
    pub fn compress(self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        match self.codec {
            Compression::None => Ok(plain.to_vec()),
            Compression::Zstd => zstd::bulk::compress(plain, self.level as i32),
            Compression::Gzip => {
                let level = flate2::Compression::new(self.level);
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(plain)?;
                encoder.finish()
            }
        }
    }

    /// Reverses [`compress`](Self::compress), knowing how long the batch was.
    ///
    /// This is not the reader of frames: a thousand documents are longer than a frame may be.
    pub fn decompress(self, packed: &[u8], plain_bytes: usize) -> std::io::Result<Vec<u8>> {
        match self.codec {
            Compression::None => Ok(packed.to_vec()),
            Compression::Zstd => zstd::bulk::decompress(packed, plain_bytes),
            Compression::Gzip => {
                let mut plain = Vec::with_capacity(plain_bytes);
                flate2::read::GzDecoder::new(packed).read_to_end(&mut plain)?;
                Ok(plain)
            }
        }
    }
}

/// A ratio that a tier is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Target {
    /// Plain bytes for each compressed byte.
    pub ratio: f64,
}

impl Target {
    /// The target of a codec for a kind at a batch size; each tier has one size.
    pub fn of(kind: Kind, codec: Compression, batch_records: usize) -> Option<Self> {
        let ratio = match (codec, batch_records, kind) {
            (Compression::Zstd, 1_000, Kind::Metrics) => 8.0,
            (Compression::Zstd, 1_000, Kind::Logs) => 10.0,
            (Compression::Zstd, 1_000, Kind::Json) => 12.0,
            (Compression::Gzip, 100, Kind::Metrics) => 5.0,
            (Compression::Gzip, 100, Kind::Logs) => 6.0,
            (Compression::Gzip, 100, Kind::Json) => 7.0,
            _ => return None,
        };
        Some(Self { ratio })
    }
}

/// What one method made of one corpus at one batch size.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The corpus.
    pub corpus: Kind,
    /// What a record was before.
    pub form: Form,
    /// The method.
    pub method: Method,
    /// Records in a batch.
    pub batch_records: usize,
    /// Records in all.
    pub records: usize,
    /// Bytes before.
    pub plain_bytes: usize,
    /// Bytes after.
    pub packed_bytes: usize,
    /// Plain bytes for each compressed byte.
    pub ratio: f64,
    /// Plain megabytes (of 10^6 bytes) a second of one core's time.
    pub compress_mb_per_s: f64,
    /// Plain megabytes a second of one core's time.
    pub decompress_mb_per_s: f64,
    /// One core's time to compress a record, in microseconds.
    pub compress_us_per_record: f64,
    /// One core's time to decompress a record, in microseconds.
    pub decompress_us_per_record: f64,
    /// The ratio to reach, where a tier has one.
    pub target: Option<Target>,
    /// Whether it is reached.
    pub hit: Option<bool>,
}

/// Why a corpus cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// Fewer records than one batch.
    #[error("{records} records are less than a batch of {batch_records}; give a higher --count")]
    TooFew {
        /// How many there are.
        records: usize,
        /// How many a batch takes.
        batch_records: usize,
    },
    /// A compressor failed.
    #[error("{method} does not compress")]
    Compress {
        /// Which one.
        method: String,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// What was compressed does not decompress.
    #[error("{method} does not decompress what it compressed")]
    Decompress {
        /// Which one.
        method: String,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// What was compressed decompresses to something else.
    #[error("{method} decompresses to other bytes")]
    Differs {
        /// Which one.
        method: String,
    },
}

/// Measures one method.
pub fn measure(
    (corpus, form): (Kind, Form),
    records: &Records,
    method: Method,
    batch_records: usize,
) -> Result<Row, MeasureError> {
    let batches = records.batches(batch_records);
    let count = batches.len() * batch_records;
    if batches.is_empty() {
        return Err(MeasureError::TooFew { records: records.len(), batch_records });
    }
    let name = || method.name();
    let begun = cpu_time();
    let packed = batches.iter().map(|batch| method.compress(batch)).collect::<Result<Vec<_>, _>>();
    let compressing = cpu_time() - begun;
    let packed = packed.map_err(|source| MeasureError::Compress { method: name(), source })?;
    let begun = cpu_time();
    let unpacked = batches.iter().zip(&packed);
    let unpacked = unpacked
        .map(|(batch, packed)| method.decompress(packed, batch.len()))
        .collect::<Result<Vec<_>, _>>();
    let decompressing = cpu_time() - begun;
    let unpacked =
        unpacked.map_err(|source| MeasureError::Decompress { method: name(), source })?;
    if unpacked != batches {
        return Err(MeasureError::Differs { method: name() });
    }
    let plain_bytes = batches.iter().map(Vec::len).sum::<usize>();
    let packed_bytes = packed.iter().map(Vec::len).sum::<usize>();
    let ratio = plain_bytes as f64 / packed_bytes as f64;
    let target = Target::of(corpus, method.codec, batch_records);
    let mb_per_s = |time: Duration| plain_bytes as f64 / 1e6 / time.as_secs_f64().max(1e-9);
    let us_per_record = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    Ok(Row {
        corpus,
        form,
        method,
        batch_records,
        records: count,
        plain_bytes,
        packed_bytes,
        ratio,
        compress_mb_per_s: mb_per_s(compressing),
        decompress_mb_per_s: mb_per_s(decompressing),
        compress_us_per_record: us_per_record(compressing),
        decompress_us_per_record: us_per_record(decompressing),
        target,
        hit: target.map(|target| ratio >= target.ratio),
    })
}

/// This thread's time on a processor: other work on the machine does not count.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_gives_back_what_it_was_given() {
        let records = Records::generate(Kind::Metrics, Form::JsonLines, 1, 100);
        for method in Method::ALL {
            let row = measure((Kind::Metrics, Form::JsonLines), &records, method, 100);
            let row = row.expect("it compresses");
            assert_eq!((row.records, row.hit.is_some()), (100, method.codec == Compression::Gzip));
        }
    }

    #[test]
    fn too_few_records_are_named() {
        let records = Records::generate(Kind::Logs, Form::Binary, 1, 9);
        let row = measure((Kind::Logs, Form::Binary), &records, Method::ALL[0], 10);
        assert!(matches!(row, Err(MeasureError::TooFew { records: 9, batch_records: 10 })));
    }
}
