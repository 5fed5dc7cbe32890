//! What a tree's leaves are: paths, values, and the difference between two states.

mod delta;
mod path;
mod value;
mod version;

pub use delta::{State, StateDelta, apply, diff};
pub use path::{PATH_BYTES_MAX, PATH_DEPTH_MAX, Path, PathError};
pub use value::{Finite, Scalar, VALUE_BYTES_MAX, Value, ValueError};
pub use version::{StateChange, StateSource, Version, VersionedState};
