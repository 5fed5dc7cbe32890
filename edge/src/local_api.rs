//! What the device's own users may ask: a Unix socket beside the data, for its owner only.
//!
//! Whoever connects gets one line of JSON, the agent's [`Status`], and the end of the stream.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Address, Context, Node, NodeError};
use data_encoding::HEXLOWER;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::status::{Board, Status};
use crate::track;

/// A user who does not read is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// No status is longer.
const STATUS_BYTES_MAX: u64 = 64 << 10;
/// So that a full table of descriptors does not become a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// What the local API is built from.
#[derive(Debug, Clone)]
pub struct Args {
    /// Where the socket is.
    pub socket: PathBuf,
    /// What to show.
    pub board: Board,
    /// For the tree's root.
    pub track: Address<track::Msg>,
}

/// What the local API is told.
pub enum Msg {
    /// Open the socket and answer.
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
}

/// The local API's node.
pub struct LocalApi {
    args: Arc<Args>,
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
        match msg {
            Msg::Serve => match listen(&self.args.socket) {
                Ok(listener) => {
                    ctx.spawn("serve", serve(listener, self.args.clone()));
                }
                // A device does its work also where nobody can ask it how it is.
                Err(error) => {
                    let socket = self.args.socket.display();
                    tracing::error!(%error, %socket, "local API is not available");
                }
            },
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        // What is left of it would only be refused.
        let _ = std::fs::remove_file(&self.args.socket);
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
    let socket = socket_in(data_dir);
    let stream = UnixStream::connect(&socket).await;
    let stream = stream.map_err(|source| StatusError::NotRunning { socket, source })?;
    let mut line = Vec::new();
    let read = async { stream.take(STATUS_BYTES_MAX).read_to_end(&mut line).await };
    match timeout(PATIENCE, read).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return Err(StatusError::Silent),
    }
    serde_json::from_slice(&line).map_err(StatusError::Malformed)
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

async fn serve(listener: UnixListener, args: Arc<Args>) -> Result<(), NodeError> {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "local API cannot accept");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        // One after the other: a local user gains nothing by opening many.
        if timeout(PATIENCE, answer(stream, &args)).await.is_err() {
            tracing::debug!("local user did not read");
        }
    }
}

async fn answer(mut stream: UnixStream, args: &Args) {
    let mut status = args.board.status();
    if let Ok((_, root)) = args.track.ask(track::Msg::State, PATIENCE / 2).await {
        status.root = Some(HEXLOWER.encode(&root));
    }
    let Ok(mut line) = serde_json::to_vec(&status) else { return };
    line.push(b'\n');
    // Whoever left does not want it.
    let _ = stream.write_all(&line).await;
    let _ = stream.shutdown().await;
}
