//! `/shared`: the trees that this device shares.

use std::collections::BTreeMap;

use protocol::session::with_causes;
use protocol::state::State;

use super::http::Response;
use super::{Args, PATIENCE};
use crate::shares::{self, Request, Share};
use crate::track;

/// All of them, without what is in them. One whose keeper does not answer is left out.
pub(super) async fn list(args: &Args) -> Response {
    let own = match own_state(args).await {
        Ok(own) => own,
        Err(unavailable) => return unavailable,
    };
    let mut found = Vec::new();
    for name in args.shares.names() {
        let Some(share) = args.shares.find(&name) else { continue };
        match share.status(&own, PATIENCE / 10).await {
            Ok(mut status) => {
                status.shared = BTreeMap::new();
                found.push(status);
            }
            Err(error) => {
                tracing::warn!(
                    group = name,
                    error = with_causes(&error),
                    "a group does not answer"
                );
            }
        }
    }
    Response::json(200, &found)
}

/// One of them, with what is in it.
pub(super) async fn show(args: &Args, group: &str) -> Response {
    match (own_state(args).await, find(args, group)) {
        (Err(refused), _) | (_, Err(refused)) => refused,
        (Ok(own), Ok(share)) => shown(&share, &own).await,
    }
}

/// Writes into one, and answers with it as it is then.
pub(super) async fn write(args: &Args, body: &[u8], uid: u32) -> Response {
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Response::text(400, &format!("that is no change: {error}\n")),
    };
    let draft = match request.draft(&format!("local:uid-{uid}")) {
        Ok(draft) => draft,
        Err(error) => return Response::text(400, &format!("{}\n", with_causes(&error))),
    };
    let (own, share) = match (own_state(args).await, find(args, &request.group)) {
        (Err(refused), _) | (_, Err(refused)) => return refused,
        (Ok(own), Ok(share)) => (own, share),
    };
    if !shares::is_in(&own, &request.group) {
        let text = format!("this device is no member of group {:?} any more\n", request.group);
        return Response::text(403, &text);
    }
    match track::write(&share.track, draft, None).await {
        Ok(_) => shown(&share, &own).await,
        Err(error) => Response::text(409, &format!("{}\n", with_causes(&error))),
    }
}

async fn shown(share: &Share, own: &State) -> Response {
    match share.status(own, PATIENCE / 4).await {
        Ok(status) => Response::json(200, &status),
        Err(error) => Response::text(503, &format!("{}\n", with_causes(&error))),
    }
}

async fn own_state(args: &Args) -> Result<State, Response> {
    let own = args.track.ask(track::Msg::State, PATIENCE / 4).await;
    own.map(|own| own.state).map_err(|error| Response::text(503, &format!("{error}\n")))
}

fn find(args: &Args, group: &str) -> Result<Share, Response> {
    args.shares.find(group).ok_or_else(|| {
        let text = format!("this device is in no group {group:?}; see `edge shared list`\n");
        Response::text(404, &text)
    })
}
