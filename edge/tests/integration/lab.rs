//! Deaths at named places, power cuts, and a planted fault: what only a lab build can show.
//! `cargo test -p edge --features lab --test integration lab::`

mod failpoints;
mod power;
