//! How much memory an input may cost.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Runs `step` and refuses that it ever held more than `bytes_max` at once beyond what was held
/// before. What C libraries allocate is not counted; libFuzzer's own limits see that.
///
/// # Panics
/// Where it held more: that is the finding.
pub fn bounded<T>(bytes_max: usize, step: impl FnOnce() -> T) -> T {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = step();
    let held = HEAP.peak_usage().saturating_sub(before);
    assert!(held <= bytes_max, "the input made the decoder hold {held} bytes, over {bytes_max}");
    result
}
