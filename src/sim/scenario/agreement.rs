//! Whether all know the same, for clusters of thousands.

use std::collections::BTreeMap;

use crate::node::NodeId;
use crate::proto::Protocol;
use crate::sim::Simulation;
use crate::wire::ScopeId;
use crate::wire::frame::Summary;

/// Whether all running nodes know the same members, and of each scope the same roles. Each knows
/// the truth about itself, so that what all agree about is the truth.
pub(super) fn agree(sim: &Simulation) -> bool {
    let running = sim.running().count();
    let mut members: Option<Summary> = None;
    let mut scopes: BTreeMap<ScopeId, Summary> = BTreeMap::new();
    sim.running().all(|(_, node)| {
        let digest = node.digest();
        let complete = digest.announcing == 0 && digest.members.count as usize == running;
        complete
            && *members.get_or_insert(digest.members) == digest.members
            && digest.scopes.into_iter().all(|(scope, it)| *scopes.entry(scope).or_insert(it) == it)
    })
}

/// How many changes are lost: generations of a node's roles in a scope that another node of the
/// scope has not reached, or of which it knows other roles than the node itself.
pub(super) fn lost_updates(sim: &Simulation) -> u64 {
    let all: BTreeMap<NodeId, &Protocol> =
        sim.running().map(|(_, node)| (node.local().id(), node)).collect();
    let mut lost = 0;
    for observer in all.values() {
        for scope in observer.scopes() {
            let id = observer.local().id();
            let owners = all.values().filter(|owner| owner.local().id() != id);
            for owner in owners.filter(|owner| owner.scopes().contains(&scope)) {
                let own = owner.local().id();
                let (reached, known) =
                    (owner.generation(&scope, own), observer.generation(&scope, own));
                let missing = reached.as_u64().saturating_sub(known.as_u64());
                let differs = observer.roles(&scope, own) != owner.roles(&scope, own);
                lost += missing.max(u64::from(differs));
            }
        }
    }
    lost
}
