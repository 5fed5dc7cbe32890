//! A device's history, gone through from its first entry.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use data_encoding::HEXLOWER;
use protocol::state::Version;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::devices::ChangeView;
use super::subject::Subject;
use super::{Api, Problem, lines};
use crate::store::not_found;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayQuery {
    /// Up to this version; the last if not given.
    version: Option<Version>,
    /// Whether each change comes with the root that it leads to, which takes longer.
    #[serde(default)]
    roots: bool,
}

/// A line of a replay.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayLine {
    /// A change, in the order in which they were committed.
    Change {
        /// The change.
        #[serde(flatten)]
        #[schema(value_type = Object)]
        change: Box<ChangeView>,
        /// The root that it leads to, where that was asked for.
        root: Option<String>,
    },
    /// What all of them come to: the last line.
    Verdict(Verdict),
}

/// What a replay comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// The version.
    #[schema(value_type = u64)]
    pub version: Version,
    /// The root of the leaves that the entries come to.
    pub root: String,
    /// The root of the leaves that the brain keeps of that version.
    pub kept: String,
    /// Whether they are the same.
    pub same: bool,
}

/// A device's history from its first entry up to a version, one change a line, and in the last line
/// whether the entries come to what the brain keeps.
#[utoipa::path(get, path = "/api/v1/devices/{id}/replay",
    params(("id" = String, Path), ReplayQuery), security(("bearer" = [])),
    responses((status = 200, content_type = "application/x-ndjson", body = ReplayLine),
        (status = 404)))]
pub(super) async fn replay(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(ReplayQuery { version, roots }): Query<ReplayQuery>,
) -> Result<Response, Problem> {
    let store = api.store.clone();
    let found = Subject::device(&id)?.read(api, move |store, number| {
        let last = store.tree_record(number)?.map_or(0, |record| record.version);
        let to = version.unwrap_or(last);
        let missing = || Problem::from(not_found("this version"));
        if to <= last { Ok((number, to)) } else { Err(missing()) }
    });
    let axum::Json((number, to)) = found.await?;
    lines::answer(move |mut lines| {
        let replayed = store.replay(number, to, |change, tree| {
            let root = roots.then(|| HEXLOWER.encode(&tree.root()));
            let change = Box::new(ChangeView::from(change.clone()));
            lines.line(&ReplayLine::Change { change, root })
        });
        let ended = replayed.map(|replayed| {
            let Some(replayed) = replayed else { return };
            let (root, kept) = (HEXLOWER.encode(&replayed.root), HEXLOWER.encode(&replayed.kept));
            let same = root == kept;
            let verdict = Verdict { version: replayed.version, root, kept, same };
            // Whoever has gone does not want it.
            let _ = lines.line(&ReplayLine::Verdict(verdict));
        });
        lines.end(ended);
    })
}
