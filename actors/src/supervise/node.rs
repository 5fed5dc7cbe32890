//! The trait that our actors implement.

use std::sync::Arc;

use protocol::trace::TraceContext;

use super::{
    context::Context,
    crash::{Crash, Digest},
};

/// Why a node could not start or handle a message.
///
/// Any error does, so `?` works in handlers. Returning one is a crash.
pub type NodeError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a message is not handled any more.
#[derive(Clone, Debug)]
pub struct Condemned {
    /// What tells it from others.
    pub digest: Digest,
    /// How its node ended the last time, where that was the last crash.
    pub crash: Option<Arc<Crash>>,
}

/// An actor under supervision.
///
/// A node is a plain value that is given one message at a time. It is built by
/// [`start`](Node::start), and when it panics, returns an error, is killed or
/// gets stuck, it is thrown away and built anew from the same arguments. What
/// waits in its mailbox survives that; what it had cast to itself does not.
pub trait Node: Sized + Send + 'static {
    /// Names this kind of node in the tree, the journal and the metrics.
    const KIND: &'static str;

    /// How many messages from others may wait before senders wait or shed.
    const CAPACITY: usize = 256;

    /// What it is sent.
    type Msg: Send + 'static;

    /// What every incarnation is built from.
    type Args: Send + Sync + 'static;

    /// Builds the node: no I/O, nothing that takes time.
    ///
    /// Whoever has to load something casts a message to itself here: it comes
    /// before everything that waits in the mailbox, and a failed load is then
    /// an ordinary crash for which no sibling waits.
    fn start(args: &Arc<Self::Args>, ctx: &Context<Self::Msg>) -> Result<Self, NodeError>;

    /// Handles one message.
    ///
    /// It may await, and is dropped at an await when the node is killed.
    fn handle(
        &mut self,
        ctx: &Context<Self::Msg>,
        msg: Self::Msg,
    ) -> impl Future<Output = Result<(), NodeError>> + Send;

    /// Says goodbye, on a graceful stop only: within the time of its shutdown
    /// policy, and with the mailbox left as it is.
    fn stopping(&mut self, ctx: &Context<Self::Msg>) -> impl Future<Output = ()> + Send {
        let _ = ctx;
        async {}
    }

    /// Names the kind of a message for the guard, the journal and the metrics.
    ///
    /// A few constants, typically one for each variant.
    fn label(msg: &Self::Msg) -> &'static str;

    /// Whether a message says that somebody needs the node. Those that only look at it do not keep
    /// it from being idle.
    fn is_use(msg: &Self::Msg) -> bool {
        let _ = msg;
        true
    }

    /// Tells a message that may be what a handler fails at from others of its kind, cheaply: it is
    /// asked before every message is handled. None where it makes no difference.
    fn digest(msg: &Self::Msg) -> Option<Digest> {
        let _ = msg;
        None
    }

    /// Deals with a message that has killed this node three times, in place of
    /// [`handle`](Node::handle): keeps it for people to see, tells whoever sent it, and does
    /// nothing else with it. Messages without a [`digest`](Node::digest) never come here.
    fn condemned(
        &mut self,
        ctx: &Context<Self::Msg>,
        msg: Self::Msg,
        why: Condemned,
    ) -> impl Future<Output = Result<(), NodeError>> + Send {
        let _ = (ctx, msg, why);
        async { Ok(()) }
    }

    /// The sampled spans that a message came from. The span of its handler is a root that links
    /// to them; a message with none is not traced.
    fn senders(msg: &Self::Msg) -> Vec<TraceContext> {
        let _ = msg;
        Vec::new()
    }
}
