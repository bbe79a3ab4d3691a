//! Sorted lists and what changes them: the places are looked up once, and everything is moved or
//! copied in stretches, so that there is nothing to sort.

use std::sync::Arc;

/// What is to stand at a place of a sorted list (`Ok`), or be inserted before it (`Err`).
pub(super) struct Edit<T> {
    pub(super) place: Result<usize, usize>,
    pub(super) new: Option<T>,
}

impl<T> Edit<T> {
    pub(super) fn as_ref(&self) -> Edit<&T> {
        Edit { place: self.place, new: self.new.as_ref() }
    }

    fn start(&self) -> usize {
        let (Ok(at) | Err(at)) = self.place;
        at
    }

    fn end(&self) -> usize {
        self.start() + usize::from(self.place.is_ok())
    }
}

/// A list after some edits, in the order of their places; `None` if there are none.
pub(super) fn merge<'a, T: Clone + 'a>(
    old: &'a [T],
    mut edits: impl Iterator<Item = Edit<&'a T>>,
) -> Option<Arc<[T]>> {
    let first = edits.next()?;
    let Some(second) = edits.next() else {
        // As a rule it is one: then the length is known, and all is copied only once.
        let (start, end) = (first.start(), first.end());
        let rest = start + usize::from(first.new.is_some());
        let item = |index| match first.new {
            _ if index < start => &old[index],
            Some(new) if index == start => new,
            _ => &old[index - rest + end],
        };
        return Some((0..rest + old.len() - end).map(|index| item(index).clone()).collect());
    };
    let more = 2 + edits.size_hint().1.unwrap_or_default();
    Some(merge_all(old, more, [first, second].into_iter().chain(edits)).into())
}

/// The same of any number of edits, with room for `more` than there are.
pub(super) fn merge_all<'a, T: Clone + 'a>(
    old: &'a [T],
    more: usize,
    edits: impl Iterator<Item = Edit<&'a T>>,
) -> Vec<T> {
    let mut merged = Vec::with_capacity(old.len() + more);
    let mut copied = 0;
    for edit in edits {
        merged.extend_from_slice(&old[copied..edit.start()]);
        merged.extend(edit.new.cloned());
        copied = edit.end();
    }
    merged.extend_from_slice(&old[copied..]);
    merged
}

/// Makes the edits in the list itself: what stays is moved once to close the gaps and once to make
/// room, and not copied.
pub(super) fn change<T: Clone>(list: &mut Vec<T>, edits: &[Edit<T>]) {
    let mut removed = Vec::new();
    let mut inserted = Vec::new();
    for edit in edits {
        match (edit.place, &edit.new) {
            (Ok(at), Some(new)) => list[at] = new.clone(),
            (Ok(at), None) => removed.push(at),
            (Err(before), Some(new)) => inserted.push((before - removed.len(), new)),
            (Err(_), None) => {}
        }
    }

    // The gap of those removed so far moves up through the list, past one stretch at a time.
    for (gap, &at) in removed.iter().enumerate() {
        let stretch_end = removed.get(gap + 1).copied().unwrap_or(list.len());
        list[at - gap..stretch_end].rotate_left(gap + 1);
    }
    list.truncate(list.len() - removed.len());

    // The new ones move down from the end, and one stays before each stretch.
    let mut stretch_end = list.len();
    list.extend(inserted.iter().map(|(_, new)| (*new).clone()));
    for (index, &(before, _)) in inserted.iter().enumerate().rev() {
        list[before..=stretch_end + index].rotate_right(index + 1);
        stretch_end = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Edits that set each number to what it is to be: there (`true`) or not.
    fn edits_of(list: &[u32], changes: &[(u32, bool)]) -> Vec<Edit<u32>> {
        let edit = |&(number, shown): &(u32, bool)| {
            let place = list.binary_search(&number);
            (place.is_ok() || shown).then_some(Edit { place, new: shown.then_some(number) })
        };
        changes.iter().filter_map(edit).collect()
    }

    /// What the edits lead to, in the plainest way.
    fn set_after(list: &[u32], changes: &[(u32, bool)]) -> Vec<u32> {
        let mut set: std::collections::BTreeSet<u32> = list.iter().copied().collect();
        for (number, shown) in changes {
            if *shown {
                set.insert(*number);
            } else {
                set.remove(number);
            }
        }
        set.into_iter().collect()
    }

    #[test]
    fn all_ways_lead_to_the_same_list() {
        // Which of the numbers there are, which are changed, and which of those are to be there.
        const NUMBERS: u32 = 6;
        let mut checked = 0;
        for there in 0..1 << NUMBERS {
            let list: Vec<u32> = (0..NUMBERS).filter(|n| there >> n & 1 == 1).collect();
            for changed in 0..1 << NUMBERS {
                for shown in (0..1 << NUMBERS).filter(|shown| shown & !changed == 0) {
                    let numbers = (0..NUMBERS).filter(|n| changed >> n & 1 == 1);
                    let changes: Vec<_> = numbers.map(|n| (n, shown >> n & 1 == 1)).collect();
                    let edits = edits_of(&list, &changes);
                    let wanted = set_after(&list, &changes);
                    match merge(&list, edits.iter().map(Edit::as_ref)) {
                        Some(merged) => assert_eq!(*merged, wanted),
                        None => assert!(edits.is_empty()),
                    }
                    assert_eq!(merge_all(&list, 0, edits.iter().map(Edit::as_ref)), wanted);
                    let mut in_place = list.clone();
                    change(&mut in_place, &edits);
                    assert_eq!(in_place, wanted, "{list:?} after {changes:?}");
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 64 * 3_usize.pow(NUMBERS));
    }
}
