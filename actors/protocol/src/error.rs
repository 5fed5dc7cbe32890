//! The error that crosses the wire and the API.
//!
//! Inside the crates every operation has its own small enum. At a border (a frame, a REST
//! answer, a command line) it becomes a [`SyncError`]: a code from a closed list, a message for
//! people, where it arose, and whether trying again can help.

mod action;
mod analysis;
mod cause;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use action::{LogEnd, RecoveryAction};
pub use analysis::{ErrorAnalysis, ErrorClass, Impact, RecoveryOption, Scope};
use cause::Trail;
pub use cause::{Cause, ParseCauseError};

/// An error as peers and API clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct SyncError {
    /// What went wrong, from a closed list.
    pub code: ErrorCode,
    /// What went wrong, for people, without secrets.
    pub message: String,
    /// Where it arose.
    #[serde(rename = "source")]
    pub origin: ErrorSource,
    /// Whether the same request may succeed later, unchanged.
    pub recoverable: bool,
    /// What other places know of it.
    #[serde(skip)]
    trail: Option<Box<Trail>>,
}

impl SyncError {
    /// An error of `code` with the code's usual recoverability.
    pub fn new(code: ErrorCode, origin: ErrorSource, message: impl Into<String>) -> Self {
        let (message, recoverable) = (message.into(), code.recoverable());
        Self { code, message, origin, recoverable, trail: None }
    }
}

/// Where an error arose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorSource {
    /// The layer of the system.
    pub layer: Layer,
    /// The part of that layer, such as `session`.
    pub component: String,
    /// What that part was doing, such as `decode frame`.
    pub operation: String,
}

impl ErrorSource {
    /// Names an operation of a component of a layer.
    pub fn new(layer: Layer, component: &str, operation: &str) -> Self {
        Self { layer, component: component.to_owned(), operation: operation.to_owned() }
    }
}

/// The layers of the system, from the metal up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Sensors and actuators.
    Hardware,
    /// The agent on the device.
    Edge,
    /// What both ends share: frames, entries, the session.
    Protocol,
    /// The brain's database.
    Store,
    /// The server.
    Brain,
    /// REST, page and command line.
    Api,
}

impl Layer {
    /// Every layer, from the metal up.
    pub const ALL: &[Layer] =
        &[Self::Hardware, Self::Edge, Self::Protocol, Self::Store, Self::Brain, Self::Api];

    /// The name in answers and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Edge => "edge",
            Self::Protocol => "protocol",
            Self::Store => "store",
            Self::Brain => "brain",
            Self::Api => "api",
        }
    }

    /// The layer of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|layer| layer.as_str() == name)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $recoverable:literal;)*) => {
        /// What can go wrong. The numbers are the wire format and never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The name in answers and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            pub fn recoverable(self) -> bool {
                match self { $(ErrorCode::$name => $recoverable,)* }
            }
        }
    };
}

error_codes! {
    /// A frame or record does not parse.
    Malformed = 1, "MALFORMED", false;
    /// A frame, batch or request is over its size limit.
    TooLarge = 2, "TOO_LARGE", false;
    /// No common protocol version.
    VersionUnsupported = 3, "VERSION_UNSUPPORTED", false;
    /// A codec or compression that this side does not speak.
    CodecUnknown = 4, "CODEC_UNKNOWN", false;
    /// A compressed body grows beyond what it may.
    DecompressionBomb = 5, "DECOMPRESSION_BOMB", false;
    /// A frame that is valid, but not now.
    UnexpectedFrame = 6, "UNEXPECTED_FRAME", false;
    /// The peer took longer than it may.
    TimedOut = 7, "TIMED_OUT", true;
    /// A frame or record that ends too early.
    Truncated = 8, "TRUNCATED", false;
    /// Text that is not UTF-8.
    NotUtf8 = 9, "NOT_UTF8", false;

    /// No credential, or a wrong one.
    Unauthenticated = 20, "UNAUTHENTICATED", false;
    /// A signature that does not fit its key and content.
    BadSignature = 21, "BAD_SIGNATURE", false;
    /// A certificate that the fleet's root does not vouch for.
    BadCertificate = 22, "BAD_CERTIFICATE", false;
    /// The peer belongs to another fleet.
    WrongFleet = 23, "WRONG_FLEET", false;
    /// The peer speaks in a role that its certificate does not give it.
    WrongRole = 24, "WRONG_ROLE", false;
    /// An enrolment token that is unknown, used up or expired.
    BadToken = 25, "BAD_TOKEN", false;
    /// The author may not write this path of this tree.
    Forbidden = 26, "FORBIDDEN", false;
    /// A newer connection of the same device took over.
    Fenced = 27, "FENCED", false;
    /// Two machines act as one device and keep taking over from each other.
    ClonedIdentity = 28, "CLONED_IDENTITY", true;

    /// An entry that does not follow the one before it.
    SequenceGap = 40, "SEQUENCE_GAP", true;
    /// Two entries of one log carry the same number.
    Equivocation = 41, "EQUIVOCATION", false;
    /// An entry's causes are not here yet.
    MissingCause = 42, "MISSING_CAUSE", true;
    /// An entry from more than 60 s in the future.
    ClockAhead = 43, "CLOCK_AHEAD", true;
    /// The log was cut below this entry.
    LogCut = 44, "LOG_CUT", false;
    /// An entry of a tree that this session is not about.
    UnknownTree = 45, "UNKNOWN_TREE", false;
    /// A path that is too long, too deep or not well formed.
    BadPath = 46, "BAD_PATH", false;
    /// A value that the state model does not have, such as NaN.
    BadValue = 47, "BAD_VALUE", false;
    /// A tree with as many leaves or logs as it may have.
    TreeFull = 48, "TREE_FULL", false;
    /// A message at which its receiver failed again and again; it is kept aside for people.
    DeadLettered = 49, "DEAD_LETTERED", false;

    /// No such device, version or object.
    NotFound = 60, "NOT_FOUND", false;
    /// A version that is already past.
    VersionStale = 61, "VERSION_STALE", false;
    /// A version that is not there yet.
    VersionFuture = 62, "VERSION_FUTURE", false;
    /// The same version with other content.
    VersionForked = 63, "VERSION_FORKED", false;
    /// A request that names no valid operation.
    BadRequest = 64, "BAD_REQUEST", false;
    /// What the caller made a condition is not so.
    PreconditionFailed = 65, "PRECONDITION_FAILED", false;
    /// A change would break a constraint of the tree.
    ConstraintViolated = 66, "CONSTRAINT_VIOLATED", false;
    /// A part of a history that is not kept any more.
    HistoryPruned = 67, "HISTORY_PRUNED", false;
    /// A device or a group that was retired: its key and its name are taken for ever.
    Retired = 68, "RETIRED", false;

    /// No disk space: reads go on, writes wait.
    DiskFull = 80, "DISK_FULL", true;
    /// A stored record whose checksum does not match.
    Corrupt = 81, "CORRUPT", false;
    /// The store failed and its process is about to restart.
    StoreFailed = 82, "STORE_FAILED", true;
    /// The store was written by a newer release.
    FormatNewer = 83, "FORMAT_NEWER", false;
    /// More work than this side accepts now.
    Overloaded = 84, "OVERLOADED", true;
    /// The peer is stopping; come back later.
    GoingAway = 85, "GOING_AWAY", true;
    /// A bug on this side.
    Internal = 86, "INTERNAL", true;
    /// What serves the device failed too often and is left alone for a while.
    Quarantined = 87, "QUARANTINED", true;
}

impl ErrorCode {
    /// The code with this wire number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| *code as u16 == number)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.as_str())
        } else {
            serializer.serialize_u16(*self as u16)
        }
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::ALL
                .iter()
                .copied()
                .find(|code| code.as_str() == text)
                .ok_or_else(|| D::Error::custom(format_args!("unknown error code {text}")))
        } else {
            let number = u16::deserialize(deserializer)?;
            Self::from_number(number)
                .ok_or_else(|| D::Error::custom(format_args!("unknown error code {number}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_both_encodings() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).expect("serialises");
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).expect("parses"), *code);
            let bytes = crate::codec::encode(code);
            assert_eq!(crate::codec::decode::<ErrorCode>(&bytes).expect("decodes"), *code);
        }
    }

    #[test]
    fn an_error_has_exactly_the_four_keys() {
        let origin = ErrorSource::new(Layer::Protocol, "session", "decode frame");
        let error = SyncError::new(ErrorCode::Malformed, origin, "frame is empty");
        let json = serde_json::to_value(&error).expect("serialises");
        let keys: Vec<_> = json.as_object().expect("object").keys().cloned().collect();
        assert_eq!(keys, ["code", "message", "recoverable", "source"]);
        let source = json["source"].as_object().expect("object");
        let keys: Vec<_> = source.keys().cloned().collect();
        assert_eq!(keys, ["component", "layer", "operation"]);
    }
}
