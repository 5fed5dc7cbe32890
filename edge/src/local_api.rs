//! What the device's own users may ask: a Unix socket beside the data, for its owner only.
//!
//! It speaks HTTP, one request a connection: `/status` is the agent's [`Status`] as JSON, `/tree`
//! its actors, `/crashes` what failed lately, `/overrides` what is set here in place of what is
//! desired (with `POST`, it sets one), `/shared` the trees that it shares (with `POST`, it writes
//! into one), `/peers` the devices that it shares them with (with `POST`, it is told where they are),
//! `/sync` calls them now (`POST`), `/mode` declares an emergency or ends it (`POST`), `/metrics` its figures for Prometheus, `/healthz` whether it runs, `/readyz` whether
//! it keeps what it is given. Where it is configured, the last three are answered over TCP as well.

mod http;
mod peers;
mod readiness;
mod shared;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{
    Address, Context, CrashJournal, CrashQuery, Fault, Node, NodeError, TreeView,
};
use data_encoding::HEXLOWER;
use protocol::session::with_causes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::overrides;
use crate::peers::PeersBoard;
use crate::presence::ModeRequest;
use crate::shares::Shares;
use crate::status::{Board, Status};
use crate::track;
use http::{Method, Request, Response};

pub use readiness::{Readiness, readiness};

/// A user who does not read is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer is longer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// So many crashes are shown, the latest.
const CRASHES: usize = 100;
/// A reason is not a report.
const REASON_BYTES_MAX: usize = 256;
/// So that a full table of descriptors does not become a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// What the local API is built from.
#[derive(Clone)]
pub struct Args {
    /// Where the socket is, if there is one.
    pub socket: Option<PathBuf>,
    /// Where figures and health are shown to the network, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// What to show.
    pub board: Board,
    /// For the tree's root and overrides.
    pub track: Address<track::Msg>,
    /// The trees that this device shares.
    pub shares: Shares,
    /// The devices that it shares them with.
    pub peers: PeersBoard,
    /// Where the addresses of those lie.
    pub data_dir: PathBuf,
    /// The time, for leases.
    pub clock: Clock,
    /// The agent's parts, live.
    pub tree: TreeView,
    /// What failed, where that is kept.
    pub crashes: Option<CrashJournal>,
}

/// What the local API is told.
pub enum Msg {
    /// Open the sockets and answer.
    Serve,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No agent answers.
    #[error("no agent runs on {}; start it with `edge run`", socket.display())]
    NotRunning {
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not answer.
    #[error("the agent does not answer; look into its log")]
    Silent,
    /// It answered something else.
    #[error("the agent's answer is not understood; are both of one release?")]
    Malformed(#[source] serde_json::Error),
    /// It does not do what is asked.
    #[error("the agent refuses: {why}")]
    Refused {
        /// Why.
        why: String,
    },
}

/// The local API's node.
pub struct LocalApi {
    args: Arc<Args>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// The device's owner, or the system's.
    Owner {
        /// Which user that is.
        uid: u32,
    },
    /// Anybody who reaches the address.
    Network,
}

impl Node for LocalApi {
    const KIND: &'static str = "local_api";
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::Serve);
        Ok(Self { args: args.clone() })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        // A device does its work also where nobody can ask it how it is.
        match msg {
            Msg::Serve => {
                if let Some(socket) = &self.args.socket {
                    match listen(socket) {
                        Ok(listener) => {
                            ctx.spawn("serve", serve_owner(listener, self.args.clone()));
                        }
                        Err(error) => {
                            let socket = socket.display();
                            tracing::error!(%error, %socket, "local API is not available");
                        }
                    }
                }
                if let Some(address) = self.args.metrics_listen {
                    match TcpListener::bind(address).await {
                        Ok(listener) => {
                            ctx.spawn("serve_network", serve_network(listener, self.args.clone()));
                        }
                        Err(error) => {
                            tracing::error!(%error, %address, "metrics are not available");
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        if let Some(socket) = &self.args.socket {
            // What is left of it would only be refused.
            let _ = std::fs::remove_file(socket);
        }
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Serve => "serve",
        }
    }
}

/// The name of the socket in a data folder.
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("edge.sock")
}

/// Asks the agent of a data folder how it is.
pub async fn ask_status(data_dir: &Path) -> Result<Status, StatusError> {
    ask(data_dir, "/status").await
}

/// Asks the agent of a data folder for what it shows at a path.
pub async fn ask<T: DeserializeOwned>(data_dir: &Path, path: &str) -> Result<T, StatusError> {
    exchange(data_dir, format!("GET {path} HTTP/1.0\r\n\r\n")).await
}

/// Asks the agent of a data folder to do something.
pub async fn order<T: DeserializeOwned>(
    data_dir: &Path,
    path: &str,
    what: &impl Serialize,
) -> Result<T, StatusError> {
    let body = serde_json::to_string(what).map_err(StatusError::Malformed)?;
    let length = body.len();
    let request = format!("POST {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
    exchange(data_dir, request).await
}

async fn exchange<T: DeserializeOwned>(data_dir: &Path, text: String) -> Result<T, StatusError> {
    let socket = socket_in(data_dir);
    let stream = UnixStream::connect(&socket).await;
    let mut stream = stream.map_err(|source| StatusError::NotRunning { socket, source })?;
    let mut answer = Vec::new();
    let ask = async {
        stream.write_all(text.as_bytes()).await?;
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await
    };
    match timeout(PATIENCE, ask).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return Err(StatusError::Silent),
    }
    let body = http::body(&answer);
    if matches!(http::status(&answer), 400..600) {
        return Err(StatusError::Refused { why: String::from_utf8_lossy(body).trim().to_owned() });
    }
    serde_json::from_slice(body).map_err(StatusError::Malformed)
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The folder lets nobody else in, so the moment before the mode is set is nobody's chance.
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

async fn serve_owner(listener: UnixListener, args: Arc<Args>) -> Result<(), NodeError> {
    loop {
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            let uid = stream.peer_cred()?.uid();
            Ok((stream, uid))
        });
        let uid = accepted.as_ref().map_or(u32::MAX, |(_, uid)| *uid);
        let stream = accepted.map(|(stream, _)| stream);
        serve(stream, &args, Audience::Owner { uid }).await;
    }
}

async fn serve_network(listener: TcpListener, args: Arc<Args>) -> Result<(), NodeError> {
    loop {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        serve(accepted, &args, Audience::Network).await;
    }
}

/// One after the other: a user gains nothing by opening many.
async fn serve<S>(accepted: io::Result<S>, args: &Args, audience: Audience)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match accepted {
        Ok(stream) => {
            if timeout(PATIENCE, answer(stream, args, audience)).await.is_err() {
                tracing::debug!(?audience, "user did not ask or read in time");
            }
        }
        Err(error) => {
            tracing::warn!(%error, "local API cannot accept");
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, args: &Args, audience: Audience) {
    let response = match http::read(&mut stream).await {
        Ok(request) => respond(&request, args, audience).await,
        Err(refusal) => refusal,
    };
    // Whoever left does not want it.
    let _ = stream.write_all(&response.to_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn respond(request: &Request, args: &Args, audience: Audience) -> Response {
    match (request.method, request.path.as_str(), audience) {
        (Method::Get, "/status", Audience::Owner { .. }) => {
            Response::json(200, &status(args).await)
        }
        (Method::Get, "/tree", Audience::Owner { .. }) => {
            Response::json(200, &args.tree.snapshot())
        }
        (Method::Get, "/crashes", Audience::Owner { .. }) => crashes(args).await,
        (Method::Get, "/overrides", Audience::Owner { .. }) => all_overrides(args).await,
        (Method::Post, "/overrides", Audience::Owner { uid }) => {
            set_override(args, &request.body, uid).await
        }
        (Method::Get, "/shared", Audience::Owner { .. }) => shared::list(args).await,
        (Method::Get, path, Audience::Owner { .. }) if path.starts_with("/shared/") => {
            shared::show(args, &path["/shared/".len()..]).await
        }
        (Method::Post, "/shared", Audience::Owner { uid }) => {
            shared::write(args, &request.body, uid).await
        }
        (Method::Get, "/peers", Audience::Owner { .. }) => peers::list(args),
        (Method::Post, "/peers", Audience::Owner { .. }) => {
            peers::change(args, &request.body).await
        }
        (Method::Post, "/sync", Audience::Owner { .. }) => peers::sync_now(args),
        (Method::Post, "/mode", Audience::Owner { uid }) => set_mode(args, &request.body, uid),
        (Method::Get, "/metrics", _) => match args.board.metrics().scrape() {
            Some(text) => Response::new(200, telemetry::TEXT_CONTENT_TYPE, text),
            None => Response::text(503, "the agent is starting\n"),
        },
        (Method::Get, "/healthz", _) => Response::text(200, "ok\n"),
        (Method::Get, "/readyz", _) => {
            let metrics = args.board.metrics();
            let online = args.board.status().online;
            let readiness = readiness(metrics.spool_fails(), metrics.queue_is_full(), online);
            Response::json(if readiness.ready { 200 } else { 503 }, &readiness)
        }
        _ => Response::text(
            404,
            "ask for /status, /tree, /crashes, /overrides, /shared, /peers, /metrics, /healthz or \
             /readyz\n",
        ),
    }
}

async fn all_overrides(args: &Args) -> Response {
    match args.track.ask(track::Msg::Overrides, PATIENCE / 2).await {
        Ok(overrides) => Response::json(200, &overrides),
        Err(error) => Response::text(503, &format!("{error}\n")),
    }
}

/// Sets an override or ends one, and answers with those that are there then.
async fn set_override(args: &Args, body: &[u8], uid: u32) -> Response {
    let request: overrides::Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Response::text(400, &format!("that is no override: {error}\n")),
    };
    let draft = match request.draft(&format!("local:uid-{uid}"), args.clock.wall_ms()) {
        Ok(draft) => draft,
        Err(error) => return Response::text(400, &format!("{}\n", with_causes(&error))),
    };
    match track::write(&args.track, draft, None).await {
        Ok(_) => all_overrides(args).await,
        Err(error) => Response::text(409, &format!("{}\n", with_causes(&error))),
    }
}

/// Declares an emergency, or ends one. The mode follows at once.
fn set_mode(args: &Args, body: &[u8], uid: u32) -> Response {
    let request: ModeRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Response::text(400, &format!("that is no mode: {error}\n")),
    };
    let too_long = |why: &String| why.is_empty() || why.len() > REASON_BYTES_MAX;
    if request.emergency.as_ref().is_some_and(too_long) {
        let text = format!("say why, in {REASON_BYTES_MAX} bytes at most\n");
        return Response::text(400, &text);
    }
    tracing::warn!(uid, emergency = request.emergency, "somebody at the device sets its mode");
    args.board.update(|status| status.emergency = request.emergency.clone());
    Response::json(202, &request)
}

async fn crashes(args: &Args) -> Response {
    let Some(journal) = args.crashes.clone() else {
        return Response::json(200, &[(); 0]);
    };
    let query = CrashQuery { path: None, since_ms: 0, limit: CRASHES };
    match tokio::task::spawn_blocking(move || journal.read(&query)).await {
        Ok(Ok(crashes)) => Response::json(200, &crashes),
        Ok(Err(error)) => Response::text(500, &format!("{}\n", Fault::of(&error))),
        Err(_) => Response::text(503, "the agent is stopping\n"),
    }
}

async fn status(args: &Args) -> Status {
    let mut status = args.board.status();
    if let Ok(shown) = args.track.ask(track::Msg::State, PATIENCE / 2).await {
        status.root = Some(HEXLOWER.encode(&shown.root));
    }
    status
}
