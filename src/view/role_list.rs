//! The roles of one node, in chunks that versions share: so that one role more among thousands
//! costs the copy of a chunk.

use std::slice;
use std::sync::Arc;

use super::edit::{Edit, merge};
use super::epoch_map::HeapBytes;
use crate::role::{Role, Roles};

/// Most roles in a chunk. Few nodes have more in a scope.
const MAX_CHUNK: usize = 128;

/// Of how many chunks' roles on average one is made anew when there are more chunks than that.
const MIN_FILL: usize = 4;

/// At least one role, sorted, each once.
pub(super) enum RoleList {
    One(Roles),
    /// None of them empty.
    Many(Box<[Roles]>),
}

/// What became of a list, or of none.
pub(super) enum Edited {
    /// The changes change nothing.
    Same,
    /// No role is left.
    Gone,
    Now(RoleList),
}

impl RoleList {
    /// All roles as one list, which is copied only if there are many.
    pub(super) fn to_roles(&self) -> Roles {
        match self {
            RoleList::One(roles) => roles.clone(),
            RoleList::Many(_) => {
                // Of a known length, so that it is made in place.
                let all: Vec<Role> = self.iter().cloned().collect();
                Roles::from_sorted(all.into())
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Role> {
        self.chunks().iter().flat_map(|chunk| chunk.iter())
    }

    /// A list after some changes in the order of roles: of each whether it is shown.
    pub(super) fn edited(old: Option<&RoleList>, changes: &[(Role, bool)]) -> Edited {
        let old = old.map_or(&[][..], RoleList::chunks);
        let mut chunks = Vec::new();
        let mut rest = changes;
        let mut copied = 0;
        while let Some((first, _)) = rest.first() {
            // The chunk that has the first one, or would.
            let at = old.partition_point(|chunk| chunk[0] <= *first).saturating_sub(1);
            let chunk = old.get(at).map_or(&[][..], |chunk| chunk);
            let within = match old.get(at + 1) {
                Some(next) => rest.partition_point(|(role, _)| *role < next[0]),
                None => rest.len(),
            };
            let (here, further) = rest.split_at(within);
            rest = further;
            let Some(merged) = merge_roles(chunk, here) else { continue };
            chunks.extend_from_slice(&old[copied..at]);
            push_chunks(&mut chunks, merged);
            copied = old.len().min(at + 1);
        }
        if chunks.is_empty() && copied == 0 {
            return Edited::Same;
        }
        chunks.extend_from_slice(&old[copied..]);
        RoleList::of_chunks(chunks).map_or(Edited::Gone, Edited::Now)
    }

    fn of_chunks(mut chunks: Vec<Roles>) -> Option<RoleList> {
        let roles: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        if chunks.len() > 1 && MIN_FILL * roles < MAX_CHUNK * chunks.len() {
            let all: Vec<Role> = chunks.iter().flat_map(|chunk| chunk.iter().cloned()).collect();
            chunks.clear();
            push_chunks(&mut chunks, all.into());
        }
        match chunks.len() {
            0 => None,
            1 => chunks.pop().map(RoleList::One),
            _ => Some(RoleList::Many(chunks.into())),
        }
    }

    fn chunks(&self) -> &[Roles] {
        match self {
            RoleList::One(roles) => slice::from_ref(roles),
            RoleList::Many(chunks) => chunks,
        }
    }
}

impl HeapBytes for RoleList {
    /// Of what is likely its own: the rest is shared with the version after it.
    fn heap_bytes(&self) -> usize {
        match self {
            RoleList::One(roles) => size_of_val::<[Role]>(roles),
            RoleList::Many(chunks) => size_of_val(&**chunks) + MAX_CHUNK * size_of::<Role>(),
        }
    }
}

/// Adds sorted roles in chunks of about the same length.
fn push_chunks(chunks: &mut Vec<Roles>, roles: Arc<[Role]>) {
    if roles.is_empty() {
        return;
    }
    if roles.len() <= MAX_CHUNK {
        chunks.push(Roles::from_sorted(roles));
        return;
    }
    let parts = roles.len().div_ceil(MAX_CHUNK);
    for part in roles.chunks(roles.len().div_ceil(parts)) {
        chunks.push(Roles::from_sorted(part.into()));
    }
}

/// A sorted list of roles after some changes; `None` if they change nothing.
fn merge_roles(old: &[Role], changes: &[(Role, bool)]) -> Option<Arc<[Role]>> {
    let edits = changes.iter().filter_map(|(role, shown)| {
        let place = old.binary_search(role);
        (place.is_ok() != *shown).then_some(Edit { place, new: shown.then_some(role) })
    });
    merge(old, edits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A list as it is after each of some steps, beside a plain set.
    struct Beside {
        list: Option<RoleList>,
        set: BTreeSet<Role>,
    }

    impl Beside {
        fn new() -> Beside {
            Beside { list: None, set: BTreeSet::new() }
        }

        fn change(&mut self, numbers: impl Iterator<Item = u32>, shown: bool) {
            let changes: BTreeSet<Role> = numbers.map(Role::from).collect();
            let before = self.set.clone();
            for role in &changes {
                if shown {
                    self.set.insert(role.clone());
                } else {
                    self.set.remove(role);
                }
            }
            let changes: Vec<_> = changes.into_iter().map(|role| (role, shown)).collect();
            match RoleList::edited(self.list.as_ref(), &changes) {
                Edited::Now(list) => self.list = Some(list),
                Edited::Gone => self.list = None,
                Edited::Same => assert_eq!(self.set, before, "a change was lost"),
            }
            assert_eq!(self.list.is_none(), self.set.is_empty());
            let roles = self.list.as_ref().map(RoleList::to_roles).unwrap_or_default();
            assert!(roles.iter().eq(&self.set));
        }

        /// The lengths of the chunks.
        fn lens(&self) -> Vec<usize> {
            let chunks = self.list.as_ref().map_or(&[][..], RoleList::chunks);
            chunks.iter().map(|chunk| chunk.len()).collect()
        }
    }

    #[test]
    fn chunks_stay_within_their_bounds_however_roles_come_and_go() {
        let mut beside = Beside::new();
        for number in 0..1_000 {
            beside.change(std::iter::once(number * 7 % 1_000), true);
        }
        assert!(beside.lens().len() > 1_000 / MAX_CHUNK);
        assert!(beside.lens().iter().all(|len| (1..=MAX_CHUNK).contains(len)));
        beside.change(0..1_000, true);
        for number in 0..990 {
            beside.change(std::iter::once(number * 7 % 1_000), false);
        }
        assert_eq!(beside.lens(), [10]);
        beside.change(0..1_000, false);
        assert!(beside.lens().is_empty());
    }

    #[test]
    fn many_changes_at_once_go_to_many_chunks() {
        let mut beside = Beside::new();
        beside.change((0..1_000).step_by(2), true);
        beside.change((0..1_000).step_by(5), true);
        beside.change((0..1_000).step_by(3), false);
        beside.change(2_000..2_200, true);
        beside.change((0..3_000).step_by(11), false);
        beside.change(500..501, false);
        assert!(beside.lens().iter().all(|len| (1..=MAX_CHUNK).contains(len)));
    }

    #[test]
    fn one_role_more_shares_all_but_its_chunk() {
        let mut beside = Beside::new();
        beside.change((0..1_000).step_by(2), true);
        let before: Vec<_> = beside.list.as_ref().unwrap().chunks().to_vec();
        beside.change(501..502, true);
        let after = beside.list.as_ref().unwrap().chunks();
        let is_shared = |chunk: &&Roles| before.iter().any(|old| old.as_ptr() == chunk.as_ptr());
        let fresh: usize = after.iter().filter(|chunk| !is_shared(chunk)).map(|c| c.len()).sum();
        assert!((1..=2 * MAX_CHUNK).contains(&fresh), "{fresh} of {}", beside.set.len());
    }
}
