//! The agent's parts, and how they are supervised.

use std::sync::Arc;

use actors::supervise::{
    Address, Child, ChildPolicy, CrashJournal, SetPolicy, Strategy, Supervisor, TreeView,
};
use tokio::sync::watch;

use super::AgentConfig;
use crate::apply::{self, Apply};
use crate::clock::Clock;
use crate::enrolment::Enrolment;
use crate::identity::Identity;
use crate::local_api::{self, LocalApi};
use crate::peers::PeersBoard;
use crate::presence::{self, Presence};
use crate::sense::{self, Sense};
use crate::shares::Shares;
use crate::spool::{SpoolNode, Store};
use crate::status::Board;
use crate::track::{self, Track};
use crate::uplink::{self, Uplink};

/// What the nodes are built from.
pub(super) struct Parts {
    pub(super) config: AgentConfig,
    pub(super) identity: Identity,
    pub(super) enrolment: Option<Enrolment>,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) board: Board,
    pub(super) track: Address<track::Msg>,
    pub(super) shares: Shares,
    pub(super) peers: PeersBoard,
    pub(super) tree: TreeView,
    pub(super) crashes: Option<CrashJournal>,
}

impl Parts {
    /// A part that fails takes those with it that were started after it and build on it.
    pub(super) fn supervisor(&self) -> Supervisor {
        let config = &self.config;
        let policy = ChildPolicy::default();
        let settings = watch::Sender::new(config.sense.clone());
        let wanted_server = watch::Sender::new(None);
        let (spool, spool_address) =
            Child::node::<SpoolNode>("spool", policy, Arc::new(self.store.clone()));
        let (sense, _) = Child::node::<Sense>(
            "sense",
            policy,
            Arc::new(sense::Args {
                board: config.board.clone(),
                settings: settings.subscribe(),
                track: self.track.clone(),
                status: self.board.clone(),
                clock: self.clock.clone(),
                sampler: config.sampler,
            }),
        );
        let track = Child::node_at::<Track>(
            "track",
            policy,
            &self.track,
            Arc::new(track::Args {
                identity: self.identity.clone(),
                fleet: self.enrolment.as_ref().map(|enrolment| enrolment.fleet),
                shared: None,
                issuer: self.enrolment.as_ref().and_then(|e| e.issuer()).map(|(_, key)| key),
                spool: spool_address,
                store: self.store.clone(),
                board: self.board.clone(),
                clock: self.clock.clone(),
                limits: config.limits,
                commit_delay: config.commit_delay,
            }),
        );
        let (uplink, _) = Child::node::<Uplink>(
            "uplink",
            policy,
            Arc::new(uplink::Args {
                identity: self.identity.clone(),
                data_dir: config.data_dir.clone(),
                clock: self.clock.clone(),
                board: self.board.clone(),
                track: self.track.clone(),
                shares: self.shares.clone(),
                request: config.request.clone(),
                server: config.server.clone(),
                wanted_server: wanted_server.subscribe(),
                api_key: config.api_key.clone(),
                ca_pem: config.ca_pem.clone(),
                compressions: config.compressions,
            }),
        );
        let (apply, _) = Child::node::<Apply>(
            "apply",
            policy,
            Arc::new(apply::Args {
                track: self.track.clone(),
                board: self.board.clone(),
                clock: self.clock.clone(),
                configured: config.sense.clone(),
                settings,
                wanted_server,
                log_level: config.log_level.clone(),
                hooks_dir: config.hooks_dir.clone(),
                verify_every: config.verify_every,
            }),
        );
        let supervisor = Supervisor::new(SetPolicy::with(Strategy::RestForOne))
            .child(spool)
            .child(sense)
            .child(track);
        let supervisor = self.shares.branches().into_iter().fold(supervisor, Supervisor::child);
        let supervisor = supervisor.child(apply).child(uplink);
        let supervisor = self.peers().into_iter().fold(supervisor, Supervisor::child);
        let (presence, _) = Child::node::<Presence>(
            "presence",
            policy,
            Arc::new(presence::Args {
                clock: self.clock.clone(),
                board: self.board.clone(),
                peers: self.peers.clone(),
                track: self.track.clone(),
            }),
        );
        let supervisor = supervisor.child(presence);
        if !config.local_api && config.metrics_listen.is_none() {
            return supervisor;
        }
        let (local_api, _) = Child::node::<LocalApi>(
            "local_api",
            policy,
            Arc::new(local_api::Args {
                socket: config.local_api.then(|| local_api::socket_in(&config.data_dir)),
                metrics_listen: config.metrics_listen,
                board: self.board.clone(),
                track: self.track.clone(),
                shares: self.shares.clone(),
                peers: self.peers.clone(),
                data_dir: config.data_dir.clone(),
                clock: self.clock.clone(),
                tree: self.tree.clone(),
                crashes: self.crashes.clone(),
            }),
        );
        supervisor.child(local_api)
    }

    /// The links to other devices, and who decides which those are.
    #[cfg(feature = "peers")]
    fn peers(&self) -> Vec<Child> {
        use actors::supervise::DynamicSupervisor;

        use crate::peers::{self, PEERS_MAX, PeerLink, Peers};

        let config = &self.config;
        if !config.peers.enabled {
            return Vec::new();
        }
        let policy = ChildPolicy::default();
        let links = DynamicSupervisor::<PeerLink>::new(SetPolicy::default(), policy, PEERS_MAX);
        let branch = Child::dynamic("peer-links", ChildPolicy::supervisor(), &links);
        let (peers, _) = Child::node::<Peers>(
            "peers",
            policy,
            Arc::new(peers::Args {
                identity: self.identity.clone(),
                data_dir: config.data_dir.clone(),
                settings: config.peers.clone(),
                clock: self.clock.clone(),
                track: self.track.clone(),
                shares: self.shares.clone(),
                board: self.peers.clone(),
                compressions: config.compressions,
                links,
            }),
        );
        vec![branch, peers]
    }

    /// Nobody is met: this build speaks to brains alone.
    #[cfg(not(feature = "peers"))]
    fn peers(&self) -> Vec<Child> {
        Vec::new()
    }
}
