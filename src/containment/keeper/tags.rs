//! Supplementary groups as tags: a number that a process without CAP_SETGID can neither shed nor forge
//! (credentials(7)), which finds a tree again when its keeper is gone.

use std::ops::Range;

/// A range of group ids that this instance hands out, one for each incarnation in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tags {
    pub first: u32,
    pub count: u32,
}

/// Where nobody puts groups: above the ranges of distributions, containers and systemd (systemd's UIDS-GIDS.md).
const HIGH: u32 = 0x7000_0000;
/// What a user namespace of the usual 65536 ids has to spare: systemd's range for dynamic users.
const LOW: Range<u32> = 61184..65520;
const COUNT: u32 = 4096;

impl Tags {
    /// A range for this instance that our user namespace maps; several instances rarely share one.
    ///
    /// `gid_map` is the text of /proc/self/gid_map. `None` when it maps too little.
    pub fn choose(gid_map: &str, instance: &str) -> Option<Self> {
        let maps = |ids: &Range<u32>| {
            gid_map.lines().any(|line| {
                let mut words = line.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
                let (Some(Some(first)), Some(Some(_)), Some(Some(count))) =
                    (words.next(), words.next(), words.next())
                else {
                    return false;
                };
                first <= u64::from(ids.start) && u64::from(ids.end) <= first + count
            })
        };
        // FNV-1a: any spread will do.
        let hash = instance
            .bytes()
            .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let high = HIGH + (hash % 0x8000) * COUNT;
        let high = high..high + COUNT;
        if maps(&high) {
            return Some(Self { first: high.start, count: COUNT });
        }
        maps(&LOW).then_some(Self { first: LOW.start, count: LOW.end - LOW.start })
    }

    pub fn contains(&self, group: u32) -> bool {
        group.checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }

    /// The `n`-th tag, beginning again after the last.
    pub fn nth(&self, n: u64) -> u32 {
        self.first + (n % u64::from(self.count.max(1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_one_that_the_namespace_maps() {
        let whole = Tags::choose("         0          0 4294967295\n", "a").unwrap();
        assert!(whole.first >= HIGH && whole.contains(whole.nth(u64::MAX)));
        assert!(!whole.contains(whole.first + whole.count) && !whole.contains(0));
        let small = Tags::choose("0 100000 65536\n", "a").unwrap();
        assert_eq!((small.first, small.nth(u64::from(small.count))), (61184, 61184));
        assert_eq!(Tags::choose("0 1000 1\n", "a"), None);
    }
}
