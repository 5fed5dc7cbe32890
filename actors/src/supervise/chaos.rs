//! Faults to order, for tests of the whole: compiled in by a feature, and never into a release.

use std::time::Duration;

use super::node::NodeError;

/// What an actor can be made to do in place of handling a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chaos {
    /// Panic.
    Panic,
    /// Return an error.
    Error,
    /// Await for ever.
    Hang,
    /// Await again and again, and never come to an end.
    Spin,
    /// Block the thread for 200 ms.
    Block,
    /// Block the thread for half a minute.
    Stall,
    /// Take 64 MiB of memory and panic with it.
    Grow,
    /// Panic, and do not come up the next two times.
    FailStarts,
}

impl Chaos {
    /// Every fault.
    pub const ALL: [Self; 8] = [
        Self::Panic,
        Self::Error,
        Self::Hang,
        Self::Spin,
        Self::Block,
        Self::Stall,
        Self::Grow,
        Self::FailStarts,
    ];

    /// How many starts are to fail as well.
    pub(super) fn bad_starts(self) -> u8 {
        if self == Self::FailStarts { 2 } else { 0 }
    }

    /// Does it.
    pub(super) async fn strike(self) -> Result<(), NodeError> {
        match self {
            Self::Panic | Self::FailStarts => panic!("chaos: a panic to order"),
            Self::Error => Err("chaos: an error to order".into()),
            Self::Hang => std::future::pending().await,
            Self::Spin => loop {
                tokio::task::yield_now().await;
            },
            Self::Block => {
                block(Duration::from_millis(200));
                Ok(())
            }
            Self::Stall => {
                block(Duration::from_secs(30));
                Ok(())
            }
            Self::Grow => {
                let grown = vec![1u8; 64 << 20];
                panic!("chaos: holding {} bytes", grown.len());
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it is there to block")]
fn block(time: Duration) {
    std::thread::sleep(time);
}
