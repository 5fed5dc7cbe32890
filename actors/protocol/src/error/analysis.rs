//! What an error is about, how far it reaches, and what can be done about it: it follows from the
//! code alone, so that whoever shows an error says the same.

use serde::{Deserialize, Serialize};

use super::ErrorCode;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// A disk, a clock, or what else is made of metal.
    Hardware,
    /// What is stored is not what somebody expected it to be.
    State,
    /// The work could not be carried out, or not now.
    Operation,
    /// What was asked for is not well formed, or not allowed.
    Validation,
}

/// What the error keeps from happening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// This was not done; nothing else is affected.
    NotDone,
    /// This and its like are not done until something changes by itself.
    Delayed,
    /// This and its like are not done until somebody does something.
    Blocked,
    /// What is stored may be lost.
    DataAtRisk,
}

/// How far the error reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This request, or this message.
    Request,
    /// One device, or one group.
    Tree,
    /// One connection.
    Connection,
    /// The whole brain.
    Brain,
}

/// What can be done about an error, the likeliest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryOption {
    /// Ask for the same again, after a while.
    Retry,
    /// Change what is asked for.
    CorrectRequest,
    /// Read what is there now, and decide anew.
    ReadAgain,
    /// Show a credential that is known and allowed to.
    Authenticate,
    /// Enrol the device again.
    EnrolAgain,
    /// Set the clock right.
    SetClock,
    /// Make room: on the disk, or in the tree.
    MakeRoom,
    /// Change the rule that stands against it.
    ChangeRule,
    /// Let the actor out of quarantine.
    ReleaseQuarantine,
    /// Look at what was put aside, and try it again or discard it.
    ReplayDeadLetter,
    /// Check the data folder, and restore a backup.
    RestoreBackup,
    /// Use the same release on both ends.
    UpdateSoftware,
    /// Tell those who make the software.
    ReportBug,
    /// Nothing: something newer has taken its place.
    Nothing,
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ErrorAnalysis {
    /// What kind of thing went wrong.
    pub class: ErrorClass,
    /// What it keeps from happening.
    pub impact: Impact,
    /// How far it reaches.
    pub scope: Scope,
    /// What can be done about it, the likeliest first.
    pub options: &'static [RecoveryOption],
}

impl ErrorCode {
    /// What an error of this code means.
    pub fn analysis(self) -> ErrorAnalysis {
        use ErrorClass::{Hardware, Operation, State, Validation};
        use ErrorCode as E;
        use Impact::{Blocked, DataAtRisk, Delayed, NotDone};
        use RecoveryOption as R;
        use Scope::{Brain, Connection, Request, Tree};
        let (class, impact, scope, options): (_, _, _, &'static [R]) = match self {
            E::Malformed | E::Truncated | E::NotUtf8 | E::BadRequest | E::BadPath | E::BadValue => {
                (Validation, NotDone, Request, &[R::CorrectRequest])
            }
            E::TooLarge | E::DecompressionBomb => {
                (Validation, NotDone, Request, &[R::CorrectRequest])
            }
            E::UnexpectedFrame => (Validation, NotDone, Connection, &[R::Retry, R::UpdateSoftware]),
            E::VersionUnsupported | E::CodecUnknown => {
                (Validation, Blocked, Connection, &[R::UpdateSoftware])
            }
            E::FormatNewer => (Validation, Blocked, Brain, &[R::UpdateSoftware]),
            E::Unauthenticated | E::WrongRole => (Validation, NotDone, Request, &[R::Authenticate]),
            E::BadSignature | E::BadCertificate | E::WrongFleet | E::BadToken => {
                (Validation, Blocked, Connection, &[R::Authenticate, R::EnrolAgain])
            }
            E::Forbidden => (Validation, NotDone, Request, &[R::CorrectRequest, R::Authenticate]),
            E::Fenced => (Operation, NotDone, Connection, &[R::Nothing]),
            E::ClonedIdentity => (Operation, Blocked, Tree, &[R::EnrolAgain, R::Retry]),
            E::SequenceGap | E::MissingCause => (State, Delayed, Tree, &[R::Retry]),
            E::ClockAhead => (Hardware, Delayed, Tree, &[R::SetClock, R::Retry]),
            E::Equivocation | E::LogCut => (State, NotDone, Tree, &[R::ReadAgain]),
            E::UnknownTree => (State, NotDone, Connection, &[R::UpdateSoftware, R::ReportBug]),
            E::TreeFull => (State, Blocked, Tree, &[R::MakeRoom]),
            E::DeadLettered => (Operation, Blocked, Request, &[R::ReplayDeadLetter, R::ReportBug]),
            E::Retired => (State, Blocked, Tree, &[R::EnrolAgain, R::CorrectRequest]),
            E::NotFound | E::HistoryPruned => (State, NotDone, Request, &[R::CorrectRequest]),
            E::VersionStale | E::VersionFuture | E::VersionForked | E::PreconditionFailed => {
                (State, NotDone, Request, &[R::ReadAgain])
            }
            E::ConstraintViolated => {
                (Validation, NotDone, Request, &[R::CorrectRequest, R::ChangeRule])
            }
            E::DiskFull => (Hardware, Delayed, Brain, &[R::MakeRoom, R::Retry]),
            E::Corrupt => (Hardware, DataAtRisk, Tree, &[R::RestoreBackup]),
            E::StoreFailed => (Hardware, DataAtRisk, Brain, &[R::Retry, R::RestoreBackup]),
            E::TimedOut | E::Overloaded | E::GoingAway => {
                (Operation, Delayed, Request, &[R::Retry])
            }
            E::Internal => (Operation, NotDone, Request, &[R::Retry, R::ReportBug]),
            E::Quarantined => (Operation, Delayed, Tree, &[R::ReleaseQuarantine, R::Retry]),
        };
        ErrorAnalysis { class, impact, scope, options }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_succeed_unchanged_says_so_and_nothing_is_without_a_way_out() {
        for code in ErrorCode::ALL {
            let ErrorAnalysis { impact, options, .. } = code.analysis();
            assert!(!options.is_empty(), "{code}");
            let mut distinct = options.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), options.len(), "{code}");
            if impact == Impact::Delayed {
                assert!(options.contains(&RecoveryOption::Retry), "{code}");
                assert!(code.recoverable(), "{code} passes by itself");
            }
            if !code.recoverable() && impact == Impact::NotDone {
                assert_ne!(options, [RecoveryOption::Retry], "{code}: the same would fail again");
            }
        }
    }

    #[test]
    fn each_class_has_its_codes() {
        let class = |code: ErrorCode| code.analysis().class;
        assert_eq!(class(ErrorCode::DiskFull), ErrorClass::Hardware);
        assert_eq!(class(ErrorCode::VersionStale), ErrorClass::State);
        assert_eq!(class(ErrorCode::Overloaded), ErrorClass::Operation);
        assert_eq!(class(ErrorCode::BadPath), ErrorClass::Validation);
    }
}
