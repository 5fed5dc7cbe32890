//! What a person can do about an error.

use protocol::ErrorCode;

/// One sentence for each code, so that a new one has to say something.
pub(super) fn guidance(code: ErrorCode) -> &'static str {
    use ErrorCode as E;
    match code {
        E::Malformed | E::Truncated | E::NotUtf8 => {
            "send what /api/v1/docs describes for this route, whole and in UTF-8"
        }
        E::BadRequest => {
            "correct what the message names; /api/v1/docs describes what each route takes"
        }
        E::BadPath => {
            "write a path as names with '/' between them, such as fan/rpm, below what the route sets"
        }
        E::BadValue => {
            "send text, a truth value, a number that is finite, or a list of such values"
        }
        E::TooLarge | E::DecompressionBomb => "send less at once: split it into several requests",
        E::VersionUnsupported | E::CodecUnknown | E::UnknownTree => {
            "run the same release of `brain` and `edge`; the older one has to be updated"
        }
        E::UnexpectedFrame => "try again; if it stays, run the same release on both ends",
        E::FormatNewer => "start the release that wrote the data folder, or a newer one",
        E::Unauthenticated => {
            "send `Authorization: Bearer TOKEN`; `brain init` wrote one to admin.token"
        }
        E::BadSignature | E::BadCertificate | E::WrongFleet => {
            "enrol the device again with a token of this fleet: `brain enroll-token create`"
        }
        E::WrongRole => "use the address and the certificate of the role in which you call",
        E::Retired => {
            "a device enrols again, as another device; a group is made under another name"
        }
        E::BadToken => "make another token with `brain enroll-token create`",
        E::Forbidden => {
            "desired/ and tags/ are written here; a device writes the rest of its tree itself"
        }
        E::Fenced => "nothing is to do: a newer connection of the device took over",
        E::ClonedIdentity => {
            "find the second machine with this identity, delete its data folder, and enrol it anew"
        }
        E::SequenceGap | E::MissingCause => "wait: what is missing is sent again by itself",
        E::Equivocation | E::LogCut => {
            "read the current state; the device writes what was lost again by itself"
        }
        E::ClockAhead => "set the clock of the device right; it sends again by itself",
        E::TreeFull => "remove leaves that nobody needs, then try again",
        E::DeadLettered => {
            "it is kept: `brain quarantine list` shows it, `brain quarantine replay ID` tries again"
        }
        E::NotFound => {
            "check the name: `brain device list` and `brain group list` show what there is"
        }
        E::VersionStale | E::VersionFuture | E::VersionForked | E::PreconditionFailed => {
            "read the current version and try again"
        }
        E::ConstraintViolated => {
            "see what holds with `brain constraint show`, and change that first"
        }
        E::HistoryPruned => {
            "how much is kept follows from the settings below `history`; ask for a later version"
        }
        E::DiskFull => "free disk space; writes are taken again by themselves",
        E::Corrupt => {
            "stop the brain, see what is damaged with `brain verify`, and restore a backup"
        }
        E::StoreFailed => {
            "look at the brain's log and its disk; it starts again by itself, and then try again"
        }
        E::TimedOut | E::Overloaded | E::GoingAway => "try again in a few seconds",
        E::Internal => "try again; if it stays, report it with the brain's log of this moment",
        E::Quarantined => {
            "see why with `brain quarantine list`; `brain quarantine release PATH` ends it at once"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_says_what_to_do_and_none_says_to_read_on_alone() {
        for code in ErrorCode::ALL {
            let text = guidance(*code);
            assert!(text.len() > 20 && !text.ends_with('.'), "{code}: {text}");
            assert!(!text.starts_with("see /api/v1/docs"), "{code}: {text}");
        }
    }
}
