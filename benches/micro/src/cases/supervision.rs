//! The supervisor's core: one event after the other, no actor and no clock.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{
    Action, ChildId, ChildPolicy, ChildSpec, Event, Exit, Incarnation, SetPolicy, SupervisorCore,
};

use crate::case::{Case, Run};

const GROUP: &str = "supervisor core";

pub(super) const CASES: &[Case] = &[
    Case { group: GROUP, name: "start 1,000 children", items: 1_000, prepare: start },
    Case { group: GROUP, name: "crash and restart of 1 in 1,000", items: 1, prepare: restart },
];

fn core() -> SupervisorCore {
    let children = (0..1_000).map(|n| ChildSpec::new(child(n), ChildPolicy::default()));
    SupervisorCore::new(SetPolicy::default(), children, Incarnation(1), 1)
}

fn child(n: usize) -> ChildId {
    format!("device-{n}").into()
}

/// Says of every child that the core wants started that it is.
fn obey(core: &mut SupervisorCore, actions: Vec<Action>, now: Duration) {
    for action in actions {
        if let Action::StartChild { id, incarnation } = action {
            let more = core.on(Event::ChildStarted { id, incarnation }, now);
            obey(core, more, now);
        }
    }
}

fn start() -> Run {
    Box::new(move || {
        let mut core = core();
        let actions = core.on(Event::Start, Duration::ZERO);
        obey(&mut core, actions, Duration::ZERO);
        black_box(core);
    })
}

fn restart() -> Run {
    let mut core = core();
    let mut now = Duration::from_secs(1);
    let actions = core.on(Event::Start, now);
    obey(&mut core, actions, now);
    let message: Arc<str> = "it failed".into();
    let mut incarnation = Incarnation(501);
    Box::new(move || {
        // Far enough apart for no budget to be spent.
        now += Duration::from_secs(3_600);
        let id = child(500);
        let exit = Exit::Crash { message: message.clone() };
        black_box(core.on(Event::ChildExited { id: id.clone(), incarnation, exit }, now));
        now += Duration::from_secs(60);
        for action in core.on(Event::RestartDue { id: id.clone() }, now) {
            if let Action::StartChild { incarnation: next, .. } = action {
                incarnation = next;
            }
        }
        black_box(core.on(Event::ChildStarted { id, incarnation }, now));
    })
}
