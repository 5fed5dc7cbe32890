//! Frames: header, decompression, every kind of body.
//!
//! The input's first byte says how the rest becomes a frame, so that mutation reaches what lies
//! inside a compressed body too. Whatever decodes must be encoded and decoded to the same again,
//! and no frame may cost much memory.

#![no_main]

use fuzz::{memory, must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::compress::{Compression, compress};
use protocol::wire::{self, FRAME_BYTES_MAX, HEADER_BYTES, PLAIN_BYTES_MAX, VERSION_MAX};

/// 256 KiB of body decode to no more than this, with the lists as they grow.
const HELD_BYTES_MAX: usize = 16 << 20;

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    let frame = match how % 3 {
        0 => rest.to_vec(),
        1 => packed(rest, Compression::Gzip),
        _ => packed(rest, Compression::Zstd),
    };
    let Ok(message) = memory::bounded(HELD_BYTES_MAX, || wire::decode(&frame).map_err(|e| {
        // Every refusal has a code and a text.
        (e.code(), e.to_string())
    })) else { return };
    assert!(frame.len() <= FRAME_BYTES_MAX, "a frame over the limit was taken");
    for wanted in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let again = wire::encode(&message, VERSION_MAX, wanted);
        // What came compressed need not fit a frame in another form.
        if again.len() <= FRAME_BYTES_MAX {
            assert_eq!(must(wire::decode(&again), "an own frame decodes"), message);
        }
    }
});

/// A frame with the same header whose body is compressed.
fn packed(frame: &[u8], wanted: Compression) -> Vec<u8> {
    let Some((header, body)) = frame.split_at_checked(HEADER_BYTES) else { return frame.to_vec() };
    let body = body[..body.len().min(2 * PLAIN_BYTES_MAX)].to_vec();
    let (used, body) = compress(body, wanted);
    let mut frame = header.to_vec();
    frame[3] = used.number();
    frame.extend_from_slice(&body);
    frame
}

fn seeds() -> Vec<seeds::Seed> {
    let with = |how: u8| {
        move |(name, frame): seeds::Seed| {
            let mut input = vec![how];
            input.extend(frame);
            (format!("{name}_{how}"), input)
        }
    };
    let all = seeds::frames();
    all.iter()
        .cloned()
        .map(with(0))
        .chain(all.iter().cloned().map(with(1)))
        .chain(all.iter().cloned().map(with(2)))
        .collect()
}
