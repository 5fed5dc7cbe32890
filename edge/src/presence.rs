//! What a device tells of its links: in which mode it works, and which devices it sees.
//!
//! Both are leaves of its own tree, so the brain learns later what happened while it was away.

mod mode;
mod node;

pub use mode::{Mode, ModeNow, ModeRequest};
pub use node::{Args, Presence};
