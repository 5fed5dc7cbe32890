//! Batches, frames and compression.

use std::hint::black_box;

use corpora::corpus::device_states::DeviceStates;
use protocol::codec;
use protocol::compress::{Compression, compress, decompress};
use protocol::history::Entry;
use protocol::wire::{self, Batch, Message, PLAIN_BYTES_MAX, Ping, VERSION_MAX};

use crate::case::{Case, Run};

const CODEC: &str = "codec";
const COMPRESSION: &str = "compression";

pub(super) const CASES: &[Case] = &[
    Case { group: CODEC, name: "pack and encode 100 entries", items: 100, prepare: encode_batch },
    Case { group: CODEC, name: "decode and unpack 100 entries", items: 100, prepare: decode_batch },
    Case { group: CODEC, name: "encode a ping frame", items: 1, prepare: encode_ping },
    Case { group: CODEC, name: "decode a ping frame", items: 1, prepare: decode_ping },
    Case {
        group: CODEC,
        name: "encode a zstd frame of 100 entries",
        items: 100,
        prepare: encode_frame,
    },
    Case {
        group: CODEC,
        name: "decode a zstd frame of 100 entries",
        items: 100,
        prepare: decode_frame,
    },
    Case { group: COMPRESSION, name: "zstd, 100 entries", items: 100, prepare: pack::<true> },
    Case { group: COMPRESSION, name: "gzip, 100 entries", items: 100, prepare: pack::<false> },
    Case {
        group: COMPRESSION,
        name: "zstd back, 100 entries",
        items: 100,
        prepare: unpack::<true>,
    },
    Case {
        group: COMPRESSION,
        name: "gzip back, 100 entries",
        items: 100,
        prepare: unpack::<false>,
    },
];

fn entries() -> Vec<Entry> {
    DeviceStates::new(1).skip(100).take(100).collect()
}

fn batch() -> Batch {
    Batch::pack(&entries()).expect("entries of one log, in order")
}

fn encode_batch() -> Run {
    let entries = entries();
    Box::new(move || {
        let batch = Batch::pack(black_box(&entries)).expect("entries of one log, in order");
        drop(black_box(codec::encode(&batch)));
    })
}

fn decode_batch() -> Run {
    let bytes = codec::encode(&batch());
    Box::new(move || {
        let batch: Batch = codec::decode(black_box(&bytes)).expect("an own batch");
        drop(black_box(batch.unpack().expect("an own batch")));
    })
}

fn encode_ping() -> Run {
    let ping = Message::Ping(Ping { sent_ms: 1_234_567 });
    Box::new(move || {
        drop(black_box(wire::encode(black_box(&ping), VERSION_MAX, Compression::None)));
    })
}

fn decode_ping() -> Run {
    let ping = Message::Ping(Ping { sent_ms: 1_234_567 });
    decode(wire::encode(&ping, VERSION_MAX, Compression::None))
}

fn encode_frame() -> Run {
    let message = Message::Entries(batch());
    Box::new(move || {
        drop(black_box(wire::encode(black_box(&message), VERSION_MAX, Compression::Zstd)));
    })
}

fn decode_frame() -> Run {
    decode(wire::encode(&Message::Entries(batch()), VERSION_MAX, Compression::Zstd))
}

fn decode(frame: Vec<u8>) -> Run {
    Box::new(move || drop(black_box(wire::decode(black_box(&frame)).expect("an own frame"))))
}

fn of(zstd: bool) -> Compression {
    if zstd { Compression::Zstd } else { Compression::Gzip }
}

fn pack<const ZSTD: bool>() -> Run {
    let body = codec::encode(&batch());
    Box::new(move || drop(black_box(compress(black_box(&body).clone(), of(ZSTD)))))
}

fn unpack<const ZSTD: bool>() -> Run {
    let (used, packed) = compress(codec::encode(&batch()), of(ZSTD));
    Box::new(move || {
        let plain = decompress(black_box(&packed), used, PLAIN_BYTES_MAX);
        drop(black_box(plain.expect("an own body")));
    })
}
