//! What time asks for, and what follows every input.

use rand::RngExt;

use super::super::piggyback::{Audience, transmit_limit};
use super::super::timer::Timer;
use super::super::{Outcome, Phase, Protocol};
use crate::node::NodeId;
use crate::time::Instant;
use crate::wire::HEADER_BYTES;

/// A round of gossip about fresh news waits at most this share of the gossip interval for more of
/// them, so that bursts share datagrams.
const FRESH_SHARE: u32 = 20;

/// News wait at most this share of the gossip interval for more of them.
const NEWS_SHARE: u32 = 100;

/// The first pause between attempts of a lonely node to reach a seed, as a share of
/// `reconnect_interval`; it doubles up to that.
const LONELY_SHARE: u32 = 32;

impl Protocol {
    /// Runs every timer that is due, each once.
    pub(in crate::proto) fn run_timers(&mut self) {
        let mut ran: Vec<Timer> = Vec::new();
        while let Some(timer) = self.timers.take_due(self.now) {
            if !self.is_active() || ran.contains(&timer) {
                continue;
            }
            ran.push(timer);
            self.run_timer(timer);
        }
    }

    /// Does what a timer asks for.
    pub(super) fn run_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Probe => self.probe_round(),
            Timer::Answer => self.pursue_probes(),
            Timer::Suspicion => self.pursue_suspicions(),
            Timer::Deaths => self.bury_the_dead(),
            Timer::Hop => self.retry_hops(),
            Timer::Gossip => self.gossip(),
            Timer::Pull => {
                self.compare_with_someone();
                self.timers.set(Timer::Pull, Some(self.now + self.config.pull_interval));
            }
            Timer::Fetch => self.retry_fetches(),
            Timer::Join => self.send_joins(),
            Timer::Reconnect => self.reconnect(),
            Timer::Clash => {
                self.ask_claimants();
                self.settle_silent_clashes();
                self.settle_succession();
            }
            Timer::Announce => self.announce_overdue(),
            // These are looked after in `settle`, whatever the input was.
            Timer::PullRetry | Timer::Leave | Timer::Receipt | Timer::News | Timer::Report => {}
            Timer::Purge => self.forget_the_dead(),
        }
    }

    /// What follows every input: work that may be ready, and the timers of the leaf modules.
    pub(in crate::proto) fn settle(&mut self) {
        if !self.is_active() {
            return;
        }
        self.progress_pulls();
        self.progress_reports();
        self.progress_receipts();
        self.progress_goodbye();
        while let Some((token, count)) = self.joins.take_answered(self.now) {
            self.outcomes.push_back(Outcome::Answered { token, count });
        }
        self.launch_news();
        if self.piggyback.take_fresh() {
            let due = self.gossip_due();
            self.timers.set_earlier(Timer::Gossip, due);
        }
        let retention = self.config.dead_retention;
        let (answer, suspicion) = self.detection_deadlines();
        let timers = &mut self.timers;
        timers.set(Timer::Report, self.gatherings.next_deadline());
        timers.set(Timer::Hop, self.hops.next_deadline());
        timers.set(Timer::Answer, answer);
        timers.set(Timer::Suspicion, suspicion);
        timers.set(Timer::Deaths, self.deaths.next_deadline());
        timers.set(Timer::PullRetry, self.pulls.next_deadline());
        timers.set(Timer::Fetch, self.fetches.next_deadline());
        timers.set(Timer::Join, self.joins.next_deadline());
        let names = [self.clashes.next_deadline(), self.succession.next_deadline()];
        timers.set(Timer::Clash, names.into_iter().flatten().min());
        timers.set(Timer::Announce, self.announcing.next());
        timers.set(
            Timer::Leave,
            self.goodbye.as_ref().map(|goodbye| {
                let soon = self.now + self.config.gossip_interval / NEWS_SHARE;
                if goodbye.told { goodbye.deadline } else { soon.min(goodbye.deadline) }
            }),
        );
        timers.set(Timer::Receipt, self.receipts.next_deadline());
        timers.set(Timer::Purge, self.members.next_forget(self.now, retention));
    }

    /// When fresh news are told: at once, but for a pause in which others may join them.
    fn gossip_due(&mut self) -> Instant {
        let interval = self.config.gossip_interval;
        if !self.rules.eager_gossip {
            // At the next tick of a clock that ticks whether there is news or not.
            return self.now + interval.mul_f64(self.rng.random());
        }
        let pause = interval / FRESH_SHARE;
        self.last_gossip.map_or(self.now, |last| self.now.max(last + pause))
    }

    /// When news that wait now are sent: at once, but for a pause in which others may join them.
    pub(super) fn news_due(&self) -> Instant {
        let pause = self.config.gossip_interval / NEWS_SHARE;
        self.last_launch.map_or(self.now, |last| self.now.max(last + pause))
    }

    /// A round of gossip: for every audience that has something to hear, some random members and
    /// the next one in the order of ids. Random choice alone misses somebody now and then (Demers
    /// et al. 1987: a push that ends leaves e^-m of the nodes unreached); with the successor each
    /// member has one other that tells it for certain, unless the datagram is lost.
    fn gossip(&mut self) {
        self.last_gossip = Some(self.now);
        let mut chosen: Vec<NodeId> = Vec::new();
        for audience in self.piggyback.audiences() {
            let peers = match audience {
                Audience::Cluster => self.members.peers(),
                Audience::Scope(scope) => self.roles.table(scope).map_or(&[][..], |it| it.peers()),
            };
            let fanout = self.config.gossip_fanout;
            let mut hearers = Vec::with_capacity(fanout + 1);
            if self.rules.successor_gossip {
                let after = peers.partition_point(|id| *id < self.local);
                hearers.extend(peers.get(after).or(peers.first()));
            }
            hearers.extend(Protocol::choose(&mut self.rng, peers, fanout, |_| true));
            // In the order in which they were chosen: a budget that ends with a round leaves no
            // ids out more often than others.
            for id in hearers {
                if !chosen.contains(&id) {
                    chosen.push(id);
                }
            }
        }
        let mut complete = true;
        for id in chosen {
            let budget = self.config.gossip_bytes_per_second;
            if self.rules.fast_path && !self.hops.spend(self.now, budget, HEADER_BYTES) {
                // The rest waits for the next round.
                complete = false;
                break;
            }
            self.send_payload_to(id, Vec::new());
        }
        // Half of the rounds would do: the datagrams of each are several.
        let limit = transmit_limit(&self.config, self.members.live_count());
        if complete {
            self.piggyback.end_round(2 * limit);
        }
        if !self.piggyback.is_empty() {
            let next = self.now + self.config.gossip_interval;
            self.timers.set_earlier(Timer::Gossip, next);
        }
    }

    /// Tries one of the failed, and has the seeds resolved and tried again.
    fn reconnect(&mut self) {
        let failed = self.members.failed();
        if let Some(id) = Protocol::choose(&mut self.rng, &failed, 1, |_| true).first() {
            self.knock(*id);
        }
        let interval = self.config.reconnect_interval;
        let lonely = self.members.peers().is_empty() || self.phase == Phase::Alone;
        let pause = if lonely {
            let doubled = 1 << self.lonely_tries.min(5);
            self.lonely_tries += 1;
            (interval / LONELY_SHARE * doubled).min(interval)
        } else {
            self.lonely_tries = 0;
            interval
        };
        self.outcomes.push_back(Outcome::ResolveSeeds);
        self.timers.set(Timer::Reconnect, Some(self.now + pause));
    }

    /// Nodes whose roles have not come in time are announced without them; the pull repairs that.
    fn announce_overdue(&mut self) {
        for id in self.announcing.due(self.now) {
            self.announce(id);
        }
    }

    fn forget_the_dead(&mut self) {
        let retention = self.config.dead_retention;
        while let Some(id) = self.members.forget_one(self.now, retention) {
            self.forget_run(id);
        }
    }

    /// Says goodbye to everybody, and stops when that has arrived.
    fn progress_goodbye(&mut self) {
        let Some(mut goodbye) = self.goodbye.take() else { return };
        goodbye.told = goodbye.told || self.tell_goodbye();
        if !goodbye.is_over(self.now, self.hops.len()) {
            self.goodbye = Some(goodbye);
            return;
        }
        let unheard = if goodbye.told {
            goodbye.unheard + self.peers_unheard()
        } else {
            self.members.peers().len()
        };
        self.outcomes.push_back(Outcome::Left { unheard });
        self.phase = Phase::Stopped;
    }
}
