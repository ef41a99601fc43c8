//! What callers and the log are shown, from what everybody knows. Nothing here changes anything.

pub(in crate::daemon) mod audit;
pub(in crate::daemon) mod first_starts;
pub(in crate::daemon) mod report;
pub(in crate::daemon) mod status;
pub(in crate::daemon) mod trees;

use std::fmt::Display;

/// The first `most` of them, and how many more there are: `a, b and 3 more`.
pub(in crate::daemon) fn first_of<T: Display>(most: usize, all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let named: Vec<String> = all.by_ref().take(most).map(|one| one.to_string()).collect();
    match all.count() {
        0 => named.join(", "),
        rest => format!("{} and {rest} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_first_are_named_and_the_rest_is_counted() {
        let said = [0, 1, 3, 4, 23].map(|count| first_of(3, 1..=count));
        assert_eq!(said, ["", "1", "1, 2, 3", "1, 2, 3 and 1 more", "1, 2, 3 and 20 more"]);
    }
}
