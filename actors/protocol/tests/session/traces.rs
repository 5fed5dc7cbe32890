//! Trace contexts beside entries.

use protocol::ErrorCode;
use protocol::session::{Input, Output};
use protocol::trace::{EntryTrace, TRACES_MAX, TraceContext};
use protocol::wire::{Message, Traces};

use super::world::Link;

fn trace(seq: u64) -> EntryTrace {
    EntryTrace { seq, context: TraceContext { trace_id: [7; 16], span_id: [9; 8], flags: 1 } }
}

fn traced(link: &Link) -> Vec<EntryTrace> {
    let events = link.answerer.events.iter();
    let traces = events.filter_map(|event| match event {
        Output::Traced { traces, .. } => Some(traces.clone()),
        _ => None,
    });
    traces.flatten().collect()
}

#[test]
fn contexts_come_with_the_entries_that_they_belong_to() {
    let mut link = Link::established();
    let log = link.caller.store.log();
    for seq in [2, 5] {
        link.caller.feed(Input::Traced { log, trace: trace(seq) }, link.now_ms);
    }
    link.caller.write(3, link.now_ms);
    link.run();
    assert_eq!(traced(&link), [trace(2)]);
    link.caller.write(3, link.now_ms);
    link.run();
    assert_eq!(traced(&link), [trace(2), trace(5)]);
}

#[test]
fn a_sender_forgets_the_oldest_rather_than_send_too_many() {
    let mut link = Link::established();
    let log = link.caller.store.log();
    let count = TRACES_MAX as u64 + 10;
    for seq in 1..=count {
        link.caller.feed(Input::Traced { log, trace: trace(seq) }, link.now_ms);
    }
    link.caller.write(count, link.now_ms);
    link.run();
    assert_eq!(traced(&link), (11..=count).map(trace).collect::<Vec<_>>());
}

#[test]
fn too_many_or_void_contexts_end_the_link() {
    let void =
        EntryTrace { context: TraceContext { trace_id: [0; 16], ..trace(1).context }, ..trace(1) };
    for entries in [vec![trace(1); TRACES_MAX + 1], vec![void]] {
        let mut link = Link::established();
        let (tree, log) = (link.caller.store.tree.id(), link.caller.store.log());
        link.forge_to_answerer(&Message::Traces(Traces { tree, log, entries }));
        assert_eq!(link.answerer.ended_as(), Some((ErrorCode::Malformed, false)));
    }
}
