//! `/peers`: the devices that this one shares trees with.

use protocol::session::with_causes;
use tokio::task::spawn_blocking;

use super::Args;
use super::http::Response;
use crate::peers::{Book, BookError, Known, Request};

/// All of them, and where this device is reached.
pub(super) fn list(args: &Args) -> Response {
    Response::json(200, &known(args))
}

/// Notes where a device is reached, and answers with all of them.
pub(super) async fn change(args: &Args, body: &[u8]) -> Response {
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Response::text(400, &format!("that is no address: {error}\n")),
    };
    let dir = args.data_dir.clone();
    let changed = spawn_blocking(move || {
        let mut book = Book::load(&dir)?;
        book.change(&request)?;
        book.store(&dir)
    });
    match changed.await {
        Ok(Ok(())) => {
            args.peers.book_changed();
            list(args)
        }
        Ok(Err(error)) => {
            let status = match error {
                BookError::Full | BookError::Unknown { .. } => 409,
                BookError::Disk(_) | BookError::Malformed { .. } => 500,
            };
            Response::text(status, &format!("{}\n", with_causes(&error)))
        }
        Err(_) => Response::text(503, "the agent is stopping\n"),
    }
}

/// Calls those that are not connected, whatever failed before.
pub(super) fn sync_now(args: &Args) -> Response {
    args.peers.sync_now();
    Response::json(202, &known(args))
}

fn known(args: &Args) -> Known {
    Known { listening: args.peers.listening(), peers: args.peers.all() }
}
