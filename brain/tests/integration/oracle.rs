//! Load from devices that remember what they were told, and a brain judged by it.

use std::time::Duration;

use benches::brain::Brain;
use benches::device::LightDevice;
use protocol::DeviceId;
use serde_json::Value as Json;

use crate::harness::{count, device};

/// A history of more entries is not made longer.
const HISTORY_MAX: u64 = 5_000;

/// What a brain does not hold that it had promised.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Complaint {
    /// It does not start, or does not answer.
    #[error("the brain does not serve: {said}")]
    NotServed { said: String },
    /// Entries are gone whose storing it had acknowledged.
    #[error("{device}: {acknowledged} entries were acknowledged, {found} are there")]
    Missing { device: DeviceId, acknowledged: u64, found: usize },
    /// The history is not each entry once, in order.
    #[error("{device}: the history is not each entry once and in order: {found:?}")]
    Disorder { device: DeviceId, found: Vec<Json> },
    /// The state is not what the history folds to.
    #[error("{device}: the state has {state}, the history ends with {last:?}")]
    State { device: DeviceId, state: Json, last: Option<u64> },
    /// Something made through the API or by enrolment is gone.
    #[cfg(feature = "lab")]
    #[error("{what} is gone")]
    Forgotten { what: String },
}

/// Writes and waits for acknowledgements, up to 16 in flight, until the brain is gone.
pub(crate) async fn load(mut device: LightDevice) -> LightDevice {
    while device.connect().await.is_ok() {
        while device.is_connected() {
            while device.written() < device.stored() + 16 {
                let next = device.written() + 1;
                device.write("reported/count", count(next)).expect("a valid path");
            }
            let before = device.stored();
            let mut said = device.offer().await;
            if device.written().is_multiple_of(64) {
                said = said.and(device.seal().await);
            }
            let moved = |device: &LightDevice| device.stored() > before;
            if said.is_err() || device.run_until(moved, Duration::from_secs(20)).await.is_err() {
                return device;
            }
        }
    }
    device
}

/// Replaces devices with a long history, which takes long to judge, by new ones. Returns how many
/// acknowledged entries the old ones had.
pub(crate) async fn renew(brain: &Brain, devices: &mut [LightDevice]) -> u64 {
    let mut acknowledged = 0;
    for known in devices.iter_mut().filter(|device| device.stored() > HISTORY_MAX) {
        acknowledged += known.stored();
        *known = device(brain).await;
    }
    acknowledged
}

/// Whether the history holds every acknowledged entry once, in order, with its value, and the
/// state is what they fold to.
pub(crate) fn complaint(brain: &Brain, device: &LightDevice) -> Option<Complaint> {
    let id = device.membership.device;
    let acknowledged = device.stored();
    if acknowledged == 0 {
        return None;
    }
    let not_served = |error: anyhow::Error| Complaint::NotServed { said: format!("{error:#}") };
    let author = device.log().author.to_string();
    let values = match history(brain, &id.to_string(), &author) {
        Ok(values) => values,
        Err(error) => return Some(not_served(error)),
    };
    if (values.len() as u64) < acknowledged {
        return Some(Complaint::Missing { device: id, acknowledged, found: values.len() });
    }
    if !(1u64..).map(Json::from).zip(&values).all(|(expected, value)| expected == *value) {
        return Some(Complaint::Disorder { device: id, found: values });
    }
    match brain.get(&format!("/api/v1/devices/{id}/state")) {
        Err(error) => Some(not_served(error)),
        Ok(answer) => {
            let (state, last) = (&answer["state"]["reported/count"], values.last());
            let last = last.and_then(Json::as_u64);
            let same = state.as_u64() == last;
            (!same).then(|| Complaint::State { device: id, state: state.clone(), last })
        }
    }
}

/// The values of `reported/count` in a device's history, oldest first; null for what is not the
/// device's own or does not count.
fn history(brain: &Brain, id: &str, author: &str) -> anyhow::Result<Vec<Json>> {
    let mut values = Vec::new();
    let mut before = String::new();
    loop {
        let path = format!("/api/v1/devices/{id}/history?limit=1000{before}");
        let page = match brain.call("GET", &path, None)? {
            (200, page) => page,
            // Not a single entry of it is there.
            (404, _) => return Ok(Vec::new()),
            (status, said) => anyhow::bail!("GET {path}: {status} {said}"),
        };
        for change in page["changes"].as_array().into_iter().flatten() {
            let delta = &change["delta"];
            let value = ["added", "modified"].map(|key| &delta[key]["reported/count"]);
            let value = value.into_iter().find(|value| value.is_number());
            let own = change["author"] == author;
            values.push(value.filter(|_| own).cloned().unwrap_or_default());
        }
        match &page["next"] {
            Json::Number(next) => before = format!("&before={next}"),
            _ => break,
        }
    }
    values.reverse();
    Ok(values)
}

/// The seed that `FLEET_SEED` gives; 1 without it.
pub(crate) fn seed() -> u64 {
    from_environment("FLEET_SEED").unwrap_or(1)
}

/// A number that the environment gives.
pub(crate) fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}
