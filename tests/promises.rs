//! `promises.md`: every promise of the product, the tests that hold it, the figure last seen. What of that page can be read is
//! checked: that the tests are there, that no section of the product's pages is left out, and that figures are those of README.md.

use super::House;
use std::collections::BTreeMap;
use std::path::Path;

const PAGE: &str = "tests/promises.md";
/// Pages that promise nothing of their own: this one is made of the table of keys, each of which has a test.
const GENERATED: [&str; 1] = ["docker/reference.md"];
/// The columns of README.md's table of figures that are shown, with the words for them.
const COLUMNS: [(&str, &str); 5] = [
    ("hermes-sup", ""),
    ("hermes-sup (keeper)", "keeper "),
    ("floor", "floor "),
    ("dinit", "dinit "),
    ("s6", "s6 "),
];

#[test]
fn every_promise_names_a_test_that_is_there() {
    let house = House::read();
    let tiers = read("tests/run");
    let has_tier = |name: &str| tiers.contains(&format!("\ntier_{name}() {{"));
    let complaints = gaps(&read(PAGE), |test| house.has(test) || is_here(test), has_tier);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn no_section_of_the_products_pages_is_left_out() {
    let complaints = left_out(&read(PAGE), &pages());
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// With UPDATE_PAGES=1 it writes them instead.
#[test]
fn figures_are_those_of_the_last_run_of_the_benchmarks() {
    let page = read(PAGE);
    let (now, complaints) = with_figures(&page, &figures(&read("README.md")));
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(root().join(PAGE), now).expect("the page is writable");
        return;
    }
    assert!(
        page == now,
        "{PAGE} has other figures than README.md: UPDATE_PAGES=1 cargo test --test contract"
    );
}

#[test]
fn the_checker_of_promises_sees_what_it_should() {
    let gaps = |row: &str| {
        let page = format!(
            "## S\n\nSaid in: README.md\n\n| promise | held by | last seen |\n|---|---|---|\n{row}\n"
        );
        gaps(&page, |test| test == "a.rs::b", |tier| tier == "faults").len()
    };
    assert_eq!(gaps("| it does | `a.rs::b` | |"), 0);
    assert_eq!(gaps("| it does | `tests/run faults` | |"), 0);
    assert_eq!(gaps("| it does | bench \"row\" | 1 |"), 0);
    assert_eq!(gaps("| it does | no test: why | |"), 0);
    for wrong in [
        "| it does | `a.rs::c` | |",
        "| it does | `a.rs::b`, `tests/run nothing` | |",
        "| it does | | |",
        "| it does | no test: | |",
        "| it does | some words | |",
        "| it does | `a.rs::b` |",
    ] {
        assert_eq!(gaps(wrong), 1, "{wrong}");
    }

    let pages = BTreeMap::from([
        ("README.md".to_owned(), "# T\n## A, b and c\n## B".to_owned()),
        ("docker/a.md".to_owned(), "# T".to_owned()),
    ]);
    assert_eq!(
        left_out("Said in: README.md (A, b and c); docker/a.md\nSaid in: README.md (B)", &pages),
        [""; 0]
    );
    assert_eq!(left_out("Said in: README.md (B)", &pages).len(), 2);
    assert_eq!(left_out("Said in: README.md (A, b and c, B, C); docker/a.md", &pages).len(), 1);
    assert_eq!(left_out("Said in: README.md (A, b and c, B); docker/a.md; docker/b.md", &pages).len(), 1);

    let readme =
        "| | floor | hermes-sup | dinit |\n|---|---|---|---|\n| a row, ms | 1 | 2 | – |\n\n| other |";
    let figures = figures(readme);
    let row = |seen: &str| format!("| it is fast | bench \"a row, ms\" | {seen} |");
    assert_eq!(with_figures(&row("9"), &figures), (row("2; floor 1"), Vec::new()));
    assert_eq!(with_figures("| it is fast | bench \"no row\" | 9 |", &figures).1.len(), 1);
}

/// What is wrong with the rows of the tables.
fn gaps(page: &str, has_test: impl Fn(&str) -> bool, has_tier: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for line in rows(page) {
        let cells = cells(line);
        let [promise, held, _] = cells[..] else {
            found.push(format!("three cells are a row: {line}"));
            continue;
        };
        if let Some(reason) = held.strip_prefix("no test:") {
            if reason.is_empty() {
                found.push(format!("no reason: {promise}"));
            }
            continue;
        }
        let tests: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() && benches(held).next().is_none() {
            found.push(format!("nothing holds: {promise}"));
        }
        let there = |test: &str| test.strip_prefix("tests/run ").map_or_else(|| has_test(test), &has_tier);
        found.extend(
            tests
                .into_iter()
                .filter(|test| !there(test))
                .map(|test| format!("there is no {test}: {promise}")),
        );
    }
    found
}

/// The rows of the tables without their heads.
fn rows(page: &str) -> impl Iterator<Item = &str> {
    page.lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---") && !line.starts_with("| promise |"))
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.strip_prefix('|').unwrap_or(line);
    line.strip_suffix('|').unwrap_or(line).split('|').map(str::trim).collect()
}

/// The rows of README.md's table that a cell names.
fn benches(cell: &str) -> impl Iterator<Item = &str> {
    cell.split("bench \"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// Sections of the pages that no `Said in` has, and those that it has and are not there.
fn left_out(page: &str, pages: &BTreeMap<String, String>) -> Vec<String> {
    let mut said: BTreeMap<&str, String> = BTreeMap::new();
    for part in
        page.lines().filter_map(|line| line.strip_prefix("Said in: ")).flat_map(|line| line.split("; "))
    {
        let (name, sections) = part.split_once(" (").unwrap_or((part, ""));
        let sections = sections.strip_suffix(')').unwrap_or(sections);
        said.entry(name).or_default().push_str(&format!("{sections}, "));
    }
    let mut found = Vec::new();
    for (name, text) in pages {
        let Some(mut left) = said.remove(name.as_str()) else {
            found.push(format!("{name} is in no 'Said in'"));
            continue;
        };
        for section in text.lines().filter_map(|line| line.strip_prefix("## ")) {
            if !left.contains(section) {
                found.push(format!("{name} ({section}) is in no 'Said in'"));
            }
            left = left.replace(section, "");
        }
        if left.chars().any(|c| c != ',' && c != ' ') {
            found.push(format!("{name} has no such section: {left}"));
        }
    }
    found.extend(said.keys().map(|name| format!("there is no {name}")));
    found
}

/// The first table of figures of a page: by the name of the row and of the column.
fn figures(readme: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut lines = readme
        .lines()
        .skip_while(|line| !line.starts_with("| | floor |"))
        .take_while(|line| line.starts_with('|'));
    let head: Vec<&str> = lines.next().map(cells).unwrap_or_default();
    lines
        .skip(1)
        .map(|line| {
            let cells = cells(line);
            let row =
                head.iter().zip(&cells).map(|(column, cell)| ((*column).to_owned(), (*cell).to_owned()));
            (cells[0].to_owned(), row.collect())
        })
        .collect()
}

/// The page with the figures in its last column, and what is wrong with the rows that it names.
fn with_figures(page: &str, figures: &BTreeMap<String, BTreeMap<String, String>>) -> (String, Vec<String>) {
    let mut complaints = Vec::new();
    let mut shown = |name: &str| {
        let Some(row) = figures.get(name) else {
            complaints.push(format!("README.md has no row '{name}'"));
            return String::new();
        };
        let figure = |(column, word): &(&str, &str)| {
            row.get(*column).filter(|figure| *figure != "–").map(|figure| format!("{word}{figure}"))
        };
        COLUMNS.iter().filter_map(figure).collect::<Vec<_>>().join(", ").replacen(", ", "; ", 1)
    };
    let line = |line: &str| {
        let named: Vec<String> = benches(line).map(&mut shown).collect();
        if named.is_empty() || !line.starts_with('|') {
            return line.to_owned();
        }
        let cells = cells(line);
        format!("| {} | {} | {} |", cells[0], cells[1], named.join("<br>"))
    };
    let lines: Vec<String> = page.split('\n').map(line).collect();
    (lines.join("\n"), complaints)
}

/// The pages that promise something.
fn pages() -> BTreeMap<String, String> {
    let mut names = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docker")).expect("a directory").flatten() {
        let name = format!("docker/{}", entry.file_name().to_string_lossy());
        if name.ends_with(".md") && !GENERATED.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// The test of the file that [`House`] does not read.
fn is_here(test: &str) -> bool {
    test.strip_prefix("contract.rs::")
        .is_some_and(|name| read("tests/contract.rs").contains(&format!("\nfn {name}()")))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
