//! The transport between devices: QUIC by iroh, one stream both ways with frames in it.
//!
//! A device's key is its address there. No relay and no service on the internet is used: devices
//! are found on the local network, or at addresses that people gave.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use iroh::endpoint::{
    Connection, Incoming, QuicTransportConfig, RecvStream, SendStream, VarInt, presets,
};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey, TransportAddr};
use iroh_mdns_address_lookup::MdnsAddressLookup;
use protocol::PublicKey;
use protocol::keys::Keypair;
use protocol::session::handshake::{EXPORTER_BYTES, EXPORTER_LABEL};
use protocol::wire::FRAME_BYTES_MAX;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::PeerSettings;
use crate::talk::{Broken, Frames};

/// What the two ends agree to speak.
const ALPN: &[u8] = b"fleet-peer/1";
/// Under which name devices are found on the local network.
const SERVICE: &str = "fleet-edge";
/// From the first packet to the open stream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the endpoint may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer may send so many bytes ahead of what is read, over all streams.
const RECEIVE_WINDOW_BYTES: u32 = 512 << 10;
/// And this side so many ahead of what is acknowledged.
const SEND_WINDOW_BYTES: u64 = 512 << 10;
/// What a connection is closed with that nobody wants.
const UNWANTED: u32 = 1;

/// Where this device meets its peers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Meeting {
    endpoint: Endpoint,
}

/// A connection to a peer whose key the transport has proved.
pub(crate) struct Met {
    pub(crate) key: PublicKey,
    connection: Connection,
    is_ours: bool,
}

/// A connection over which nothing was said yet.
pub(crate) struct Opened {
    pub(crate) frames: Frames,
    /// Keying material that only the two ends share.
    pub(crate) exporter: [u8; EXPORTER_BYTES],
    /// Where the other end is.
    pub(crate) address: Option<String>,
    pub(crate) round_trip: Option<Duration>,
    /// Ends the connection where it is dropped.
    pub(crate) connection: Connection,
}

/// Why devices do not meet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeetError {
    #[error("cannot be reached over UDP at {listen}: {why}; see `peers.listen`")]
    Listen { listen: SocketAddr, why: String },
    #[error("peer is not reached: {0}")]
    Connect(String),
    #[error("peer did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the key is none of the transport's")]
    Key,
}

impl Meeting {
    /// Opens the socket.
    pub(crate) async fn open(
        keypair: &Keypair,
        settings: &PeerSettings,
    ) -> Result<Self, MeetError> {
        let listen = settings.listen;
        let failed = |why: String| MeetError::Listen { listen, why };
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&keypair.seed()))
            .alpns(vec![ALPN.to_vec()])
            .relay_mode(RelayMode::Disabled)
            .transport_config(limits())
            .clear_address_lookup()
            .clear_ip_transports()
            .bind_addr(listen)
            .map_err(|error| failed(error.to_string()))?;
        if settings.discovery {
            builder = builder.address_lookup(MdnsAddressLookup::builder().service_name(SERVICE));
        }
        let endpoint = builder.bind().await.map_err(|error| failed(error.to_string()))?;
        Ok(Self { endpoint })
    }

    /// Where it is reached.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.bound_sockets()
    }

    /// The next connection that somebody opens; none once the socket is closed.
    pub(crate) async fn next(&self) -> Option<Incoming> {
        self.endpoint.accept().await
    }

    /// Calls a device, at these addresses or where it is found.
    pub(crate) async fn call(
        &self,
        key: PublicKey,
        given: &[SocketAddr],
    ) -> Result<Met, MeetError> {
        let id = EndpointId::from_bytes(&key.0).map_err(|_| MeetError::Key)?;
        let addresses = given.iter().copied().map(TransportAddr::Ip);
        let address = EndpointAddr::from_parts(id, addresses);
        match timeout(CONNECT_TIMEOUT, self.endpoint.connect(address, ALPN)).await {
            Ok(Ok(connection)) => Ok(Met { key, connection, is_ours: true }),
            Ok(Err(error)) => Err(MeetError::Connect(error.to_string())),
            Err(_) => Err(MeetError::TimedOut),
        }
    }

    pub(crate) async fn close(&self) {
        // Peers notice by themselves where it takes longer.
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.close()).await;
    }
}

/// Proves the key of whoever opened a connection.
pub(crate) async fn meet(incoming: Incoming) -> Result<Met, MeetError> {
    let connecting = async {
        let accepting = incoming.accept().map_err(|error| error.to_string())?;
        accepting.await.map_err(|error| error.to_string())
    };
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => {
            let key = PublicKey(*connection.remote_id().as_bytes());
            Ok(Met { key, connection, is_ours: false })
        }
        Ok(Err(why)) => Err(MeetError::Connect(why)),
        Err(_) => Err(MeetError::TimedOut),
    }
}

impl Met {
    /// Turns it away, without a word of why.
    pub(crate) fn turn_away(self) {
        self.connection.close(UNWANTED.into(), b"");
    }

    /// Opens the stream.
    pub(crate) async fn open(self) -> Result<Opened, MeetError> {
        let connection = self.connection;
        let opening = async {
            match self.is_ours {
                true => connection.open_bi().await,
                // It is there once the caller has said something.
                false => connection.accept_bi().await,
            }
        };
        let (send, receive) = match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(MeetError::Connect(error.to_string())),
            Err(_) => return Err(MeetError::TimedOut),
        };
        let mut exporter = [0; EXPORTER_BYTES];
        let exported = connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"");
        exported.map_err(|_| MeetError::Key)?;
        let path = connection.paths().iter().find(|path| path.is_selected()).map(|path| {
            let address = match path.remote_addr() {
                TransportAddr::Ip(address) => address.to_string(),
                other => format!("{other:?}"),
            };
            (address, path.rtt())
        });
        let (address, round_trip) = path.unzip();
        Ok(Opened { frames: frames(send, receive), exporter, address, round_trip, connection })
    }
}

/// One stream both ways, and no more memory than that takes, whatever a peer does.
fn limits() -> QuicTransportConfig {
    let window = VarInt::from_u32(RECEIVE_WINDOW_BYTES);
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(window)
        .receive_window(window)
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .build()
}

fn frames(send: SendStream, receive: RecvStream) -> Frames {
    let codec = || LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
    let sink = SinkExt::<Bytes>::sink_map_err(FramedWrite::new(send, codec()), Broken::new);
    let stream = FramedRead::new(receive, codec())
        .map(|frame| frame.map(BytesMut::freeze).map_err(Broken::new));
    Frames::new(sink, stream)
}
