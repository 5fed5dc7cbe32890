//! Frames on their way, in virtual time.
//!
//! Two kinds of link. A *stream* is what the transports really are: in order and complete until
//! it breaks, which loses whatever is under way; or *half-open*, where nothing arrives any more
//! and nobody is told. A *hostile* link is what no transport would do: it drops, repeats,
//! reorders, shortens and splits single frames. Sessions promise nothing over it but never to
//! diverge: they close, and a new one resumes.

mod kinds;

use std::collections::BTreeMap;

use crate::fired::Fired;
use crate::random::Random;

pub use kinds::{Arrival, Hostility, LinkId, LinkKind, Side};

#[derive(Debug)]
struct Link {
    kind: LinkKind,
    half_open: bool,
    /// For each end, whether somebody is there.
    open: [bool; 2],
    /// For each end, when the last frame in order arrives there.
    last_at_ms: [u64; 2],
    bytes_under_way: [usize; 2],
}

/// All links, and what is on them.
#[derive(Debug)]
pub struct Network {
    random: Random,
    links: BTreeMap<LinkId, Link>,
    under_way: BTreeMap<(u64, u64), Arrival>,
    next_link: LinkId,
    next_order: u64,
    frames: u64,
    peak_bytes: [usize; 2],
    fired: Fired,
}

impl Network {
    /// A network without links.
    pub fn new(random: Random) -> Self {
        Self {
            random,
            links: BTreeMap::new(),
            under_way: BTreeMap::new(),
            next_link: 1,
            next_order: 0,
            frames: 0,
            peak_bytes: [0; 2],
            fired: Fired::default(),
        }
    }

    /// Opens a link.
    pub fn open(&mut self, kind: LinkKind) -> LinkId {
        let id = self.next_link;
        self.next_link += 1;
        let link = Link {
            kind,
            half_open: false,
            open: [true; 2],
            last_at_ms: [0; 2],
            bytes_under_way: [0; 2],
        };
        self.links.insert(id, link);
        id
    }

    /// Sends a frame. Over a link that is gone it goes nowhere.
    pub fn send(&mut self, now_ms: u64, id: LinkId, from: Side, frame: Vec<u8>) {
        let Some(link) = self.links.get(&id) else { return };
        self.frames += 1;
        if link.half_open {
            self.fired.count("frames_into_nothing");
            return;
        }
        let to = from.other();
        match link.kind.clone() {
            LinkKind::Stream { latency_ms, loss_permille } => {
                if self.random.chance(loss_permille) {
                    self.fired.count("streams_broken_by_loss");
                    self.cut(now_ms, id);
                    return;
                }
                let at_ms = now_ms + self.random.within(&latency_ms);
                self.queue_in_order(at_ms, id, to, frame);
            }
            LinkKind::Hostile(hostility) => self.send_hostile(now_ms, id, to, frame, &hostility),
        }
    }

    fn send_hostile(
        &mut self,
        now_ms: u64,
        id: LinkId,
        to: Side,
        mut frame: Vec<u8>,
        hostility: &Hostility,
    ) {
        let mut at_ms = now_ms + self.random.within(&hostility.latency_ms);
        if self.random.chance(hostility.drop_permille) {
            self.fired.count("frames_dropped");
            return;
        }
        if self.random.chance(hostility.truncate_permille) {
            self.fired.count("frames_truncated");
            frame.truncate(self.random.below(frame.len() as u64) as usize);
        }
        if self.random.chance(hostility.split_permille) {
            self.fired.count("frames_split");
            let rest = frame.split_off(self.random.below(frame.len() as u64) as usize);
            self.queue_in_order(at_ms, id, to, std::mem::replace(&mut frame, rest));
        }
        if self.random.chance(hostility.duplicate_permille) {
            self.fired.count("frames_duplicated");
            self.queue_in_order(at_ms, id, to, frame.clone());
        }
        if self.random.chance(hostility.reorder_permille) {
            self.fired.count("frames_reordered");
            at_ms += 1 + self.random.below(3 * hostility.latency_ms.end);
            self.queue(at_ms, id, to, frame);
        } else {
            self.queue_in_order(at_ms, id, to, frame);
        }
    }

    /// Breaks a link: what is under way is lost, and both ends hear of it.
    pub fn cut(&mut self, now_ms: u64, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        self.fired.count("links_cut");
        self.forget_under_way(id);
        for side in [Side::Caller, Side::Answerer] {
            if link.open[side as usize] && !link.half_open {
                self.push(now_ms, Arrival::Broken { link: id, to: side });
            }
        }
    }

    /// Makes a link half-open: nothing arrives any more, and nobody hears why.
    pub fn make_half_open(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !std::mem::replace(&mut link.half_open, true) {
            self.fired.count("links_half_open");
            self.forget_under_way(id);
        }
    }

    /// One end goes away. The other gets what was under way, and then hears of it.
    pub fn close(&mut self, now_ms: u64, id: LinkId, side: Side) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let other = side.other();
        link.open[side as usize] = false;
        if !link.open[other as usize] {
            self.links.remove(&id);
            return;
        }
        if !link.half_open {
            let at_ms = link.last_at_ms[other as usize].max(now_ms) + 1;
            self.push(at_ms, Arrival::Broken { link: id, to: other });
        }
    }

    /// When the next thing arrives.
    pub fn next_at_ms(&self) -> Option<u64> {
        self.under_way.keys().next().map(|(at_ms, _)| *at_ms)
    }

    /// The next thing that has arrived by `now_ms`.
    pub fn take(&mut self, now_ms: u64) -> Option<Arrival> {
        loop {
            let first = self.under_way.first_entry().filter(|first| first.key().0 <= now_ms)?;
            let arrival = first.remove();
            match &arrival {
                Arrival::Frame { link, to, frame } => {
                    let Some(link) = self.links.get_mut(link) else { continue };
                    link.bytes_under_way[*to as usize] -= frame.len();
                    if link.open[*to as usize] {
                        return Some(arrival);
                    }
                }
                Arrival::Broken { link, to } => {
                    if let Some(known) = self.links.get_mut(link) {
                        known.open[*to as usize] = false;
                        if known.open == [false; 2] {
                            self.links.remove(link);
                        }
                    }
                    return Some(arrival);
                }
            }
        }
    }

    /// How many frames were sent.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The most bytes that were ever on their way to one end of one link.
    pub fn peak_bytes_towards(&self, side: Side) -> usize {
        self.peak_bytes[side as usize]
    }

    /// What happened to links and frames.
    pub fn fired(&self) -> &Fired {
        &self.fired
    }

    fn queue_in_order(&mut self, at_ms: u64, id: LinkId, to: Side, frame: Vec<u8>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let last_at_ms = &mut link.last_at_ms[to as usize];
        *last_at_ms = at_ms.max(*last_at_ms);
        let at_ms = *last_at_ms;
        self.queue(at_ms, id, to, frame);
    }

    fn queue(&mut self, at_ms: u64, id: LinkId, to: Side, frame: Vec<u8>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.bytes_under_way[to as usize] += frame.len();
        let bytes = link.bytes_under_way[to as usize];
        self.peak_bytes[to as usize] = self.peak_bytes[to as usize].max(bytes);
        self.push(at_ms, Arrival::Frame { link: id, to, frame });
    }

    fn push(&mut self, at_ms: u64, arrival: Arrival) {
        self.under_way.insert((at_ms, self.next_order), arrival);
        self.next_order += 1;
    }

    fn forget_under_way(&mut self, id: LinkId) {
        let before = self.under_way.len();
        self.under_way.retain(|_, arrival| match arrival {
            Arrival::Frame { link, .. } | Arrival::Broken { link, .. } => *link != id,
        });
        self.fired.add("frames_lost_with_links", (before - self.under_way.len()) as u64);
        if let Some(link) = self.links.get_mut(&id) {
            link.bytes_under_way = [0; 2];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(network: &mut Network, now_ms: u64) -> Vec<Arrival> {
        std::iter::from_fn(|| network.take(now_ms)).collect()
    }

    fn frame(link: LinkId, n: u8) -> Arrival {
        Arrival::Frame { link, to: Side::Answerer, frame: vec![n] }
    }

    #[test]
    fn a_stream_keeps_its_order_and_loses_nothing() {
        let mut network = Network::new(Random::new(1));
        let link = network.open(LinkKind::stream());
        (0..100).for_each(|n| network.send(u64::from(n), link, Side::Caller, vec![n]));
        let expected: Vec<_> = (0..100).map(|n| frame(link, n)).collect();
        assert_eq!(arrived(&mut network, 1_000), expected);
    }

    #[test]
    fn what_is_under_way_when_a_stream_is_cut_is_lost_and_both_hear_of_it() {
        let mut network = Network::new(Random::new(1));
        let link = network.open(LinkKind::stream());
        network.send(0, link, Side::Caller, vec![1]);
        network.cut(1, link);
        let broken = |to| Arrival::Broken { link, to };
        let expected = [broken(Side::Caller), broken(Side::Answerer)];
        assert_eq!(arrived(&mut network, 1_000), expected);
    }

    #[test]
    fn a_half_open_link_says_nothing_to_anybody() {
        let mut network = Network::new(Random::new(1));
        let link = network.open(LinkKind::stream());
        network.send(0, link, Side::Caller, vec![1]);
        network.make_half_open(link);
        network.send(1, link, Side::Caller, vec![2]);
        network.close(2, link, Side::Caller);
        assert_eq!(arrived(&mut network, 100_000), []);
    }

    #[test]
    fn the_last_words_of_an_end_that_goes_arrive() {
        let mut network = Network::new(Random::new(1));
        let link = network.open(LinkKind::stream());
        network.send(0, link, Side::Caller, vec![1]);
        network.close(0, link, Side::Caller);
        network.send(0, link, Side::Answerer, vec![9]);
        let expected = [frame(link, 1), Arrival::Broken { link, to: Side::Answerer }];
        assert_eq!(arrived(&mut network, 1_000), expected);
    }

    #[test]
    fn a_hostile_link_does_everything_that_it_is_asked_to() {
        let mut network = Network::new(Random::new(1));
        let hostility = Hostility {
            latency_ms: 5..40,
            drop_permille: 100,
            duplicate_permille: 100,
            reorder_permille: 100,
            truncate_permille: 100,
            split_permille: 100,
        };
        let link = network.open(LinkKind::Hostile(hostility));
        (0..1_000).for_each(|n| network.send(n, link, Side::Caller, vec![0; 50]));
        assert!(!arrived(&mut network, 10_000).is_empty());
        for kind in ["dropped", "duplicated", "reordered", "truncated", "split"] {
            assert!(network.fired().of(&format!("frames_{kind}")) > 50, "{kind}");
        }
    }
}
