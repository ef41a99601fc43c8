//! The house's rules, checked on the source: which room may use which (the table in `src/lib.rs`' terms), where unsafe
//! code may be, and that the core stays pure.
//!
//! It reads text, not types: comments, strings and `#[cfg(test)]` items are taken out, every path that begins with
//! `crate`, `self` or `super` is made absolute, and what is left is compared with the tables below. Code made by macros
//! is not seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Room, and what it may use beside itself. A longer path allows only what begins with it. `core` is open to all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("sys", &["core"]),
    ("containment", &["core", "sys"]),
    // What lies beside the state is removed with the rights of the owner of home.
    ("store", &["core", "sys::beneath", "sys::bestow", "sys::credentials", "sys::time"]),
    ("log", &["core", "sys"]),
    ("definition", &["core", "sys::users", "sys::beneath", "sys::credentials"]),
    // A caller is known by its uid, and where a request is about the calling process, by a pidfd of it.
    ("control", &["core", "sys::peer", "sys::pidfd"]),
    // What a probe or a scraper is told is made of a status, which the endpoint asks for as any client does.
    ("monitor", &["core", "control::client", "control::protocol"]),
    ("probe", &["core"]),
    // Who answers on a gateway's socket is known by its peer credentials.
    ("hermes", &["core", "definition", "store", "sys::beneath", "sys::credentials", "sys::peer"]),
    // The applets are command lines of this binary: where the socket is and how a line is shown is decided once, in cli;
    // s6-log writes files as the logger does; s6-setuidgid is the kernel's business.
    ("s6", &["core", "control", "definition", "log", "sys", "cli::render", "cli::settings"]),
    // What lies on disk for s6 is read by the room that serves it.
    ("import", &["core", "definition", "s6::bundle", "s6::slot", "sys::beneath"]),
    (
        "daemon",
        &[
            "core",
            "sys",
            "containment",
            "store",
            "log",
            "definition",
            "control",
            "hermes",
            "monitor",
            "probe",
            "s6",
        ],
    ),
    // The front door of main.rs: it binds command line and daemon together, so it may use every room but the kernel's,
    // of which it knows the zones of log files, and for doctor whether memory is merged.
    (
        "front",
        &[
            "core",
            "cli",
            "daemon",
            "containment",
            "control",
            "definition",
            "log",
            "hermes",
            "import",
            "s6",
            "store",
            "sys::localtime",
            "sys::samepage",
        ],
    ),
    // Times are typed and shown as local ones.
    ("cli", &["core", "control::client", "control::protocol", "definition", "monitor", "sys::localtime"]),
];

/// What the core must not know: the clock, files, descriptors, and the crates that reach the kernel.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::os",
    "std::env",
    "std::process",
    "std::thread",
    "std::path",
    "std::time::Instant",
    "std::time::SystemTime",
];
const IMPURE_CRATES: [&str; 9] =
    ["rustix", "libc", "mio", "slog", "procfs", "redb", "caps", "cgroups_rs", "serde_json"];

#[test]
fn rooms_use_only_what_the_table_allows() {
    let broken: Vec<String> = sources().iter().flat_map(|(file, text)| forbidden_uses(file, text)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_room_is_in_the_table() {
    for (file, _) in sources() {
        let room = module_of(&file).first().cloned().unwrap_or_default();
        let known = room.is_empty() || MAY_USE.iter().any(|(name, _)| *name == room);
        assert!(known, "{}: room '{room}' is not in the table", file.display());
    }
}

#[test]
fn unsafe_is_in_sys_only() {
    let broken: Vec<_> = sources()
        .into_iter()
        .filter(|(file, text)| {
            module_of(file).first().is_none_or(|room| room != "sys") && speaks_unsafe(text)
        })
        .map(|(file, _)| file)
        .collect();
    assert!(broken.is_empty(), "unsafe outside src/sys: {broken:?}");
}

#[test]
fn the_core_is_pure() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|(file, _)| module_of(file).first().is_some_and(|room| room == "core"))
        .flat_map(|(file, text)| {
            impure_words(text).into_iter().map(move |word| format!("{}: {word}", file.display()))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A host without Hermes was told of gateways, of their user and of hermes. What any supervisor may say comes from these rooms,
/// so they speak of services; a room that knows Hermes says the rest.
#[test]
fn messages_of_the_general_rooms_do_not_speak_of_hermes() {
    const GENERAL: [&str; 6] = ["core", "sys", "containment", "store", "log", "definition"];
    // The reference has every key, those for Hermes too.
    const OF_HERMES: [&str; 3] =
        ["definition/template.rs", "definition/dashboard.rs", "definition/reference/rows.rs"];
    let broken: Vec<String> = sources()
        .iter()
        .filter(|(file, _)| module_of(file).first().is_some_and(|room| GENERAL.contains(&room.as_str())))
        .filter(|(file, _)| !OF_HERMES.iter().any(|of| file == Path::new(of)))
        .flat_map(|(file, text)| {
            sentences_of_hermes(text).into_iter().map(move |text| format!("{}: {text}", file.display()))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The checks above find nothing in a clean house; here they must find each thing that is planted.
/// Otherwise the tests would be of another program than the one that ships, and half of its crates would be built once more.
#[test]
fn what_the_tests_depend_on_changes_no_crate_of_the_binary() {
    let crates = |edges: &str| -> BTreeSet<String> {
        let words =
            ["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p} {f}", "--edges", edges];
        let tree = Command::new(env!("CARGO")).current_dir(env!("CARGO_MANIFEST_DIR")).args(words).output();
        let tree = tree.expect("cargo tree");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let text = String::from_utf8_lossy(&tree.stdout);
        // One that was shown before is marked.
        text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    };
    let (shipped, tested) = (crates("normal,build"), crates("normal,build,dev"));
    assert!(shipped.len() > 50, "{shipped:?}");
    let changed: Vec<_> = shipped.difference(&tested).collect();
    assert!(changed.is_empty(), "other features in tests: {changed:?}");
}

#[test]
fn the_checks_find_what_is_wrong() {
    let store = Path::new("store/engine.rs");
    for (source, found) in [
        ("use crate::core::name::ServiceName;", 0),
        ("use crate::store::schema::Row;", 0),
        ("use super::schema::Row;", 0),
        ("// use crate::sys::pidfd;\n/* crate::log */ const A: &str = \"crate::log::x\";", 0),
        ("#[cfg(test)]\nmod tests { use crate::log::drain; }\nfn f() {}", 0),
        ("use crate::log::drain;", 1),
        ("use crate::{core::name, sys::{pidfd, tty}};", 2),
        ("fn f() { crate::daemon::boot::run() }", 1),
        ("use super::super::log::drain;", 1),
        ("const Q: char = '\"'; use crate::log::drain; const R: char = '\"';", 1),
        ("fn f<'a>(x: &'a str) { crate::cli::args::f(x) }", 1),
        ("const R: &str = r#\"a \" b\"#; use crate::log::drain;", 1),
        ("#[cfg(test)] mod tests { fn f() { \"}\"; } }\nuse crate::log::drain;", 1),
    ] {
        assert_eq!(forbidden_uses(store, source).len(), found, "{source}");
    }
    let cli = Path::new("cli/ctl.rs");
    assert_eq!(forbidden_uses(cli, "use crate::control::client::Client;").len(), 0);
    assert_eq!(forbidden_uses(cli, "use crate::control::server::Server;").len(), 1);
    assert_eq!(forbidden_uses(cli, "use crate::control;").len(), 1, "the whole room is more than its client");
    assert!(speaks_unsafe("fn f() { unsafe { g() } }") && speaks_unsafe("#![allow(unsafe_code)]"));
    assert!(!speaks_unsafe("// unsafe\nconst A: &str = \"unsafe\";"));
    assert_eq!(impure_words("use std::time::{Duration, Instant};").len(), 1);
    assert_eq!(impure_words("fn f() { std::fs::read(\"x\"); rustix::io::dup(x); }").len(), 2);
    assert!(impure_words("use std::time::Duration; // std::fs").is_empty());
    assert_eq!(
        sentences_of_hermes("fn f() { g(\"only the gateway user\", \"gateway\", \"the hermes-sup\"); }")
            .len(),
        1
    );
}

// ---- reading the house ----

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).expect("src").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                found.push((path.strip_prefix(root).expect("below src").to_owned(), text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 20, "the house has been found");
    let tests: BTreeSet<PathBuf> = found.iter().flat_map(|(file, text)| test_modules(file, text)).collect();
    found.retain(|(file, _)| !tests.contains(file));
    found
}

/// The files of the modules that `file` declares under `#[cfg(test)]`, by name or by `#[path]`.
fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let beside = file.parent().unwrap_or(Path::new("")).to_owned();
    let own = module_of(file).iter().collect::<PathBuf>();
    let mut found = Vec::new();
    let mut under_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[cfg(test)]") {
            under_test = true;
        } else if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"))
        {
            if under_test {
                found.push(beside.join(path));
            }
        } else if !line.starts_with("#[") {
            let words = line
                .trim_start_matches("pub ")
                .trim_start_matches("pub(super) ")
                .trim_start_matches("pub(crate) ");
            if let Some(name) = words.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
                && under_test
            {
                found.push(own.join(name).with_extension("rs"));
                found.push(own.join(name).join("mod.rs"));
            }
            under_test = false;
        }
    }
    found
}

/// `log/rotate.rs` is `log::rotate`, `log/mod.rs` is `log`, `lib.rs` and `main.rs` are the crate itself.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] || parts == ["main"] {
        parts.pop();
    }
    parts
}

fn forbidden_uses(file: &Path, text: &str) -> Vec<String> {
    let module = module_of(file);
    let Some(room) = module.first() else { return Vec::new() }; // main.rs and lib.rs are the front door.
    let allowed = MAY_USE.iter().find(|(name, _)| name == room).map_or(&[][..], |(_, rooms)| rooms);
    paths(&without_tests(&tokens(text)))
        .into_iter()
        .filter_map(|path| absolute(&module, &path))
        .filter(|path| path.first().is_some_and(|first| first != room))
        .map(|path| path.join("::"))
        .filter(|path| !allowed.iter().any(|room| path == room || path.starts_with(&format!("{room}::"))))
        .map(|path| format!("{}: {room} may not use {path}", file.display()))
        .collect()
}

/// The texts of several words that speak of Hermes or its gateways; not what is put into them, nor our own names, nor a command that
/// somebody has given.
fn sentences_of_hermes(text: &str) -> Vec<String> {
    let of_hermes = |text: &String| {
        let mut plain = text.to_lowercase();
        for ours in ["hermes-sup", "hermes_sup", "--gateway-user", "logs/gateways", "gateway run", "{gateway"]
        {
            plain = plain.replace(ours, "");
        }
        text.starts_with('"')
            && text.contains(' ')
            && ["hermes", "gateway"].iter().any(|word| plain.contains(word))
    };
    without_tests(&tokens(text)).into_iter().filter(of_hermes).collect()
}

fn speaks_unsafe(text: &str) -> bool {
    tokens(text).iter().any(|token| token == "unsafe" || token == "unsafe_code")
}

fn impure_words(text: &str) -> BTreeSet<String> {
    paths(&without_tests(&tokens(text)))
        .into_iter()
        .map(|path| path.join("::"))
        .filter(|path| {
            let begins = |word: &&str| path == *word || path.starts_with(&format!("{word}::"));
            IMPURE.iter().chain(&IMPURE_CRATES).any(begins)
        })
        .collect()
}

/// A path of this crate without its leading `crate`; `None` for one that begins elsewhere.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let first = path.first()?;
    let mut base = match first.as_str() {
        "crate" | "hermes_sup" => Vec::new(),
        "self" | "super" => module.to_vec(),
        _ => return None,
    };
    let ups = path.iter().take_while(|part| *part == "super").count();
    base.truncate(base.len().saturating_sub(ups));
    base.extend(
        path.iter()
            .skip_while(|part| matches!(part.as_str(), "crate" | "hermes_sup" | "self" | "super"))
            .cloned(),
    );
    (!base.is_empty()).then_some(base)
}

/// Words and single punctuation characters, with `::` as one token, and strings with their first quote; comments, characters
/// and lifetimes gone.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut here = 0;
    while here < chars.len() {
        let c = at(here);
        if c == '/' && at(here + 1) == '/' {
            while here < chars.len() && at(here) != '\n' {
                here += 1;
            }
        } else if c == '/' && at(here + 1) == '*' {
            let mut depth = 1;
            here += 2;
            while here < chars.len() && depth > 0 {
                match (at(here), at(here + 1)) {
                    ('/', '*') => (depth, here) = (depth + 1, here + 2),
                    ('*', '/') => (depth, here) = (depth - 1, here + 2),
                    _ => here += 1,
                }
            }
        } else if c == '"' {
            let start = here;
            here = after_string(&chars, here);
            tokens.push(chars[start..(here - 1).min(chars.len())].iter().collect());
        } else if c == '\'' {
            // A character literal ends with a quote soon; a lifetime does not.
            if at(here + 1) == '\\' {
                here += 3;
                while here < chars.len() && at(here) != '\'' {
                    here += 1;
                }
                here += 1;
            } else if at(here + 2) == '\'' {
                here += 3;
            } else {
                here += 1;
                while at(here).is_alphanumeric() || at(here) == '_' {
                    here += 1;
                }
            }
        } else if c.is_alphanumeric() || c == '_' {
            let start = here;
            while at(here).is_alphanumeric() || at(here) == '_' {
                here += 1;
            }
            let word: String = chars[start..here].iter().collect();
            let hashes = (here..).take_while(|index| at(*index) == '#').count();
            if matches!(word.as_str(), "r" | "br" | "cr") && at(here + hashes) == '"' {
                here = after_raw_string(&chars, here + hashes + 1, hashes);
            } else {
                tokens.push(word);
            }
        } else if c == ':' && at(here + 1) == ':' {
            tokens.push("::".into());
            here += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            here += 1;
        }
    }
    tokens
}

fn after_string(chars: &[char], start: usize) -> usize {
    let mut here = start + 1;
    while here < chars.len() && chars[here] != '"' {
        here += if chars[here] == '\\' { 2 } else { 1 };
    }
    here + 1
}

fn after_raw_string(chars: &[char], start: usize, hashes: usize) -> usize {
    (start..chars.len())
        .find(|index| chars[*index] == '"' && (1..=hashes).all(|n| chars.get(index + n) == Some(&'#')))
        .map_or(chars.len(), |index| index + hashes + 1)
}

/// Drops every item that follows `#[cfg(test)]`, up to its closing brace or semicolon.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut here = 0;
    while here < tokens.len() {
        if tokens[here..].iter().take(MARK.len()).eq(MARK.iter()) {
            here += MARK.len();
            let mut depth = 0;
            while here < tokens.len() {
                match tokens[here].as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                here += 1;
                if depth == 0 && matches!(tokens[here - 1].as_str(), "}" | ";") {
                    break;
                }
            }
        } else {
            kept.push(tokens[here].clone());
            here += 1;
        }
    }
    kept
}

/// Every `a::b::c` in the tokens, groups like `a::{b, c::d}` written out.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut here = 0;
    while here < tokens.len() {
        let starts = is_word(&tokens[here]) && (here == 0 || tokens[here - 1] != "::");
        if starts && tokens.get(here + 1).is_some_and(|next| next == "::") {
            here = path(tokens, here, &[], &mut found);
        } else {
            here += 1;
        }
    }
    found
}

/// Reads one path that begins at `here` below `prefix`; returns where it ends.
fn path(tokens: &[String], mut here: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut parts = prefix.to_vec();
    loop {
        match tokens.get(here).map(String::as_str) {
            Some("{") => {
                here += 1;
                while here < tokens.len() && tokens[here] != "}" {
                    here = if tokens[here] == "," { here + 1 } else { path(tokens, here, &parts, found) };
                }
                return here + 1;
            }
            Some(word) if is_word(word) => {
                parts.push(word.to_owned());
                here += 1;
            }
            _ => {
                // A glob, or generic arguments.
                found.push(parts);
                return here + 1;
            }
        }
        if tokens.get(here).is_some_and(|next| next == "::") {
            here += 1;
        } else {
            found.push(parts);
            return if tokens.get(here).is_some_and(|next| next == "as") { here + 2 } else { here };
        }
    }
}

fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}
