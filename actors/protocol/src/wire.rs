//! What crosses a link: frames with a header of four bytes, and the messages in them.

mod batch;
mod frame;
mod message;

pub use batch::{BATCH_ENTRIES_MAX, BATCH_PLAIN_BYTES, Batch, BatchError, PackError};
pub use frame::{
    FRAME_BYTES_MAX, FrameError, HEADER_BYTES, PLAIN_BYTES_MAX, VERSION_MAX, VERSION_MIN, decode,
    encode, plain_bytes,
};
pub use message::{
    Ack, Auth, Capabilities, CheckpointPart, Close, Enrolled, Heads, Hello, HelloReply, Leave,
    LogPosition, Message, MessageKind, PART_BYTES_MAX, Ping, Pong, Purpose, Refuse, Share,
    TokenProof, Traces, VersionRange, Welcome,
};
