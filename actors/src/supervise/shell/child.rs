//! How children are described and started.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
};

use ractor::{ActorCell, ActorRef, SpawnErr};

use super::{
    SHUTDOWN, ShellMsg,
    dynamic::DynamicSupervisor,
    root::Env,
    slot::{Cause, fault_of},
    supervisor::{Supervisor, SupervisorFactory},
};
use crate::supervise::{
    address::{Address, Gauge, Rouse},
    context::Life,
    core::Incarnation,
    crash::{Digest, Fault},
    guard::{Birth, Guard},
    node::Node,
    spec::{ChildId, ChildPolicy, ChildSpec, Rules, SetPolicy},
    tell::tell,
    tree::{Live, NodeCell},
};

/// A child to be: its rules, and how to start it.
#[derive(Clone)]
pub struct Child {
    pub(super) spec: ChildSpec,
    pub(super) factory: Arc<dyn ChildFactory>,
}

impl Child {
    /// A node, and the address it will have.
    ///
    /// The address can be used at once: messages wait until the node is up.
    pub fn node<N: Node>(
        id: impl Into<ChildId>,
        policy: ChildPolicy,
        args: Arc<N::Args>,
    ) -> (Self, Address<N::Msg>) {
        let address = Address::new(N::CAPACITY);
        (Self::node_at::<N>(id, policy, &address, args), address)
    }

    /// A node at an address that was made before, because somebody that the
    /// node has to know has to know the node.
    pub fn node_at<N: Node>(
        id: impl Into<ChildId>,
        policy: ChildPolicy,
        address: &Address<N::Msg>,
        args: Arc<N::Args>,
    ) -> Self {
        Self {
            spec: ChildSpec::new(id, policy),
            factory: Arc::new(NodeFactory::<N>::new(address.clone(), args)),
        }
    }

    /// A supervisor with children of its own.
    pub fn supervisor(id: impl Into<ChildId>, policy: ChildPolicy, supervisor: Supervisor) -> Self {
        Self {
            spec: ChildSpec::new(id, policy),
            factory: Arc::new(SupervisorFactory::new(supervisor)),
        }
    }

    /// A supervisor whose children come and go.
    pub fn dynamic<N: Node>(
        id: impl Into<ChildId>,
        policy: ChildPolicy,
        supervisor: &DynamicSupervisor<N>,
    ) -> Self {
        Self { spec: ChildSpec::new(id, policy), factory: supervisor.factory() }
    }
}

/// Starts a child, again and again.
pub(crate) trait ChildFactory: Send + Sync + 'static {
    fn kind(&self) -> &'static str;

    fn gauge(&self) -> Option<Weak<dyn Gauge>>;

    /// What it does with its children, and the rules of everybody below `path`, which is its own.
    fn rules(&self, path: &str) -> Option<(SetPolicy, Vec<Rules>)> {
        let _ = path;
        None
    }

    /// Starts it, linked under its supervisor.
    fn start(&self, launch: Launch) -> Starting<'_>;

    /// A life has ended; there may be another.
    fn over(&self, life: Incarnation);

    /// A life went passive; `rouse` has another one started when it is needed.
    fn rest(&self, life: Incarnation, rouse: Rouse) {
        let _ = rouse;
        self.over(life);
    }

    /// Closes the child's mailbox if it is passive and nothing waits there; says whether it did.
    fn close_passive(&self) -> bool {
        false
    }

    /// There will be no other, unless it is started after all.
    fn close(&self);
}

pub(crate) type Starting<'a> = Pin<Box<dyn Future<Output = Result<Running, Cause>> + Send + 'a>>;

/// What a factory needs for one life.
pub(crate) struct Launch {
    pub(crate) env: Arc<Env>,
    pub(crate) cell: Arc<NodeCell>,
    pub(crate) incarnation: Incarnation,
    pub(crate) supervisor: ActorCell,
}

/// One life of a child.
pub(crate) enum Running {
    Node { actor: ActorCell, life: Arc<Life> },
    Supervisor { actor: ActorRef<ShellMsg> },
}

impl Running {
    pub(super) fn live(&self) -> Live {
        match self {
            Self::Node { actor, life } => {
                Live::Actor { actor: actor.clone(), life: Some(Arc::clone(life)) }
            }
            Self::Supervisor { actor } => Live::Actor { actor: actor.get_cell(), life: None },
        }
    }

    /// What tells the message that it handles, or handled last, from others.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Node { life, .. } => life.digest(),
            Self::Supervisor { .. } => None,
        }
    }

    pub(super) fn actor(&self) -> ActorCell {
        match self {
            Self::Node { actor, .. } => actor.clone(),
            Self::Supervisor { actor } => actor.get_cell(),
        }
    }

    /// Asks; a supervisor must not be stopped through ractor, which would kill
    /// its children.
    pub(super) fn ask_to_stop(&self, for_good: bool) {
        match self {
            Self::Node { actor, life } => {
                life.interrupt();
                actor.stop(Some(SHUTDOWN.to_owned()));
            }
            Self::Supervisor { actor } => {
                // One that is gone already is reported as such.
                let _ = tell(actor, ShellMsg::Stop { for_good });
            }
        }
    }
}

/// Starts nodes.
pub(super) struct NodeFactory<N: Node> {
    address: Address<N::Msg>,
    args: Arc<N::Args>,
}

impl<N: Node> NodeFactory<N> {
    pub(super) fn new(address: Address<N::Msg>, args: Arc<N::Args>) -> Self {
        Self { address, args }
    }

    pub(super) fn address(&self) -> &Address<N::Msg> {
        &self.address
    }
}

impl<N: Node> ChildFactory for NodeFactory<N> {
    fn kind(&self) -> &'static str {
        N::KIND
    }

    fn gauge(&self) -> Option<Weak<dyn Gauge>> {
        let mailbox: Weak<_> = Arc::downgrade(self.address.mailbox());
        Some(mailbox)
    }

    fn start(&self, launch: Launch) -> Starting<'_> {
        let life = Arc::new(Life::default());
        let birth = Birth {
            args: Arc::clone(&self.args),
            address: self.address.clone(),
            incarnation: launch.incarnation,
            env: launch.env,
            cell: launch.cell,
            life: Arc::clone(&life),
        };
        Box::pin(async move {
            let spawned = launch.supervisor.spawn_linked(None, Guard::<N>::new(), birth).await;
            let (actor, _) = spawned.map_err(not_spawned)?;
            Ok(Running::Node { actor: actor.get_cell(), life })
        })
    }

    fn over(&self, life: Incarnation) {
        self.address.mailbox().detach(life);
    }

    fn rest(&self, life: Incarnation, rouse: Rouse) {
        self.address.mailbox().rest(life, rouse);
    }

    fn close_passive(&self) -> bool {
        self.address.mailbox().close_passive()
    }

    fn close(&self) {
        self.address.mailbox().close();
    }
}

pub(super) fn not_spawned(error: SpawnErr) -> Cause {
    match error {
        SpawnErr::StartupFailed(error) => fault_of(error),
        other => Cause::Seen(Fault::of(&other)),
    }
}
