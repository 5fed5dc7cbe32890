//! The cases, by what they belong to.

mod encoding;
mod keys;
mod messages;
mod state;
mod supervision;
mod wire;

use crate::case::Case;

pub use messages::compared as messages;

/// Every case.
pub fn all() -> impl Iterator<Item = Case> {
    let lists = [
        encoding::CASES,
        state::CASES,
        wire::CASES,
        keys::CASES,
        supervision::CASES,
        messages::CASES,
    ];
    lists.into_iter().flatten().copied()
}

/// The cases of a group.
pub fn of(group: &'static str) -> impl Iterator<Item = Case> {
    all().filter(move |case| case.group == group)
}
