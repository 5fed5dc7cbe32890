//! Chance that can be looked up: one number for each seed, stream and step.
//!
//! A published generator written out here, for the readings of a seed must stay
//! what they are when a dependency changes its own.

/// What the chance is for.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Hour = 1,
    Walk = 2,
    Burst = 3,
    Outage = 4,
    OutageLength = 5,
}

/// Evenly spread over 0 to 1, without 1.
pub(super) fn unit(seed: u64, stream: Stream, step: u64) -> f64 {
    let bits = mix(mix(seed ^ ((stream as u64) << 56)).wrapping_add(step));
    // An f64 holds 53 bits.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn chance_is_even() {
        let count = 10_000;
        let sum: f64 = (0..count).map(|step| unit(5, Stream::Walk, step)).sum();
        assert!((sum / count as f64 - 0.5).abs() < 0.02);
    }
}
