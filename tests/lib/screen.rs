//! Screens in the pages: what stands behind `<!-- screen: NAME -->` is what a real run shows. Numbers, times and the width of columns
//! differ from run to run, and so does the order of what is sorted by them; the words do not, and say when a page is stale.

use std::path::Path;

/// Compares each screen of `page` with that of this run, and writes it instead where UPDATE_PAGES is set.
///
/// # Panics
/// Where a page is stale, with how to write it anew.
#[track_caller]
pub fn shows(page: &str, screens: &[(&str, String)], test: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let updates = std::env::var_os("UPDATE_PAGES").is_some();
    let mut text = std::fs::read_to_string(&path).expect("the page");
    for (name, now) in screens {
        let begin = format!("<!-- screen: {name} -->\n```\n");
        let at = text.find(&begin).unwrap_or_else(|| panic!("{page} has no {begin:?}")) + begin.len();
        let end = at + text[at..].find("```\n").expect("the end of the block");
        let now = format!("{}\n", now.trim_end());
        if updates {
            text.replace_range(at..end, &now);
            continue;
        }
        let (there, here) = (shape(&text[at..end]), shape(&now));
        assert_eq!(
            there, here,
            "{page}: '{name}' is stale: UPDATE_PAGES=1 cargo test --test {test} writes it anew"
        );
    }
    if updates {
        std::fs::write(&path, text).expect("the page can be written");
    }
}

/// The words of each line, in any order of the lines. What has a digit in it is a number here, as is a `-` in its place, and what has
/// neither letter nor digit is drawn.
fn shape(screen: &str) -> Vec<String> {
    let word = |word: &str| match word {
        _ if word == "-" || word.contains(|c: char| c.is_ascii_digit()) => Some("#".to_owned()),
        _ if word.contains(|c: char| c.is_alphabetic()) => Some(word.to_owned()),
        _ => None,
    };
    let line = |line: &str| line.split_whitespace().filter_map(word).collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = screen.lines().map(line).collect();
    lines.sort();
    lines
}
