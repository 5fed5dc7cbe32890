//! An operation with its input.

use std::fmt;

/// A prepared operation: each call does the whole of it once.
pub type Run = Box<dyn FnMut()>;

/// One operation that is measured.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it belongs to.
    pub group: &'static str,
    /// What it does.
    pub name: &'static str,
    /// How many items one run deals with: entries, messages, bytes of 1,000.
    pub items: u64,
    /// Makes the input.
    pub prepare: fn() -> Run,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
