//! The command line of the brain.

#![forbid(unsafe_code)]

mod cli;

/// glibc keeps the memory of a mass disconnect; this allocator gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
