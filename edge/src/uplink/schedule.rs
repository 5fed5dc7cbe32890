//! When to call again, and when to tell people.

use std::time::Duration;

use protocol::{ErrorCode, RecoveryAction};

use super::Backoff;

/// What follows from a call that failed or a session that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// How long to wait before the next call.
    pub wait: Duration,
    /// Whether people have to be told now: they are told once, until a session lasts.
    pub alert: bool,
}

/// Says what follows from each end of a session, by the action that its code asks for.
///
/// It never gives up: a device whose people have mended what was wrong comes back by itself.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    backoff: Backoff,
    /// The code of the last ends, and how often in a row it was that.
    row: Option<(ErrorCode, u32)>,
    alerted: Option<ErrorCode>,
}

impl Schedule {
    /// A call failed, or its session ended after `lasted`, with `code` where the brain or this side
    /// said so. `random` is from 0 to 1.
    pub fn next(
        &mut self,
        code: Option<ErrorCode>,
        lasted: Duration,
        retry_after: Option<Duration>,
        random: f64,
    ) -> Next {
        if Backoff::is_good(lasted) {
            (self.row, self.alerted) = (None, None);
        }
        let Some(code) = code else {
            // Without a network a device works on; that is no reason to call for anybody.
            return Next { wait: self.backoff.next(lasted, retry_after, random), alert: false };
        };
        let times = match self.row {
            Some((last, times)) if last == code => times.saturating_add(1),
            _ => 1,
        };
        self.row = Some((code, times));
        let action = code.recovery_action();
        let wait = match action {
            RecoveryAction::Alert => self.backoff.next_slow(retry_after, random),
            RecoveryAction::Retry { .. }
            | RecoveryAction::Reconnect { .. }
            | RecoveryAction::Reissue { .. } => self.backoff.next(lasted, retry_after, random),
        };
        let alert = times > action.attempts_max() && self.alerted != Some(code);
        if alert {
            self.alerted = Some(code);
        }
        Next { wait, alert }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOT_AT_ALL: Duration = Duration::ZERO;

    fn code() -> impl Strategy<Value = ErrorCode> {
        (0..ErrorCode::ALL.len()).prop_map(|at| ErrorCode::ALL[at])
    }

    #[test]
    fn what_passes_by_itself_alerts_only_when_it_does_not() {
        let mut schedule = Schedule::default();
        let mut next = || schedule.next(Some(ErrorCode::Overloaded), NOT_AT_ALL, None, 0.5).alert;
        let alerts: Vec<_> = (0..40).map(|_| next()).collect();
        assert_eq!(alerts.iter().position(|alert| *alert), Some(16));
        assert_eq!(alerts.iter().filter(|alert| **alert).count(), 1);
    }

    #[test]
    fn a_session_that_lasted_forgets_what_was_told() {
        let mut schedule = Schedule::default();
        let mut end = |lasted| schedule.next(Some(ErrorCode::WrongFleet), lasted, None, 0.5).alert;
        assert!(end(NOT_AT_ALL));
        assert!(!end(NOT_AT_ALL));
        assert!(end(Duration::from_secs(60)));
    }

    #[test]
    fn no_network_calls_for_nobody() {
        let mut schedule = Schedule::default();
        assert!((0..100).all(|_| !schedule.next(None, NOT_AT_ALL, None, 0.5).alert));
    }

    proptest! {
        /// The same error again has the effect that it had: people are told once, and what would
        /// fail again is never tried in quick succession.
        #[test]
        fn the_same_error_again_has_one_effect(code in code(), times in 1..200_u32, random in 0.0..1.0) {
            let mut schedule = Schedule::default();
            let ends: Vec<_> = (0..times)
                .map(|_| schedule.next(Some(code), NOT_AT_ALL, None, random))
                .collect();
            let alerts = ends.iter().filter(|next| next.alert).count() as u32;
            let action = code.recovery_action();
            prop_assert_eq!(alerts, u32::from(times > action.attempts_max()));
            let least = if action == RecoveryAction::Alert { 30 } else { 1 };
            for next in &ends {
                prop_assert!(next.wait >= Duration::from_secs(least), "{:?}", next);
                prop_assert!(next.wait <= Duration::from_secs(300), "{:?}", next);
            }
        }
    }
}
