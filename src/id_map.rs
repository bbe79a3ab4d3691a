//! A map by [`NodeId`], in order and in little space.

use std::cmp::Ordering;

use crate::node::NodeId;

/// Entries that a bucket has on average before there are twice as many buckets.
const MAX_LOAD: usize = 48;

/// Places around the guessed one that are looked at before a binary search.
const NEAR: usize = 16;

/// Room that a bucket which is full gets: little, as there is one of these tables per node, and in
/// a simulation one per node of each node.
const ROOM: usize = 4;

/// A sorted map whose entries lie side by side, with next to no room between them.
///
/// The ids are random bits, so their first bits spread them evenly over buckets, which are sorted
/// lists of a few dozen; the buckets one after the other are the whole in order. A lookup is one
/// step to a bucket and a few in it. Ids chosen to crowd one bucket make the map as slow as one
/// sorted list, no slower.
#[derive(Debug)]
pub(crate) struct IdMap<V> {
    /// As many as a power of two.
    buckets: Vec<Vec<(NodeId, V)>>,
    len: usize,
}

impl<V> Default for IdMap<V> {
    fn default() -> IdMap<V> {
        IdMap { buckets: vec![Vec::new()], len: 0 }
    }
}

impl<V> IdMap<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&V> {
        let (bucket, place) = self.find(id);
        Some(&self.buckets[bucket][place.ok()?].1)
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut V> {
        let (bucket, place) = self.find(id);
        Some(&mut self.buckets[bucket][place.ok()?].1)
    }

    /// Puts a value in, and returns the one that it replaces.
    pub(crate) fn insert(&mut self, id: NodeId, value: V) -> Option<V> {
        if self.len >= MAX_LOAD * self.buckets.len() {
            self.split();
        }
        let (bucket, place) = self.find(id);
        let bucket = &mut self.buckets[bucket];
        match place {
            Ok(at) => Some(std::mem::replace(&mut bucket[at].1, value)),
            Err(at) => {
                if bucket.len() == bucket.capacity() {
                    bucket.reserve_exact(ROOM + bucket.len() / 16);
                }
                bucket.insert(at, (id, value));
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, id: NodeId) -> Option<V> {
        let (bucket, place) = self.find(id);
        let (_, value) = self.buckets[bucket].remove(place.ok()?);
        self.len -= 1;
        Some(value)
    }

    /// The entries from `low` to `high`, both included, in order.
    pub(crate) fn range(&self, low: NodeId, high: NodeId) -> impl Iterator<Item = (NodeId, &V)> {
        let buckets = match (self.bucket_of(low), self.bucket_of(high)) {
            (first, last) if low <= high => &self.buckets[first..=last],
            _ => &[],
        };
        let entries = buckets.iter().flatten().skip_while(move |entry| entry.0 < low);
        entries.take_while(move |entry| entry.0 <= high).map(|(id, value)| (*id, value))
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &V)> {
        self.range(NodeId::MIN, NodeId::MAX)
    }

    /// Makes two buckets of each.
    fn split(&mut self) {
        let old = std::mem::take(&mut self.buckets);
        let (count, len) = (2 * old.len(), self.len);
        let shift = 64 - count.trailing_zeros();
        self.buckets.reserve_exact(count);
        for mut lower in old {
            let at = lower.partition_point(|(id, _)| (id.as_u64() >> shift) & 1 == 0);
            let mut upper = lower.split_off(at);
            lower.shrink_to_fit();
            upper.shrink_to_fit();
            self.buckets.extend([lower, upper]);
        }
        debug_assert_eq!((self.buckets.len(), self.len), (count, len));
    }

    /// The bucket of an id, and its place there, or where that would be. The bits after those that
    /// say which bucket say where in it, give or take a few places: most steps of a binary search
    /// would be as many cache misses.
    fn find(&self, id: NodeId) -> (usize, Result<usize, usize>) {
        let at = self.bucket_of(id);
        let bucket = &self.buckets[at];
        let inner = id.as_u64().checked_shl(self.buckets.len().trailing_zeros()).unwrap_or(0);
        let guess = (u128::from(inner) * bucket.len() as u128) >> 64;
        let mut place = usize::try_from(guess).expect("it is below the length");
        for _ in 0..NEAR {
            let order = bucket.get(place).map_or(Ordering::Greater, |entry| entry.0.cmp(&id));
            let beside = match order {
                Ordering::Equal => return (at, Ok(place)),
                Ordering::Less => bucket.get(place + 1).filter(|next| next.0 <= id),
                Ordering::Greater if place == 0 => None,
                Ordering::Greater => bucket.get(place - 1).filter(|previous| previous.0 >= id),
            };
            match (order, beside) {
                (Ordering::Greater, None) => return (at, Err(place)),
                (_, None) => return (at, Err(place + 1)),
                (Ordering::Greater, Some(_)) => place -= 1,
                (_, Some(_)) => place += 1,
            }
        }
        (at, bucket.binary_search_by_key(&id, |entry| entry.0))
    }

    fn bucket_of(&self, id: NodeId) -> usize {
        let shift = 64 - self.buckets.len().trailing_zeros();
        let first_bits = id.as_u64().checked_shr(shift).unwrap_or(0);
        usize::try_from(first_bits).expect("there are few buckets")
    }
}

impl<V> std::ops::Index<NodeId> for IdMap<V> {
    type Output = V;

    fn index(&self, id: NodeId) -> &V {
        self.get(id).expect("the caller knows that it is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn id(bits: u64) -> NodeId {
        NodeId::from_u64(bits).unwrap_or(NodeId::MIN)
    }

    fn entries(map: &IdMap<u32>, low: u64, high: u64) -> Vec<(NodeId, u32)> {
        map.range(id(low), id(high)).map(|(id, value)| (id, *value)).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map(
            steps in prop::collection::vec((any::<u64>(), any::<u32>(), 0..4_u8), 0..600),
            crowded in any::<bool>(),
            (low, high) in (any::<u64>(), any::<u64>()),
        ) {
            let (mut map, mut model) = (IdMap::default(), BTreeMap::new());
            for (bits, value, step) in steps {
                let key = id(if crowded { bits % 500 } else { bits });
                if step == 0 {
                    let key = model.range(key..).next().map_or(key, |(key, _)| *key);
                    prop_assert_eq!(map.remove(key), model.remove(&key));
                } else {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                }
                prop_assert_eq!(map.get(key), model.get(&key));
                prop_assert_eq!(map.get_mut(key), model.get_mut(&key));
                prop_assert_eq!(map.len(), model.len());
            }
            let all: Vec<_> = model.iter().map(|(id, value)| (*id, *value)).collect();
            prop_assert_eq!(entries(&map, 1, u64::MAX), all.clone());
            let inside = |(key, _): &&(NodeId, u32)| (id(low)..=id(high)).contains(key);
            let inside: Vec<_> = all.iter().filter(inside).copied().collect();
            prop_assert_eq!(entries(&map, low, high), inside);
        }
    }
}
