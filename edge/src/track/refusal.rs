//! What an author does about an entry that the brain does not take.

use protocol::ErrorCode;

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// End the log and write what was not taken again in a new epoch.
    Reissue {
        /// Where the log ends.
        end: End,
        /// Leave the refused entry out: it would be refused again.
        drop_refused: bool,
        /// Set the clock by what the brain's shows.
        correct_clock: bool,
    },
    /// Nothing is wrong with the entry; compare heads anew on another connection.
    Reconnect,
}

/// Where a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Just below the refused entry: the brain takes all before it.
    BelowRefused,
    /// At the last entry that the brain has acknowledged: it has others above.
    AtAcknowledged,
}

/// Decides by the code of the refusal.
pub fn resolve(code: ErrorCode) -> Resolution {
    let reissue =
        |end, drop_refused, correct_clock| Resolution::Reissue { end, drop_refused, correct_clock };
    match code {
        ErrorCode::ClockAhead => reissue(End::BelowRefused, false, true),
        ErrorCode::LogCut => reissue(End::BelowRefused, false, false),
        ErrorCode::Equivocation => reissue(End::AtAcknowledged, false, false),
        ErrorCode::DeadLettered
        | ErrorCode::TreeFull
        | ErrorCode::Forbidden
        | ErrorCode::TooLarge
        | ErrorCode::Malformed
        | ErrorCode::Truncated
        | ErrorCode::NotUtf8
        | ErrorCode::BadPath
        | ErrorCode::BadValue => reissue(End::BelowRefused, true, false),
        // Also codes that later releases add: to try again loses nothing.
        _ => Resolution::Reconnect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_at_the_brain_costs_no_entry() {
        assert_eq!(resolve(ErrorCode::DiskFull), Resolution::Reconnect);
    }

    #[test]
    fn a_clock_ahead_is_corrected_and_nothing_dropped() {
        let resolution = resolve(ErrorCode::ClockAhead);
        assert!(matches!(
            resolution,
            Resolution::Reissue {
                end: End::BelowRefused,
                drop_refused: false,
                correct_clock: true
            }
        ));
    }
}
