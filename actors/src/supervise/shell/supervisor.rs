//! Supervisors with a fixed set of children.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::{
    Commission, Report, Shell,
    child::{Child, ChildFactory, Launch, Running, Starting, not_spawned},
};
use crate::supervise::{
    address::Gauge,
    core::Incarnation,
    spec::{Rules, SetPolicy},
};

/// What a supervisor is made from: its policy and its children.
///
/// Children are started in the order given and stopped in the reverse order.
#[derive(Clone, Default)]
pub struct Supervisor {
    pub(super) policy: SetPolicy,
    pub(super) children: Vec<Child>,
}

impl Supervisor {
    /// A supervisor without children.
    pub fn new(policy: SetPolicy) -> Self {
        Self { policy, children: Vec::new() }
    }

    /// With one more child, the youngest.
    ///
    /// Of two children with one id the first counts.
    #[must_use]
    pub fn child(mut self, child: Child) -> Self {
        self.children.push(child);
        self
    }

    /// The rules of everybody in the tree that [`Root::start`](super::Root::start) makes of it
    /// under this name, from the root down.
    pub fn rules(&self, name: &str) -> Vec<Rules> {
        let root = Rules { path: name.to_owned(), child: None, set: Some(self.policy) };
        std::iter::once(root).chain(self.rules_below(name)).collect()
    }

    fn rules_below(&self, path: &str) -> Vec<Rules> {
        let mut rules = Vec::new();
        for child in &self.children {
            let path = format!("{path}/{}", child.spec.id);
            let (set, below) = child.factory.rules(&path).unzip();
            rules.push(Rules { path, child: Some(child.spec.policy), set });
            rules.extend(below.into_iter().flatten());
        }
        rules
    }

    /// Closes the addresses of all who will not come back.
    pub(super) fn close(&self) {
        for child in &self.children {
            child.factory.close();
        }
    }
}

/// Starts a supervisor.
pub(super) struct SupervisorFactory {
    blueprint: Supervisor,
    report: watch::Sender<Report>,
}

impl SupervisorFactory {
    pub(super) fn new(blueprint: Supervisor) -> Self {
        Self { blueprint, report: watch::Sender::new(Report::default()) }
    }

    pub(super) fn commission(&self, launch: &Launch) -> Commission {
        Commission {
            env: Arc::clone(&launch.env),
            cell: Arc::clone(&launch.cell),
            blueprint: self.blueprint.clone(),
            first: self.first(),
            report: self.report.clone(),
        }
    }

    /// Its children's lives are numbered on from where a predecessor got, so
    /// that what is left of that one's children cannot pass for theirs.
    fn first(&self) -> Incarnation {
        Incarnation(self.report.borrow().next.0.max(1))
    }
}

impl ChildFactory for SupervisorFactory {
    fn kind(&self) -> &'static str {
        "supervisor"
    }

    fn gauge(&self) -> Option<Weak<dyn Gauge>> {
        None
    }

    fn start(&self, launch: Launch) -> Starting<'_> {
        let commission = self.commission(&launch);
        Box::pin(async move {
            let spawned = launch.supervisor.spawn_linked(None, Shell, commission).await;
            let (actor, _) = spawned.map_err(not_spawned)?;
            Ok(Running::Supervisor { actor })
        })
    }

    fn rules(&self, path: &str) -> Option<(SetPolicy, Vec<Rules>)> {
        Some((self.blueprint.policy, self.blueprint.rules_below(path)))
    }

    fn over(&self, _life: Incarnation) {}

    fn close(&self) {
        self.blueprint.close();
    }
}
