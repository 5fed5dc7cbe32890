//! What the kernel says of processes and the machine, and what times come to.

mod latency;
mod machine;
mod process;

pub(super) use latency::{Latency, Spread};
pub(super) use machine::Machine;
pub(super) use process::{Memory, Usage, memory, usage, usage_of_tree};
