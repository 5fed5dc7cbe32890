//! The end of a connection, told to whom it concerns.

use std::time::Duration;

use actors::device::DeviceMsg;
use protocol::ErrorCode;
use protocol::session::Ended;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Admitted, Connection, End, TWIN_TIME_MAX};

/// How long a connection lingers after its last frame, so that the peer can read it.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// How many bytes of the peer are thrown away meanwhile.
const GOODBYE_BYTES_MAX: usize = 256 << 10;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) async fn finish(&mut self, ended: End) {
        self.stay = None;
        for (_, group) in std::mem::take(&mut self.groups) {
            group.detach(self.number);
        }
        if let Some(twin) = self.twin.take() {
            let connection = self.number;
            // One that is passive sees by itself that the connection is gone, once it is needed.
            if !twin.is_passive() {
                // A twin that is down has no connection to forget.
                let _ = twin.cast(DeviceMsg::Detached { connection }, TWIN_TIME_MAX).await;
            }
            if let Some(active) = self.active.take() {
                active.close(ended.as_ref().map(|ended| ended.error.code));
            }
        } else if let Some(Ended { error, by_peer: false, .. }) = &ended
            && (self.admitted != Admitted::Enrol || error.code != ErrorCode::GoingAway)
        {
            self.ingress.metrics.connection_refused(error.code);
        }
        let (code, reason) = match &ended {
            Some(Ended { error, by_peer, .. }) => {
                tracing::info!(device = ?self.device, peer = %self.peer, code = %error.code, by_peer, detail = error.message, "connection ended");
                (close_code(error.code), error.code.as_str())
            }
            None => {
                tracing::info!(device = ?self.device, peer = %self.peer, "connection lost");
                (CloseCode::Normal, "")
            }
        };
        let frame = CloseFrame { code, reason: reason.into() };
        let goodbye = async {
            // The peer may be gone already.
            if self.socket.close(Some(frame)).await.is_ok() {
                linger(self.socket.get_mut()).await;
            }
        };
        let _ = timeout(GOODBYE_TIME_MAX, goodbye).await;
    }
}

/// Reads what the peer still had on its way. A socket closed with unread bytes is reset, and the
/// peer would never see why.
async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    // Not within the task, which every connection would have to make room for.
    let mut unread = vec![0; 4 << 10];
    let mut left = GOODBYE_BYTES_MAX;
    while let Ok(read @ 1..) = stream.read(&mut unread).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}

fn close_code(code: ErrorCode) -> CloseCode {
    match code {
        ErrorCode::GoingAway => CloseCode::Away,
        ErrorCode::Overloaded | ErrorCode::DiskFull => CloseCode::Again,
        ErrorCode::TooLarge => CloseCode::Size,
        ErrorCode::Malformed | ErrorCode::UnexpectedFrame => CloseCode::Protocol,
        _ => CloseCode::Policy,
    }
}
