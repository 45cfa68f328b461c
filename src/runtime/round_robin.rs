//! Items that wait by group and are served one group after the other, so that a long queue delays only its own group.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

/// Items by group, such as a namespace: first in, first out within a group, and round robin between groups.
#[derive(Debug)]
pub struct RoundRobin<T> {
    /// Groups that wait, the next one first.
    turns: VecDeque<String>,
    /// Items of each group that waits; never empty.
    waiting: HashMap<String, VecDeque<T>>,
    length: usize,
}

impl<T> Default for RoundRobin<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), waiting: HashMap::new(), length: 0 }
    }
}

impl<T> RoundRobin<T> {
    /// Number of items of all groups.
    pub fn len(&self) -> usize {
        self.length
    }

    /// `true` if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an item at the end of its group.
    pub fn push(&mut self, group: &str, item: T) {
        self.length += 1;
        if let Some(items) = self.waiting.get_mut(group) {
            items.push_back(item);
            return;
        }
        self.turns.push_back(group.to_owned());
        self.waiting.insert(group.to_owned(), VecDeque::from([item]));
    }

    /// Removes the first item of the next group.
    pub fn pop(&mut self) -> Option<T> {
        let group = self.turns.pop_front()?;
        let items = self.waiting.get_mut(&group)?;
        let item = items.pop_front();
        self.length -= usize::from(item.is_some());
        if items.is_empty() {
            self.waiting.remove(&group);
        } else {
            self.turns.push_back(group);
        }
        item
    }

    /// Removes the last item of the longest group, if that is longer than this one. Takes time in proportion to the number of groups.
    pub fn displace_for(&mut self, group: &str) -> Option<T> {
        let own = self.waiting.get(group).map_or(0, VecDeque::len);
        let longest = self.waiting.values_mut().max_by_key(|items| items.len())?;
        // The one that is left keeps the longest group from being empty.
        if longest.len() <= own + 1 {
            return None;
        }
        self.length -= 1;
        longest.pop_back()
    }
}

/// The items that were served the longest ago, or never, with groups in turn: one with many new items does not keep the others waiting.
pub fn longest_waiting<T>(
    mut served: Vec<(Option<Instant>, T)>,
    group: impl Fn(&T) -> String,
    most: usize,
) -> Vec<T> {
    served.sort_by_key(|(last, _)| *last);
    let mut waiting = RoundRobin::default();
    for (_, item) in served {
        waiting.push(&group(&item), item);
    }
    std::iter::from_fn(|| waiting.pop()).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn groups_take_turns_and_keep_their_own_order() {
        let mut queue = RoundRobin::default();
        for (group, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("b", 5), ("c", 6)] {
            queue.push(group, item);
        }
        assert_eq!(queue.len(), 6);
        let served: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(served, [1, 4, 6, 2, 5, 3]);
        assert_eq!((queue.len(), queue.waiting.len(), queue.turns.len()), (0, 0, 0));
    }

    #[test]
    fn the_longest_wait_comes_first_with_groups_in_turn() {
        let start = Instant::now();
        let ago = |seconds| Some(start + Duration::from_secs(seconds));
        let new: Vec<_> = (0..9).map(|item| (None, ("churning", item))).collect();
        let old = vec![(ago(9), ("quiet", 20)), (ago(5), ("quiet", 21)), (ago(7), ("other", 30))];
        let group = |(group, _): &(&str, i32)| (*group).to_owned();
        let served = longest_waiting([old, new].concat(), group, 6);
        let served: Vec<i32> = served.into_iter().map(|(_, item)| item).collect();
        assert_eq!(served, [0, 21, 30, 1, 20, 2]);
    }

    #[test]
    fn only_a_longer_group_gives_way() {
        let mut queue = RoundRobin::default();
        assert_eq!(queue.displace_for("b"), None);
        for item in 0..3 {
            queue.push("a", item);
        }
        assert_eq!((queue.displace_for("a"), queue.displace_for("b"), queue.len()), (None, Some(2), 2));
        queue.push("b", 7);
        assert_eq!((queue.displace_for("b"), queue.displace_for("a")), (None, None));
        let served: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(served, [0, 7, 1]);
    }
}
