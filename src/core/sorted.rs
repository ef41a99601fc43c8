//! Things in order, for lists that are short or seldom made.
//!
//! The sort of the standard library is compiled anew for each type, 4 kB a time, and to `collect` a map or a set is to sort a
//! list first. Here one sort of places serves all lists, and maps and sets are made by inserting.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Sorts `list`; what is equal stays as it stood.
pub fn sort<T: Ord>(list: &mut Vec<T>) {
    sort_by(list, T::cmp);
}

/// The same by what `key` says of each, once for each comparison.
pub fn sort_by_key<T, K: Ord>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
    sort_by(list, |a, b| key(a).cmp(&key(b)));
}

fn sort_by<T>(list: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering) {
    let order = order(list.len(), &|a, b| match (list.get(a), list.get(b)) {
        (Some(a), Some(b)) => compare(a, b),
        (None, _) | (_, None) => Ordering::Equal,
    });
    let mut unsorted: Vec<Option<T>> = list.drain(..).map(Some).collect();
    list.extend(order.into_iter().filter_map(|place| unsorted.get_mut(place)?.take()));
}

fn order(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|a, b| compare(*a, *b));
    places
}

/// Of two with the same key the later one.
pub fn map<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(entries);
    map
}

pub fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    set.extend(items);
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_order_of_the_standard_library(list in proptest::collection::vec((0..8u8, 0..8u8), 0..40)) {
            let (mut ours, mut theirs) = (list.clone(), list.clone());
            sort(&mut ours);
            theirs.sort();
            prop_assert_eq!(&ours, &theirs);
            let (mut ours, mut theirs) = (list.clone(), list.clone());
            sort_by_key(&mut ours, |pair| pair.1);
            theirs.sort_by_key(|pair| pair.1);
            prop_assert_eq!(&ours, &theirs, "what is equal stays as it stood");
            prop_assert_eq!(map(list.clone()), list.iter().copied().collect());
            prop_assert_eq!(set(list.clone()), list.into_iter().collect());
        }
    }
}
