//! What somebody meant to type.

/// The known name that is fewest slips of the finger away: at most one, or a third of the typed length.
/// Of several, the first in the alphabet.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (typed.len() / 3).max(1);
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(typed.len()) <= limit)
        .map(|name| (distance(typed.as_bytes(), name.as_bytes()), name))
        .filter(|(slips, _)| *slips <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours between two texts (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_the_one_with_fewest_slips() {
        assert_eq!(nearest("cdoer", ["coder", "cider"]), Some("coder"), "a swap is one slip");
        assert_eq!(
            nearest("writr", ["writer", "write"]),
            Some("write"),
            "a tie goes to the first in the alphabet"
        );
        assert_eq!(nearest("a", ["b"]), Some("b"));
        assert_eq!(nearest("ab", ["xy"]), None);
        assert_eq!(nearest("coder", []), None);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"abc", b""), 3);
        assert_eq!(distance(b"abcd", b"abdc"), 1, "a swap is a slip");
        assert_eq!(distance(b"abcd", b"badc"), 2, "and two are two");
        assert_eq!(distance(b"kitten", b"sitting"), 3);
    }
}
