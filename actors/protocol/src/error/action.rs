//! What the side that is told an error does about it.

use super::{ErrorCode, SyncError};

/// So often in a row the same is tried before people are told; it goes on after that, slowly.
const ATTEMPTS_MAX: u32 = 16;

/// What is done about an error. Each of them ends: in success, or with people who know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Ask for the same again, later each time.
    Retry {
        /// So often in a row before people are told.
        attempts_max: u32,
    },
    /// Let the connection go, call again later each time, and compare anew what both sides have.
    Reconnect {
        /// So often in a row before people are told.
        attempts_max: u32,
    },
    /// End the own log and write what was not taken again in a new epoch.
    Reissue {
        /// Where the log ends.
        end: LogEnd,
        /// Leave the refused entry out: it would be refused again.
        drop_refused: bool,
        /// First set the clock by what the other side's shows.
        correct_clock: bool,
    },
    /// Tell people, once: the same would fail again until somebody does something.
    Alert,
}

/// Where a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// Just below the refused entry: the other side takes all before it.
    BelowRefused,
    /// At the last entry that the other side has acknowledged: it has others above.
    AtAcknowledged,
}

impl RecoveryAction {
    /// How often in a row it is taken before people are told; 0 where they are told at once.
    pub fn attempts_max(self) -> u32 {
        match self {
            Self::Retry { attempts_max } | Self::Reconnect { attempts_max } => attempts_max,
            Self::Reissue { .. } => ATTEMPTS_MAX,
            Self::Alert => 0,
        }
    }
}

impl ErrorCode {
    /// What the side that is told an error of this code does about it.
    pub fn recovery_action(self) -> RecoveryAction {
        use ErrorCode as E;
        use RecoveryAction::{Alert, Reconnect, Reissue, Retry};
        let attempts_max = ATTEMPTS_MAX;
        match self {
            E::TimedOut | E::Overloaded | E::Internal | E::DiskFull | E::StoreFailed => {
                Retry { attempts_max }
            }
            E::GoingAway | E::Quarantined | E::ClonedIdentity | E::Fenced => {
                Reconnect { attempts_max }
            }
            E::SequenceGap | E::MissingCause => Reconnect { attempts_max },
            // A new connection begins from where both sides know that they are.
            E::UnexpectedFrame => Reconnect { attempts_max },
            E::ClockAhead => {
                Reissue { end: LogEnd::BelowRefused, drop_refused: false, correct_clock: true }
            }
            E::LogCut => {
                Reissue { end: LogEnd::BelowRefused, drop_refused: false, correct_clock: false }
            }
            E::Equivocation => {
                Reissue { end: LogEnd::AtAcknowledged, drop_refused: false, correct_clock: false }
            }
            E::DeadLettered | E::TreeFull | E::Forbidden | E::TooLarge => without_refused(),
            E::Malformed | E::Truncated | E::NotUtf8 | E::BadPath | E::BadValue => {
                without_refused()
            }
            E::VersionUnsupported | E::CodecUnknown | E::FormatNewer | E::UnknownTree => Alert,
            E::DecompressionBomb | E::Unauthenticated | E::BadSignature | E::BadCertificate => {
                Alert
            }
            E::WrongFleet | E::WrongRole | E::BadToken | E::Retired => Alert,
            E::Corrupt => Alert,
            // Whoever asked decides what to ask for instead.
            E::NotFound | E::BadRequest | E::HistoryPruned | E::ConstraintViolated => Alert,
            E::VersionStale | E::VersionFuture | E::VersionForked | E::PreconditionFailed => Alert,
        }
    }
}

impl SyncError {
    /// What the side that is told this error does about it.
    pub fn recovery_action(&self) -> RecoveryAction {
        self.code.recovery_action()
    }
}

fn without_refused() -> RecoveryAction {
    let end = LogEnd::BelowRefused;
    RecoveryAction::Reissue { end, drop_refused: true, correct_clock: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_acted_on_and_what_does_not_is_never_just_tried_again() {
        for code in ErrorCode::ALL {
            let action = code.recovery_action();
            match action {
                RecoveryAction::Retry { .. } => assert!(code.recoverable(), "{code}"),
                RecoveryAction::Reconnect { .. } => {
                    let on_this_connection = [ErrorCode::Fenced, ErrorCode::UnexpectedFrame];
                    assert!(code.recoverable() || on_this_connection.contains(code), "{code}");
                }
                // The same entry is not sent again: it changes its log, or is left out.
                RecoveryAction::Reissue { .. } => {}
                RecoveryAction::Alert => assert!(!code.recoverable(), "{code}"),
            }
            assert!(action.attempts_max() < 100, "{code}: it ends");
            assert_eq!(action.attempts_max() == 0, action == RecoveryAction::Alert, "{code}");
        }
    }

    #[test]
    fn each_code_has_its_action() {
        let action = |code: ErrorCode| match code.recovery_action() {
            RecoveryAction::Retry { .. } => "retry",
            RecoveryAction::Reconnect { .. } => "reconnect",
            RecoveryAction::Reissue { correct_clock: true, .. } => "correct clock",
            RecoveryAction::Reissue { drop_refused: true, .. } => "leave out",
            RecoveryAction::Reissue { end: LogEnd::AtAcknowledged, .. } => "go back",
            RecoveryAction::Reissue { .. } => "reissue",
            RecoveryAction::Alert => "alert",
        };
        let table: [(&str, &[ErrorCode]); 7] = [
            (
                "retry",
                &[
                    ErrorCode::TimedOut,
                    ErrorCode::DiskFull,
                    ErrorCode::StoreFailed,
                    ErrorCode::Overloaded,
                    ErrorCode::Internal,
                ],
            ),
            (
                "reconnect",
                &[
                    ErrorCode::Fenced,
                    ErrorCode::ClonedIdentity,
                    ErrorCode::SequenceGap,
                    ErrorCode::MissingCause,
                    ErrorCode::GoingAway,
                    ErrorCode::Quarantined,
                    ErrorCode::UnexpectedFrame,
                ],
            ),
            ("correct clock", &[ErrorCode::ClockAhead]),
            (
                "leave out",
                &[
                    ErrorCode::Malformed,
                    ErrorCode::TooLarge,
                    ErrorCode::Truncated,
                    ErrorCode::NotUtf8,
                    ErrorCode::Forbidden,
                    ErrorCode::BadPath,
                    ErrorCode::BadValue,
                    ErrorCode::TreeFull,
                    ErrorCode::DeadLettered,
                ],
            ),
            ("go back", &[ErrorCode::Equivocation]),
            ("reissue", &[ErrorCode::LogCut]),
            (
                "alert",
                &[
                    ErrorCode::VersionUnsupported,
                    ErrorCode::CodecUnknown,
                    ErrorCode::DecompressionBomb,
                    ErrorCode::Unauthenticated,
                    ErrorCode::BadSignature,
                    ErrorCode::BadCertificate,
                    ErrorCode::WrongFleet,
                    ErrorCode::WrongRole,
                    ErrorCode::BadToken,
                    ErrorCode::UnknownTree,
                    ErrorCode::NotFound,
                    ErrorCode::VersionStale,
                    ErrorCode::VersionFuture,
                    ErrorCode::VersionForked,
                    ErrorCode::BadRequest,
                    ErrorCode::PreconditionFailed,
                    ErrorCode::ConstraintViolated,
                    ErrorCode::HistoryPruned,
                    ErrorCode::Corrupt,
                    ErrorCode::FormatNewer,
                    ErrorCode::Retired,
                ],
            ),
        ];
        for code in ErrorCode::ALL {
            let named: Vec<_> = table
                .iter()
                .filter(|(_, codes)| codes.contains(code))
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(named, [action(*code)], "{code}");
        }
    }
}
