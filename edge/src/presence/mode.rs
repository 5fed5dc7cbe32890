//! The modes of a device, and when it changes between them.

use serde::{Deserialize, Serialize};

/// A brain that is away for less than this is not away.
const AWAY_AFTER_MS: u64 = 10_000;

/// How a device works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// With its brain.
    Normal,
    /// Without its brain: by what it last knew, with its peers.
    Autonomous,
    /// Somebody at the device, or a part of it, declared an emergency.
    Emergency,
}

impl Mode {
    /// The name in leaves.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Autonomous => "autonomous",
            Self::Emergency => "emergency",
        }
    }
}

/// The mode that a device is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeNow {
    /// The mode.
    pub mode: Mode,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Why.
    pub why: String,
}

/// What a person at the device asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// Why there is an emergency; none ends it.
    pub emergency: Option<String>,
}

/// What is seen of a device's surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether a session with the brain lasts.
    pub(super) online: bool,
    /// Whether it belongs to a fleet.
    pub(super) enrolled: bool,
    /// Why there is an emergency.
    pub(super) emergency: Option<String>,
}

/// Decides about the mode. Begins in none: a device that starts has no brain yet, and is not
/// without one.
#[derive(Debug)]
pub(super) struct ModeMachine {
    mode: Option<Mode>,
    is_there: bool,
    /// When the brain was there last, or since when it is looked for, on the clock that never
    /// jumps.
    there_ms: u64,
}

impl ModeMachine {
    pub(super) fn new(mono_ms: u64) -> Self {
        Self { mode: None, is_there: false, there_ms: mono_ms }
    }

    /// The mode that begins now and why; none where nothing changes.
    pub(super) fn on(&mut self, seen: &Seen, mono_ms: u64) -> Option<(Mode, String)> {
        if std::mem::replace(&mut self.is_there, seen.online) || seen.online {
            self.there_ms = mono_ms;
        }
        let is_away = mono_ms.saturating_sub(self.there_ms) >= AWAY_AFTER_MS;
        let (mode, why) = match seen {
            Seen { emergency: Some(why), .. } => (Mode::Emergency, why.clone()),
            Seen { online: true, .. } => (Mode::Normal, "the brain is there".to_owned()),
            Seen { enrolled: false, .. } if is_away => {
                (Mode::Autonomous, "the device belongs to no fleet".to_owned())
            }
            _ if is_away => {
                let seconds = AWAY_AFTER_MS / 1_000;
                (Mode::Autonomous, format!("the brain has not been reached for {seconds} s"))
            }
            // An emergency that ends while the brain's absence is young.
            _ if self.mode == Some(Mode::Emergency) => {
                (Mode::Autonomous, "the emergency is over".to_owned())
            }
            _ => return None,
        };
        (self.mode.replace(mode) != Some(mode)).then_some((mode, why))
    }

    /// When it has to be asked again though nothing is seen.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let waits = self.mode.is_none_or(|mode| mode == Mode::Normal);
        (waits && !self.is_there).then_some(self.there_ms + AWAY_AFTER_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(online: bool) -> Seen {
        Seen { online, enrolled: true, emergency: None }
    }

    fn mode(machine: &mut ModeMachine, seen: &Seen, at_ms: u64) -> Option<Mode> {
        machine.on(seen, at_ms).map(|(mode, _)| mode)
    }

    #[test]
    fn a_brain_that_is_away_for_a_moment_is_not_away() {
        let mut machine = ModeMachine::new(0);
        assert_eq!(mode(&mut machine, &seen(false), 100), None, "it starts");
        assert_eq!(mode(&mut machine, &seen(true), 200), Some(Mode::Normal));
        assert_eq!(mode(&mut machine, &seen(true), 5_000), None);
        assert_eq!(mode(&mut machine, &seen(false), 9_000), None);
        assert_eq!(mode(&mut machine, &seen(true), 14_000), None);
        assert_eq!(machine.due_ms(), None, "it is there");
        assert_eq!(mode(&mut machine, &seen(false), 80_000), None, "it has just gone");
        assert_eq!(machine.due_ms(), Some(90_000));
        assert_eq!(mode(&mut machine, &seen(false), 90_000), Some(Mode::Autonomous));
        assert_eq!(machine.due_ms(), None);
        assert_eq!(mode(&mut machine, &seen(true), 95_000), Some(Mode::Normal));
    }

    #[test]
    fn a_device_that_starts_without_its_brain_is_autonomous_after_a_while() {
        let mut machine = ModeMachine::new(1_000);
        assert_eq!(machine.due_ms(), Some(11_000));
        let stranger = Seen { enrolled: false, ..seen(false) };
        let (mode, why) = machine.on(&stranger, 11_000).expect("it is long enough");
        assert_eq!(mode, Mode::Autonomous);
        assert!(why.contains("no fleet"), "{why}");
    }

    #[test]
    fn an_emergency_goes_before_everything_and_ends_into_what_is_true_then() {
        let mut machine = ModeMachine::new(0);
        machine.on(&seen(true), 0);
        let alarm = |online| Seen { emergency: Some("smoke".into()), ..seen(online) };
        assert_eq!(machine.on(&alarm(true), 1_000), Some((Mode::Emergency, "smoke".into())));
        assert_eq!(mode(&mut machine, &alarm(false), 60_000), None);
        assert_eq!(mode(&mut machine, &seen(true), 61_000), Some(Mode::Normal));
        machine.on(&alarm(true), 62_000);
        assert_eq!(mode(&mut machine, &seen(false), 63_000), Some(Mode::Autonomous));
    }
}
