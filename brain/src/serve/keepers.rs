//! The actors that look after journal, store and keys.
//!
//! What they look after lives as long as the process; what restarts is only the looking.

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Context, CrashJournal, Node, NodeError};

use crate::config::Live;
use crate::store::Store;
use crate::tls::Certificates;

/// How often the disk is looked at: what a full disk that was cleared is noticed within.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often crashes that are too old leave the journal.
const TRIM_EVERY: Duration = Duration::from_secs(60 * 60);
/// How often certificate files are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(60);

/// The actor that looks after the crash journal.
pub(super) struct JournalWatch {
    journal: Arc<CrashJournal>,
}

/// What it is told.
pub(super) enum JournalWatchMsg {
    /// Let what is too old go.
    TrimDue,
}

impl Node for JournalWatch {
    const KIND: &'static str = "journal";
    type Msg = JournalWatchMsg;
    type Args = CrashJournal;

    fn start(
        journal: &Arc<CrashJournal>,
        ctx: &Context<JournalWatchMsg>,
    ) -> Result<Self, NodeError> {
        ctx.cast_self(JournalWatchMsg::TrimDue);
        Ok(Self { journal: journal.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<JournalWatchMsg>,
        msg: JournalWatchMsg,
    ) -> Result<(), NodeError> {
        let JournalWatchMsg::TrimDue = msg;
        self.journal.trim();
        ctx.cast_after(TRIM_EVERY, JournalWatchMsg::TrimDue);
        Ok(())
    }

    fn label(_: &JournalWatchMsg) -> &'static str {
        "trim_due"
    }
}

/// What the actor of the keys starts from.
pub(super) struct KeyArgs {
    pub(super) certificates: Arc<Certificates>,
    pub(super) settings: Live,
}

/// The actor that renews the server's certificate, and takes one that was put in its place.
pub(super) struct KeyWatch {
    args: Arc<KeyArgs>,
}

/// What it is told.
pub(super) enum KeyWatchMsg {
    /// Look at the certificate files.
    CertificatesDue,
}

impl Node for KeyWatch {
    const KIND: &'static str = "keys";
    type Msg = KeyWatchMsg;
    type Args = KeyArgs;

    fn start(args: &Arc<KeyArgs>, ctx: &Context<KeyWatchMsg>) -> Result<Self, NodeError> {
        ctx.cast_after(CERTIFICATES_EVERY, KeyWatchMsg::CertificatesDue);
        Ok(Self { args: args.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<KeyWatchMsg>,
        msg: KeyWatchMsg,
    ) -> Result<(), NodeError> {
        let KeyWatchMsg::CertificatesDue = msg;
        let args = self.args.clone();
        let refresh = move || args.certificates.refresh(&args.settings.get().names);
        match tokio::task::spawn_blocking(refresh).await? {
            Ok(true) => tracing::info!("the server certificate was replaced"),
            Ok(false) => {}
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the server certificate stays as it is"
            ),
        }
        ctx.cast_after(CERTIFICATES_EVERY, KeyWatchMsg::CertificatesDue);
        Ok(())
    }

    fn label(_: &KeyWatchMsg) -> &'static str {
        "certificates_due"
    }
}

/// The actor that looks after the store.
pub(super) struct StoreWatch {
    store: Arc<Store>,
}

/// What the actor is told.
pub(super) enum StoreWatchMsg {
    /// Look.
    LookDue,
}

impl Node for StoreWatch {
    const KIND: &'static str = "store";
    type Msg = StoreWatchMsg;
    type Args = Store;

    fn start(store: &Arc<Store>, ctx: &Context<StoreWatchMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(StoreWatchMsg::LookDue);
        Ok(Self { store: store.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<StoreWatchMsg>,
        msg: StoreWatchMsg,
    ) -> Result<(), NodeError> {
        let StoreWatchMsg::LookDue = msg;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.probe()).await?;
        ctx.cast_after(LOOK_EVERY, StoreWatchMsg::LookDue);
        Ok(())
    }

    fn label(_: &StoreWatchMsg) -> &'static str {
        "look_due"
    }
}
