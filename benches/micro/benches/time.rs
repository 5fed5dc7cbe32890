//! How long each case takes: `cargo bench -p micro --bench time`.

use divan::Bencher;
use divan::counter::ItemsCount;
use micro::case::Case;
use micro::cases;

fn main() {
    divan::main();
}

fn measure(bencher: Bencher<'_, '_>, case: &Case) {
    let mut run = (case.prepare)();
    bencher.counter(ItemsCount::new(case.items)).bench_local(&mut run);
}

#[divan::bench(name = "canonical encoding and id", args = cases::of("canonical encoding and id"), min_time = 0.1)]
fn canonical(bencher: Bencher<'_, '_>, case: &Case) {
    measure(bencher, case);
}

#[divan::bench(name = "state", args = cases::of("state"), min_time = 0.1)]
fn state(bencher: Bencher<'_, '_>, case: &Case) {
    measure(bencher, case);
}

#[divan::bench(name = "fold", args = cases::of("fold"), min_time = 0.1)]
fn fold(bencher: Bencher<'_, '_>, case: &Case) {
    measure(bencher, case);
}

#[divan::bench(name = "codec", args = cases::of("codec"), min_time = 0.1)]
fn codec(bencher: Bencher<'_, '_>, case: &Case) {
    measure(bencher, case);
}

#[divan::bench(name = "compression", args = cases::of("compression"), min_time = 0.1)]
fn compression(bencher: Bencher<'_, '_>, case: &Case) {
    measure(bencher, case);
}

#[divan::bench(name = "keys and handshake", args = cases::of("keys and handshake"), min_time = 0.1)]
fn keys(bencher: Bencher<'_, '_>, case: &Case) {
    measure(bencher, case);
}

#[divan::bench(name = "supervisor core", args = cases::of("supervisor core"), min_time = 0.1)]
fn supervisor_core(bencher: Bencher<'_, '_>, case: &Case) {
    measure(bencher, case);
}

#[divan::bench(
    name = "cast and call, by worker threads",
    args = cases::of("cast and call"),
    consts = [1, 2],
    min_time = 0.1
)]
fn messages<const THREADS: usize>(bencher: Bencher<'_, '_>, case: &Case) {
    let mut run = cases::messages(case.name, THREADS);
    bencher.counter(ItemsCount::new(case.items)).bench_local(&mut run);
}
