//! Seeds: inputs to begin with, written anew before each run.
//!
//! They come from the golden vectors of the protocol and from the real encoders, so that a
//! fuzzer starts behind the checks of versions, lengths and signatures.

use std::path::Path;
use std::{env, fs};

use data_encoding::HEXLOWER;

/// The variable that names the folder where a target writes its seeds.
pub const FOLDER_VARIABLE: &str = "FUZZ_SEEDS";

/// A named vector.
pub type Seed = (String, Vec<u8>);

/// Writes a target's seeds into the folder that the environment names, if it names one.
///
/// # Panics
/// If the folder is not writable.
pub fn write(seeds: impl FnOnce() -> Vec<Seed>) {
    let Some(folder) = env::var_os(FOLDER_VARIABLE) else { return };
    let folder = Path::new(&folder);
    fs::create_dir_all(folder).expect("the folder of seeds can be made");
    for (name, bytes) in seeds() {
        fs::write(folder.join(name), bytes).expect("the folder of seeds is writable");
    }
}

/// The golden frames, one of each kind of message, and two that are compressed.
pub fn frames() -> Vec<Seed> {
    let plain = golden(include_str!("../../../actors/protocol/tests/golden/frames.txt"));
    let packed = golden(include_str!("../../../actors/protocol/tests/golden/compressed.txt"));
    plain.into_iter().chain(packed).collect()
}

/// The golden records: certificates, signatures, logs, leaves, a batch.
pub fn records() -> Vec<Seed> {
    golden(include_str!("../../../actors/protocol/tests/golden/records.txt"))
}

/// The canonical bytes of the golden entries.
pub fn canonical_entries() -> Vec<Seed> {
    let all = golden(include_str!("../../../actors/protocol/tests/golden/entries.txt"));
    all.into_iter().filter(|(name, _)| !name.ends_with("_id")).collect()
}

fn golden(text: &str) -> Vec<Seed> {
    let line = |line: &str| {
        let (name, hex) = line.split_once(" = ").expect("`name = hex`");
        (name.to_owned(), HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal"))
    };
    text.lines().map(line).collect()
}
