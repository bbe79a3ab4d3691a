//! At rest everybody knows the truth, within a bound that the configuration sets.

use std::time::Duration;

use super::{Verdict, Violation};
use crate::config::Config;
use crate::node::{Node, ScopeName};
use crate::proto::{PROBATION, Protocol};
use crate::sim::{HostId, Simulation};
use crate::view::ClusterView;
use crate::wire::ScopeId;

/// The worst local health.
const HEALTH: u32 = 8;

/// How often it is asked whether all agree.
const STEP: Duration = Duration::from_millis(500);

/// Where a host's view and the truth differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disagreement {
    /// The host.
    pub host: HostId,
    /// What it shows, and what is true.
    pub what: String,
}

/// After chaos, when the network is well and nothing is paused, all views of members and of the
/// roles of every scope agree everywhere with the truth.
#[derive(Debug, Default)]
pub struct Convergence {
    healed: u64,
    longest: Duration,
    /// The largest share of its bound that any needed, in percent.
    tightest: u64,
}

impl Convergence {
    pub(super) const NAME: &'static str = "convergence";

    /// Hosts that were wrong when the calm began, and came to know the truth.
    pub fn exercised(&self) -> u64 {
        self.healed
    }

    /// The longest that it took.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The largest share of its bound that any needed, in percent.
    pub fn tightest_percent(&self) -> u64 {
        self.tightest
    }

    /// The time within which `live` nodes that remember `dead` runs agree once all faults are
    /// over, if one of the seeds that all of them have is up. It is the sum of what may have to
    /// happen one after another, each at its slowest:
    ///
    /// - `leave_timeout`: a goodbye under way ends.
    /// - `probe * (2 dead + 4 + (H + 1)^2)`: the dead are noticed. The living one before a dead one
    ///   on the ring probes it within two rounds, and a row of dead ones in one sweep, but for
    ///   datagrams that are lost; local health (at most H = 8) has to come down first.
    /// - `3 (H + 1) silence`: a verdict that no witness helps with.
    /// - `30 * probe`: who was declared down more than once stays out for so long.
    /// - `11 * probe`: a disputed name, one interval to ask and ten to forget the answer.
    /// - `3 * reconnect_interval`: halves find each other. A seed that is not a member is asked
    ///   every interval; once more for a join that met a name in dispute, once more for a first
    ///   pull that failed.
    /// - `2 * pull_timeout`: a first pull that failed begins again; roles that do not come hold a
    ///   node-up back.
    /// - `pull_interval * (4 + 3 * ceil(log2(live + 1)))`: what gossip missed. Pulls both ways with
    ///   random peers reach everybody in `log2 n + ln n` rounds and a constant (Karp et al. 2000).
    ///
    /// ```
    /// use rolecall::Config;
    /// use rolecall::sim::checks::Convergence;
    ///
    /// let lan = Convergence::bound(&Config::lan(), 12, 3);
    /// assert!(lan < std::time::Duration::from_secs(400), "{lan:?}");
    /// ```
    pub fn bound(config: &Config, live: usize, dead: usize) -> Duration {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (live, dead) = (count(live.max(1)), count(dead));
        let probe = config.probe_interval;
        let doublings = u32::BITS - live.leading_zeros();
        config.leave_timeout
            + probe * (2 * dead + 4 + (HEALTH + 1).pow(2))
            + config.silence() * 3 * (HEALTH + 1)
            + probe * PROBATION
            + probe * 11
            + config.reconnect_interval * 3
            + config.pull_timeout * 2
            + config.pull_interval * (4 + 3 * doublings)
    }

    fn note(&mut self, wrong: u64, took: Duration, bound: Duration) {
        self.healed += wrong;
        self.longest = self.longest.max(took);
        let percent = took.as_millis() * 100 / bound.as_millis().max(1);
        self.tightest = self.tightest.max(u64::try_from(percent).unwrap_or(u64::MAX));
    }
}

impl Simulation {
    /// Lets time pass until all agree; says how long it took. Faults are not ended: with some, such
    /// as an MTU below `max_datagram_bytes`, nothing can converge.
    ///
    /// # Errors
    /// Where they still disagree when the [bound](Convergence::bound) is over.
    pub fn converge(&mut self) -> Result<Duration, Violation> {
        let live = self.running().count();
        let dead = self.running().map(|(_, node)| node.stats().dead).max().unwrap_or(0);
        let configs = self.running().map(|(_, node)| node.config());
        let undetected = self.running().map(|(_, node)| node.stats().members).max().unwrap_or(0);
        let dead = dead + undetected.saturating_sub(live);
        let bound = configs.map(|it| Convergence::bound(it, live, dead)).max();
        let bound = bound.unwrap_or_default();
        let start = self.now();
        let wrong = self.disagreements().count() as u64;
        while let Some(found) = self.first_disagreement() {
            if self.now() - start >= bound {
                let what = format!("no agreement after {bound:?}: {}", found.what);
                let what = format!("{what}\n{}", self.conditions());
                let (at, host) = (self.now(), Some(found.host));
                return Err(Violation { at, host, checker: Convergence::NAME, what });
            }
            self.run(STEP);
        }
        let took = self.now() - start;
        if let Some(checks) = &mut self.checks {
            checks.convergence.note(wrong, took, bound);
        }
        Ok(took)
    }

    /// How all nodes fare: what a failure to agree is to be understood by.
    fn conditions(&self) -> String {
        let lines = self.running().map(|(_, node)| {
            let (stats, synced) = (node.stats(), node.is_synced());
            format!(
                "{:?}: synced {synced}, pulls {}, failed {}, wants {}, fetches {}, dropped {:?}\n",
                node.local(),
                stats.pulls,
                stats.pulls_failed,
                stats.fetch_queue,
                stats.fetches,
                stats.dropped
            )
        });
        lines.collect()
    }

    /// Where the first host is that is wrong, if one is.
    pub fn first_disagreement(&self) -> Option<Disagreement> {
        self.disagreements().next()
    }

    /// All hosts that are wrong about somebody who runs, or about somebody who does not.
    pub fn disagreements(&self) -> impl Iterator<Item = Disagreement> {
        let mut all: Vec<&Node> = self.running().map(|(_, node)| node.local()).collect();
        all.sort_unstable();
        let hosts: Vec<(HostId, &Protocol)> = self.running().collect();
        hosts.into_iter().filter_map(move |(host, node)| {
            let what = self.host_agrees(host, node, &all).err()?;
            Some(Disagreement { host, what })
        })
    }

    fn host_agrees(&self, host: HostId, node: &Protocol, all: &[&Node]) -> Verdict {
        let local = node.local();
        let digest = node.digest();
        if digest.members.count as usize != all.len() || digest.announcing + digest.suspects > 0 {
            let names = node.members().names().join(" ");
            return Err(format!(
                "{local} knows {names} ({digest:?}), but these are up: {all:?}; it holds {:?}",
                node.sightings().collect::<Vec<_>>()
            ));
        }
        let members = node.members();
        if !members.iter().eq(all.iter().copied()) {
            return Err(format!("{local} knows {members:?}, but these are up: {all:?}"));
        }
        let same = |node: &Node, other: &Node| node.meta() == other.meta();
        if let Some((seen, truth)) = members.iter().zip(all).find(|(a, b)| !same(a, b)) {
            return Err(format!("{local} has other metadata of {seen} than {truth} itself"));
        }
        let view = self.has_views.then(|| &**self.view(host));
        if view.is_some_and(|view| view.members() != members) {
            return Err(format!("{local} shows others than it knows"));
        }
        node.scopes().iter().try_for_each(|scope| self.roles_agree(node, view, scope))
    }

    fn roles_agree(
        &self,
        node: &Protocol,
        view: Option<&ClusterView>,
        scope: &ScopeName,
    ) -> Verdict {
        let (local, id) = (node.local(), ScopeId::of(scope));
        let shown = view.map(|view| view.scope(scope));
        for (_, other) in self.running() {
            let run = other.local().id();
            let truth = other.kept_generation(id, run);
            let known = node.kept_generation(id, run);
            let listed = node.memberships(run).iter().any(|it| it.scope == id);
            let roles = other.roles(scope, run);
            if known != truth || listed != truth.is_some() || node.roles(scope, run) != roles {
                return Err(format!(
                    "{scope}: {local} knows {known:?} (listed: {listed}) of {}, true {truth:?}",
                    other.local()
                ));
            }
            if shown.as_ref().is_some_and(|shown| shown.roles(other.local().name()) != roles) {
                return Err(format!("{scope}: {local} shows others of {}", other.local()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{HostSpec, Partition};

    #[test]
    fn convergence_bites() {
        let mut sim = Simulation::new(1, Config::local()).checked();
        let a = sim.start(HostSpec::new("a").scope("s", ["one"]));
        let b = sim.start(HostSpec::new("b").scope("s", ["two"]).seeds([sim.addr(a)]));
        assert!(sim.first_disagreement().is_some());
        sim.converge().unwrap();
        assert_eq!(sim.disagreements().count(), 0);
        assert_eq!(sim.checks().unwrap().convergence.exercised(), 2);
        let cut = sim.partition(Partition::around(sim.addr(b)));
        sim.run(Duration::from_secs(60));
        let violation = sim.converge().unwrap_err();
        assert_eq!(violation.checker, Convergence::NAME);
        sim.heal(cut);
        sim.converge().unwrap();
        assert!(sim.checks().unwrap().convergence.longest() > Duration::ZERO);
    }

    #[test]
    fn the_bound_grows_with_what_it_rests_on() {
        let lan = Config::lan();
        let small = Convergence::bound(&lan, 4, 0);
        assert!(Convergence::bound(&lan, 40, 0) > small);
        assert!(Convergence::bound(&lan, 4, 9) > small);
        assert!(Convergence::bound(&Config::wan(), 4, 0) > small);
        assert!(Convergence::bound(&lan, 0, 0) < small);
    }
}
