//! What a shell keeps for one child.

use std::{sync::Arc, time::Duration};

use ractor::ActorProcessingErr;
use tokio::{sync::oneshot, task::AbortHandle};

use super::{
    Ended,
    child::{ChildFactory, Running},
    suspects::Suspects,
};
use crate::supervise::{
    core::Incarnation,
    crash::{Crash, Digest, Fault},
    spec::ChildSpec,
    tree::{NodeCell, Status, TreePath, TreeView},
};

/// The place of a child under its supervisor.
pub(super) struct Slot {
    pub(super) factory: Arc<dyn ChildFactory>,
    pub(super) cell: Arc<NodeCell>,
    pub(super) running: Option<Running>,
    /// The current life, or the last one.
    pub(super) life: Incarnation,
    pub(super) stuck_after: Option<Duration>,
    /// It was killed because it was stuck.
    pub(super) condemned: bool,
    /// Not yet recorded, because the decision is yet to come.
    pub(super) crash: Option<Arc<Crash>>,
    /// Who waits for it to leave.
    pub(super) leavers: Vec<oneshot::Sender<()>>,
    timer: Option<AbortHandle>,
    suspects: Suspects,
}

/// Why a child ended: told by its guard, or only as much as ractor knows.
#[derive(Debug)]
pub(crate) enum Cause {
    Told(Box<Crash>),
    Seen(Fault),
}

impl From<Fault> for Cause {
    fn from(fault: Fault) -> Self {
        Self::Seen(fault)
    }
}

impl Cause {
    pub(super) fn summary(&self) -> Arc<str> {
        match self {
            Self::Told(crash) => match crash.label {
                Some(label) => format!("{} at {label}", crash.fault).into(),
                None => crash.fault.to_string().into(),
            },
            Self::Seen(fault) => fault.to_string().into(),
        }
    }
}

/// What an error says that an actor failed with.
pub(super) fn fault_of(error: ActorProcessingErr) -> Cause {
    match error.downcast::<Crash>() {
        Ok(crash) => Cause::Told(crash),
        Err(error) => match error.downcast::<Ended>() {
            Ok(ended) => Cause::Seen(Fault::GaveUp { message: ended.to_string() }),
            Err(error) => Cause::Seen(Fault::of(&*error)),
        },
    }
}

impl Slot {
    pub(super) fn new(
        tree: &TreeView,
        parent: &TreePath,
        spec: &ChildSpec,
        factory: Arc<dyn ChildFactory>,
    ) -> Self {
        let path = parent.child(&spec.id);
        let cell = tree.register(&path, || {
            NodeCell::new(
                path.clone(),
                spec.id.clone(),
                factory.kind(),
                factory.gauge(),
                tree.changed(),
            )
        });
        Self {
            factory,
            cell,
            running: None,
            life: Incarnation::default(),
            stuck_after: spec.policy.stuck_after,
            condemned: false,
            crash: None,
            leavers: Vec::new(),
            timer: None,
            suspects: Suspects::default(),
        }
    }

    /// A life is about to begin.
    pub(super) fn begin(&mut self, life: Incarnation, now: Duration) {
        self.life = life;
        self.stop_timer();
        self.cell.begin(life, now);
    }

    /// There is at most one timer for a child: the one that brings it back.
    pub(super) fn set_timer(&mut self, timer: AbortHandle) {
        self.stop_timer();
        self.timer = Some(timer);
    }

    /// Notes how a life ended, for the tree and for the decision to come.
    pub(super) fn note(&mut self, incarnation: Incarnation, cause: Cause, now: Duration) {
        let crash = match cause {
            Cause::Told(crash) => Arc::from(crash),
            Cause::Seen(fault) => Arc::new(Crash {
                path: self.cell.path().clone(),
                kind: self.cell.kind(),
                incarnation,
                // A handler that was dropped half way left its label behind.
                label: self.cell.activity().current().map(|(label, _)| label),
                digest: self.running.as_ref().and_then(Running::digest),
                trace_id: None,
                fault,
                uptime: now.saturating_sub(self.cell.born()),
            }),
        };
        // To be killed is nobody's fault; to be stuck is.
        let guilty = !matches!(crash.fault, Fault::Killed | Fault::Cancelled);
        if let Some(digest) = crash.digest.filter(|_| guilty)
            && self.suspects.blame(digest)
        {
            tracing::error!(path = %crash.path, label = crash.label, %digest, "message is condemned: it killed its node too often");
            self.cell.condemn(self.suspects.condemned());
        }
        self.cell.crashed(Arc::clone(&crash));
        self.crash = Some(crash);
    }

    /// A message that killed its node is handled again when it comes again.
    pub(super) fn pardon(&mut self, digest: Digest) {
        self.suspects.pardon(digest);
        self.cell.condemn(self.suspects.condemned());
    }

    /// The supervisor goes and the child with it, maybe to come back.
    pub(super) fn vacate(self) {
        // A successor may have taken over already.
        if self.cell.incarnation() == self.life {
            self.cell.over(Status::Stopped);
        }
    }

    /// The child is gone for good.
    pub(super) fn forget(mut self, tree: &TreeView) {
        self.stop_timer();
        tree.remove(self.cell.path());
        self.factory.close();
        // A factory of a dynamic set frees its name when it is dropped, and
        // only then can somebody be told that it is free.
        drop(self.factory);
        for leaver in self.leavers {
            let _ = leaver.send(());
        }
    }

    fn stop_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }
}
