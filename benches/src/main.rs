//! The load bench: `load --help`.

#![forbid(unsafe_code)]

/// The clients share the machine with what they measure and must not be the slow part.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    benches::load::main()
}
