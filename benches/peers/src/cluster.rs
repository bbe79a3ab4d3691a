//! One cluster of one system in the virtual network, and the loop that drives it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rolecall::sim::{Faults, Loss, Network};
use rolecall::time::Instant;

use crate::node::{Node, Note, Outbox, Place, System};
use crate::streams::{Listener, Streams};

/// How many of the first nodes are the seeds of all.
const SEEDS: u32 = 3;
/// How long a cluster may take to form before it is measured as it is.
const MAX_FORMING: Duration = Duration::from_secs(300);
/// All nodes of a storm start within this time.
const STORM: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Waiting,
    Live,
    Crashed,
}

struct Seat<N> {
    node: Option<N>,
    fate: Fate,
    /// The only entry of `wakes` that counts.
    wake: Option<Instant>,
    /// Others that it takes for live members.
    known: usize,
    /// When it first knew all.
    complete: Option<Instant>,
}

/// Waits until every live node but one has told something.
pub(crate) struct Watch {
    note: Note,
    pub(crate) since: Instant,
    /// When each node told it.
    seen: Vec<Option<Instant>>,
    pub(crate) missing: usize,
}

impl Watch {
    /// The times it took, the shortest first, of those who have told it.
    pub(crate) fn times(&self) -> Vec<Duration> {
        let mut times: Vec<_> = self.seen.iter().flatten().map(|at| *at - self.since).collect();
        times.sort_unstable();
        times
    }
}

/// What has been counted so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counted {
    pub(crate) bytes: u64,
    pub(crate) datagrams: u64,
    pub(crate) stream_bytes: u64,
    pub(crate) false_downs: u64,
    pub(crate) renewals: u64,
    pub(crate) suspicions: Option<u64>,
}

pub(crate) struct Cluster<S: System> {
    system: S,
    pub(crate) now: Instant,
    pub(crate) rng: StdRng,
    network: Network,
    streams: Streams,
    seats: Vec<Seat<S::Node>>,
    /// When nodes want to be woken. An entry that its seat does not name any more is void.
    wakes: BinaryHeap<Reverse<(Instant, u32)>>,
    pub(crate) watch: Option<Watch>,
    /// Nodes that start now are told these.
    seeds: Vec<Place>,
    /// The number of nodes that there should be.
    goal: usize,
    /// Live nodes that do not know all others.
    incomplete: usize,
    false_downs: u64,
    renewals: u64,
    /// All that nodes know of each other, together.
    pairs: usize,
    /// When that was first 99 % of what there is to know.
    most_pairs: Option<Instant>,
    serial: u32,
    outbox: Outbox,
    buffer: Vec<u8>,
}

impl<S: System> Cluster<S> {
    /// All nodes start within a second of each other through three seeds, which are there first.
    pub(crate) fn storm(nodes: u32, seed: u64) -> Cluster<S> {
        let mut cluster = Cluster {
            system: S::new(nodes),
            now: Instant::ORIGIN,
            rng: StdRng::seed_from_u64(seed),
            network: Network::new(seed, Faults::default()),
            streams: Streams::new(seed),
            seats: Vec::new(),
            wakes: BinaryHeap::new(),
            watch: None,
            seeds: (0..SEEDS).map(Place).collect(),
            goal: 0,
            incomplete: 0,
            false_downs: 0,
            renewals: 0,
            pairs: 0,
            most_pairs: None,
            serial: 0,
            outbox: Outbox::default(),
            buffer: Vec::new(),
        };
        for index in 0..nodes {
            let after = STORM.mul_f64(cluster.rng.random());
            let after = if index < SEEDS { Duration::ZERO } else { after };
            cluster.add(after);
        }
        cluster
    }

    /// A cluster in which all know all, and that has come to rest.
    pub(crate) fn formed(nodes: u32, seed: u64, settle: Duration) -> Cluster<S> {
        let mut cluster = Self::storm(nodes, seed);
        if S::CAN_BE_TOLD {
            // They start alone, and then each is told of all others.
            let seeds = std::mem::take(&mut cluster.seeds);
            cluster.run(STORM);
            // At moments of their own: what they do periodically begins then, and would be in
            // step otherwise, as it never is in life.
            let moment = |index| (STORM.mul_f64(cluster.rng.random()), index);
            let mut moments: Vec<(Duration, u32)> = (0..nodes).map(moment).collect();
            moments.sort_unstable();
            let mut told = Duration::ZERO;
            for (moment, index) in moments {
                cluster.run(moment.saturating_sub(told));
                told = moment;
                let node = cluster.seats[index as usize].node.as_mut();
                node.expect("all have started").acquaint(nodes);
                cluster.drain(Place(index));
            }
            cluster.seeds = seeds;
        } else {
            cluster.run_until(MAX_FORMING, Cluster::is_complete);
        }
        cluster.run(settle);
        cluster
    }

    /// One more node, which starts after some time.
    pub(crate) fn add(&mut self, after: Duration) -> Place {
        let place = Place(u32::try_from(self.seats.len()).expect("few nodes"));
        let wake = self.now + after;
        self.seats.push(Seat {
            node: None,
            fate: Fate::Waiting,
            wake: Some(wake),
            known: 0,
            complete: None,
        });
        self.wakes.push(Reverse((wake, place.0)));
        self.goal += 1;
        place
    }

    /// A node is gone, and says nothing.
    pub(crate) fn crash(&mut self, place: Place) {
        let seat = &mut self.seats[place.index()];
        *seat = Seat { node: None, fate: Fate::Crashed, wake: None, known: 0, complete: None };
        self.goal -= 1;
    }

    /// A live node that is no seed.
    pub(crate) fn any(&mut self) -> Place {
        loop {
            let index = self.rng.random_range(SEEDS as usize..self.seats.len());
            if self.seats[index].fate == Fate::Live {
                return Place(u32::try_from(index).expect("few nodes"));
            }
        }
    }

    pub(crate) fn set_loss(&mut self, loss: f64) {
        let faults = Faults { loss: Loss::Random(loss), ..Faults::default() };
        self.network.set_faults(faults);
        self.streams.loss = loss;
    }

    /// A node makes a change; the watch is set on all others.
    pub(crate) fn change(&mut self, place: Place) {
        self.serial += 1;
        for seat in &mut self.seats {
            if let Some(node) = &mut seat.node {
                node.expect(place, self.serial);
            }
        }
        self.watch(Note::Changed(self.serial), place);
        let node = self.seats[place.index()].node.as_mut().expect("live nodes change");
        node.change(self.now, self.serial);
        self.drain(place);
    }

    /// Waits until all live nodes but one tell something.
    pub(crate) fn watch(&mut self, note: Note, except: Place) {
        let live = self.seats.iter().filter(|seat| seat.fate == Fate::Live).count();
        let excepted = self.seats[except.index()].fate == Fate::Live;
        self.watch = Some(Watch {
            note,
            since: self.now,
            seen: vec![None; self.seats.len()],
            missing: live - usize::from(excepted),
        });
    }

    pub(crate) fn all_told(&self) -> bool {
        self.watch.as_ref().is_none_or(|watch| watch.missing == 0)
    }

    /// Whether every node knows every other.
    pub(crate) fn is_complete(&self) -> bool {
        self.incomplete == 0
    }

    /// When 99 % of all that nodes can know of each other was first known.
    pub(crate) fn mostly_known(&self) -> Option<Duration> {
        self.most_pairs.map(|at| at - Instant::ORIGIN)
    }

    /// When each live node first knew all, of those that did.
    pub(crate) fn completed(&self) -> Vec<Duration> {
        let mut times: Vec<_> = self.seats.iter().filter_map(|seat| seat.complete).collect();
        times.sort_unstable();
        times.into_iter().map(|at| at - Instant::ORIGIN).collect()
    }

    /// When this node first knew all others, counted from a moment.
    pub(crate) fn completed_since(&self, place: Place, since: Instant) -> Option<Duration> {
        self.seats[place.index()].complete.map(|at| at - since)
    }

    pub(crate) fn counted(&self) -> Counted {
        let carried = self.network.carried();
        let nodes = self.seats.iter().filter_map(|seat| seat.node.as_ref());
        Counted {
            bytes: carried.sent_bytes,
            datagrams: carried.sent,
            stream_bytes: self.streams.sent_bytes,
            false_downs: self.false_downs,
            renewals: self.renewals,
            suspicions: nodes.map(Node::suspicions).sum(),
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until something is so; whether it came to be.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.recount();
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                return false;
            }
        }
        true
    }

    /// Does what comes next; false when nothing does before the end.
    fn step(&mut self, end: Instant) -> bool {
        while let Some(Reverse((at, index))) = self.wakes.peek()
            && self.seats[*index as usize].wake != Some(*at)
        {
            self.wakes.pop();
        }
        let datagram = self.network.next_arrival();
        let stream = self.streams.next_arrival();
        let wake = self.wakes.peek().map(|Reverse((at, _))| *at);
        let next = [datagram, stream, wake].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        self.now = self.now.max(next);
        // What has arrived is read before a timer that is due is run, as drivers should.
        if datagram == Some(next) {
            self.deliver();
        } else if stream == Some(next) {
            self.deliver_stream();
        } else if let Some(Reverse((_, index))) = self.wakes.pop() {
            self.wake(Place(index));
        }
        true
    }

    fn deliver(&mut self) {
        let Some(arrival) = self.network.receive(&mut self.buffer) else { return };
        let place = Place::of(arrival.to);
        if let Some(node) = self.seats.get_mut(place.index()).and_then(|seat| seat.node.as_mut()) {
            node.handle_datagram(self.now, arrival.from, &self.buffer);
            self.drain(place);
        }
    }

    fn deliver_stream(&mut self) {
        let Some((_, place, conn, event)) = self.streams.receive() else { return };
        if let Some(node) = &mut self.seats[place.index()].node {
            node.handle_stream(self.now, conn, event);
            self.drain(place);
        }
    }

    fn wake(&mut self, place: Place) {
        let seat = &mut self.seats[place.index()];
        seat.wake = None;
        if let Some(node) = &mut seat.node {
            node.handle_timeout(self.now);
        } else {
            let seeds = self.seeds.iter().copied();
            let seeds: Vec<_> = seeds.filter(|seed| *seed != place).collect();
            let seed = self.rng.random();
            seat.node = Some(self.system.start(self.now, place, seed, &seeds));
            seat.fate = Fate::Live;
            self.recount();
        }
        self.drain(place);
    }

    /// Takes all that a node has to say.
    fn drain(&mut self, place: Place) {
        let mut outbox = std::mem::take(&mut self.outbox);
        let seat = &mut self.seats[place.index()];
        let Some(node) = &mut seat.node else { return };
        node.drain(self.now, &mut outbox);
        let next = node.next_timeout().map(|at| at.max(self.now));
        if next != seat.wake {
            seat.wake = next;
            self.wakes.extend(next.map(|at| Reverse((at, place.0))));
        }
        for (to, datagram) in outbox.datagrams() {
            self.network.send(self.now, place.addr(), to, datagram);
        }
        for action in outbox.streams.drain(..) {
            let seats = &self.seats;
            self.streams.act(self.now, place, action, |to| match seats[to.index()].fate {
                Fate::Live => Listener::Answers,
                Fate::Waiting => Listener::Refuses,
                Fate::Crashed => Listener::Silent,
            });
        }
        for note in outbox.notes.drain(..) {
            self.take_note(place, note);
        }
        outbox.clear();
        self.outbox = outbox;
    }

    fn take_note(&mut self, place: Place, note: Note) {
        if let Some(watch) = &mut self.watch
            && watch.note == note
            && let Some(seen @ None) = watch.seen.get_mut(place.index())
        {
            *seen = Some(self.now);
            watch.missing = watch.missing.saturating_sub(1);
        }
        match note {
            Note::Up(_) => self.learn(place, 1),
            Note::Down(whom) => {
                self.learn(place, -1);
                self.false_downs += u64::from(self.seats[whom.index()].fate == Fate::Live);
            }
            Note::Changed(_) => {}
            Note::Renewed => self.renewals += 1,
        }
    }

    fn learn(&mut self, place: Place, change: isize) {
        let seat = &mut self.seats[place.index()];
        let was_complete = seat.known + 1 == self.goal;
        seat.known = seat.known.checked_add_signed(change).expect("who goes down was up");
        let is_complete = seat.known + 1 == self.goal;
        self.pairs = self.pairs.saturating_add_signed(change);
        if self.pairs * 100 >= self.goal * (self.goal - 1) * 99 {
            self.most_pairs.get_or_insert(self.now);
        }
        if is_complete {
            seat.complete.get_or_insert(self.now);
        }
        self.incomplete += usize::from(was_complete);
        self.incomplete -= usize::from(is_complete);
    }

    fn recount(&mut self) {
        let goal = self.goal;
        let waiting = |seat: &&Seat<_>| {
            seat.fate == Fate::Waiting || (seat.fate == Fate::Live && seat.known + 1 != goal)
        };
        self.incomplete = self.seats.iter().filter(waiting).count();
    }
}
