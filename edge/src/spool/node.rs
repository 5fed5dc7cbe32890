//! The spool as a node: whoever asks waits, the runtime does not.

use std::sync::{Arc, Mutex, PoisonError};

use actors::supervise::{Context, Node, NodeError, Reply};
use protocol::PublicKey;
use protocol::history::{Entry, SignedHead};

use super::{Commit, Damage, Loaded, MemorySpool, Options, Spool, SpoolError, SqliteSpool};
use crate::clock::Clock;
use crate::track::Measured;

/// What the spool is asked.
pub enum Msg {
    /// Open the spool, if it is not open.
    Open,
    /// Everything a replica is restored from, and what waits in the logs of this key.
    Load(PublicKey, Reply<Answer<Option<(Loaded, Measured)>>>),
    /// Make a commit durable.
    Commit(Box<Commit>, Reply<Answer<()>>),
    /// Read entries of the log with this number, above a number, about so many bytes.
    Range(u32, u64, usize, Reply<Answer<Vec<Entry>>>),
    /// The highest kept signed head of the log with this number above one number and up to another.
    Seal(u32, u64, u64, Reply<Answer<Option<SignedHead>>>),
    /// Free bytes.
    Prune(Vec<(u32, u64)>, u64, Reply<Answer<u64>>),
}

/// What the spool answers.
pub type Answer<T> = Result<T, Arc<SpoolError>>;

/// Where entries are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(std::path::PathBuf, Options),
    /// In memory, until the agent ends.
    Memory,
}

/// A spool that outlives the node in front of it.
#[derive(Clone)]
pub struct Store {
    place: Place,
    clock: Clock,
    slot: Arc<Mutex<Slot>>,
}

#[derive(Default)]
struct Slot {
    spool: Option<Box<dyn Spool>>,
    damage: Option<Damage>,
}

impl Store {
    /// A spool that is not opened yet.
    pub fn new(place: Place, clock: Clock) -> Self {
        Self { place, clock, slot: Arc::default() }
    }

    /// Opens the spool, if it is not open. A damaged file is set aside.
    pub fn open(&self) -> Result<(), SpoolError> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.spool.is_some() {
            return Ok(());
        }
        slot.spool = Some(match &self.place {
            Place::Memory => Box::new(MemorySpool::new()),
            Place::File(path, options) => {
                let now_ms = self.clock.wall_ms();
                let opened = SqliteSpool::open_or_set_aside(path, *options, now_ms)?;
                if let Some(damage) = opened.damage {
                    let set_aside = damage.set_aside.display();
                    tracing::error!(what = %damage.what, %set_aside, "damaged spool is set aside");
                    slot.damage = Some(damage);
                }
                Box::new(opened.spool)
            }
        });
        Ok(())
    }

    /// The damage found when the spool was opened last, once.
    pub fn take_damage(&self) -> Option<Damage> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).damage.take()
    }

    /// Does something with the open spool. Blocks.
    ///
    /// After an error that leaves doubt about the file it is closed, to be opened and checked anew.
    pub fn with<T>(
        &self,
        act: impl FnOnce(&mut dyn Spool) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        self.open()?;
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(spool) = slot.spool.as_deref_mut() else { return Err(SpoolError::InUse) };
        let result = act(spool);
        let doubtful = matches!(
            result,
            Err(SpoolError::Damaged { .. } | SpoolError::Sqlite { .. } | SpoolError::Disk(_))
        );
        if doubtful && self.place != Place::Memory {
            slot.spool = None;
        }
        result
    }

    /// Closes the spool.
    pub fn close(&self) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if self.place != Place::Memory {
            fail::fail_point!("spool.before_close");
            slot.spool = None;
            fail::fail_point!("spool.closed");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The node in front of a [`Store`].
pub struct SpoolNode {
    store: Store,
}

impl SpoolNode {
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut dyn Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<Answer<T>, NodeError> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || store.with(act)).await?;
        Ok(done.map_err(Arc::new))
    }
}

impl Node for SpoolNode {
    const KIND: &'static str = "spool";
    type Msg = Msg;
    type Args = Store;

    fn start(store: &Arc<Store>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::Open);
        Ok(Self { store: Store::clone(store) })
    }

    async fn handle(&mut self, _: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        let failed = match msg {
            Msg::Open => {
                let store = self.store.clone();
                tokio::task::spawn_blocking(move || store.open()).await??;
                None
            }
            Msg::Load(key, reply) => {
                let answer = self.blocking(move |spool| load(spool, key)).await?;
                respond(reply, answer)
            }
            Msg::Commit(commit, reply) => {
                let answer = self.blocking(move |spool| spool.commit(&commit)).await?;
                respond(reply, answer)
            }
            Msg::Range(log, after, bytes_max, reply) => {
                let answer = self.blocking(move |spool| spool.range(log, after, bytes_max)).await?;
                respond(reply, answer)
            }
            Msg::Seal(log, after, up_to, reply) => {
                let answer = self.blocking(move |spool| spool.seal(log, after, up_to)).await?;
                respond(reply, answer)
            }
            Msg::Prune(up_to, bytes, reply) => {
                let answer = self.blocking(move |spool| spool.prune(&up_to, bytes)).await?;
                respond(reply, answer)
            }
        };
        // Whoever asked has the error; the node itself fails only where a new life, with the
        // checks of its opening, is the cure.
        match failed {
            Some(error) if error.is_damage() => Err(Box::new(error)),
            _ => Ok(()),
        }
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        let store = self.store.clone();
        // The checkpoint at the end of a connection writes and waits for the disk.
        if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::warn!(%error, "spool did not close in good order");
        }
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Open => "open",
            Msg::Load(..) => "load",
            Msg::Commit(..) => "commit",
            Msg::Range(..) => "range",
            Msg::Seal(..) => "seal",
            Msg::Prune(..) => "prune",
        }
    }
}

fn respond<T: Send + 'static>(
    reply: Reply<Answer<T>>,
    answer: Answer<T>,
) -> Option<Arc<SpoolError>> {
    let failed = answer.as_ref().err().cloned();
    reply.send(answer);
    failed
}

fn load(spool: &mut dyn Spool, own: PublicKey) -> Result<Option<(Loaded, Measured)>, SpoolError> {
    let Some(loaded) = spool.load()? else { return Ok(None) };
    let mut measured = Measured { entry_bytes: spool.entry_bytes()?, ..Measured::default() };
    for (number, log) in (0u32..).zip(&loaded.logs) {
        if log.state.log.author == own {
            let waiting = spool.sizes(number, log.delivered.stored)?;
            measured.waiting.push((number, waiting));
        }
    }
    Ok(Some((loaded, measured)))
}
