//! One contract for every implementation of every capability.

mod faults;
mod fixture;
mod machine_here;
mod robustness;
mod suite;
