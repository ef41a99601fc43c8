//! The linker script: which functions are laid beside each other, by the shortest list of names. Nothing here but text and numbers.

use regex_lite::Regex;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub address: u64,
    pub size: u64,
    pub name: String,
}

/// What `nm --print-size` says of the functions of a program. What has no size is assembly, or a mark.
pub fn functions(nm: &str) -> Vec<Function> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let function = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [address, size, "t" | "T" | "w" | "W", name] => {
            Some(Function { address: number(address)?, size: number(size)?, name: name.to_owned() })
        }
        _ => None,
    };
    nm.lines().filter_map(function).collect()
}

/// Who uses a function, and its place in the order of all first uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    pub users: Users,
    pub turn: usize,
}

/// The supervisor is one of them once it has booted; nobody is of what only a boot uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Users {
    commands: bool,
    keepers: bool,
    steady: bool,
}

impl Users {
    pub const COMMANDS: Self = Self { commands: true, keepers: false, steady: false };
    pub const KEEPERS: Self = Self { commands: false, keepers: true, steady: false };
    pub const STEADY: Self = Self { commands: false, keepers: false, steady: true };
    pub const BOOT: Self = Self { commands: false, keepers: false, steady: false };

    pub fn and(self, other: Self) -> Self {
        Self {
            commands: self.commands | other.commands,
            keepers: self.keepers | other.keepers,
            steady: self.steady | other.steady,
        }
    }

    const SHARED: usize = 1;

    /// Where in the file it is. The supervisor goes everywhere; commands and keepers are to find theirs in one place each.
    fn group(self) -> usize {
        match (self.commands, self.keepers, self.steady) {
            (true, false, _) => 0,
            (true, true, _) => Self::SHARED,
            (false, true, _) => 2,
            (false, false, true) => 3,
            (false, false, false) => 4,
        }
    }
}

const GROUPS: [&str; 5] = [
    "commands",
    "commands and keepers",
    "keepers, the fork server, and what they execute",
    "the steady supervisor: crash, stop, start, shutdown",
    "its boot",
];

/// One line of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub pattern: String,
    users: Users,
    turn: usize,
    pub bytes: u64,
    pub used: u64,
}

struct Name {
    pattern: String,
    bytes: u64,
    used: Option<Use>,
}

/// The lines in their order. `uses` are by address.
pub fn pieces(functions: &[Function], uses: &BTreeMap<u64, Use>) -> Vec<Piece> {
    let patterns = Patterns::new();
    let name = |function: &Function| Name {
        pattern: patterns.of(&function.name),
        bytes: function.size,
        used: uses.get(&function.address).copied(),
    };
    let mut names: Vec<Name> = functions.iter().map(name).collect();
    names.sort_by(|one, other| one.pattern.cmp(&other.pattern));
    let (_, mut pieces) = cover(&names, 0);
    pieces.sort_by_key(|piece| (piece.users.group(), piece.turn));
    pieces
}

/// A line less is worth so many bytes that lie where their users do not look for them.
pub const LINE: u64 = 256;

/// A prefix has so many characters more than tell it from its neighbours, which change with time.
const MORE: usize = 12;

/// And so many after the hash of a crate: with fewer, the `*` for that would find names that only mention what follows.
const TAIL: usize = 8;

/// The cheapest lines that have all of `names` that are used, and what they cost. The names are sorted, and the same in their
/// first `depth` characters.
fn cover(names: &[Name], depth: usize) -> (u64, Vec<Piece>) {
    let uses = || names.iter().filter_map(|name| name.used);
    let Some(turn) = uses().map(|each| each.turn).min() else { return (0, Vec::new()) };
    let users = uses().fold(Users::BOOT, |users, each| users.and(each.users));
    let bytes = |of: &dyn Fn(Use) -> bool| -> u64 {
        names.iter().filter(|name| name.used.is_some_and(of)).map(|name| name.bytes).sum()
    };
    let all: u64 = names.iter().map(|name| name.bytes).sum();
    let at_home = bytes(&|each| each.users.group() == users.group());
    let same = same(names, depth);
    let is_one_name = names.iter().all(|name| name.pattern.len() == same);
    let prefix = &names[0].pattern[..same.min(depth + 1 + MORE)];
    let is_clear = prefix.rfind('*').is_none_or(|star| prefix.len() - star > TAIL);
    let end = if is_one_name && prefix.len() == same { "" } else { "*" };
    let piece = Piece { pattern: format!("{prefix}{end}"), users, turn, bytes: all, used: bytes(&|_| true) };
    let whole = (LINE + all - at_home, vec![piece]);
    if is_one_name {
        return whole;
    }
    let next = |name: &Name| name.pattern.as_bytes().get(same).copied();
    let parts = names.chunk_by(|one, other| next(one) == next(other)).map(|part| cover(part, same));
    let parts = parts.fold((0, Vec::new()), |(cost, mut pieces), (more, others)| {
        pieces.extend(others);
        (cost + more, pieces)
    });
    if is_clear && whole.0 <= parts.0 { whole } else { parts }
}

/// How many of their first characters are the same, of which `depth` are known.
fn same(names: &[Name], depth: usize) -> usize {
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return depth };
    let (first, last) = (&first.pattern.as_bytes()[depth..], &last.pattern.as_bytes()[depth..]);
    depth + first.iter().zip(last).take_while(|(one, other)| one == other).count()
}

/// Makes a pattern of a name, for any version of a crate and of the compiler.
pub struct Patterns {
    /// With what each is replaced.
    fleeting: [(Regex, &'static str); 4],
}

impl Patterns {
    pub fn new() -> Self {
        let fleeting = [
            // The hash of a crate, before its name.
            ("Cs[0-9A-Za-z]{6,12}_([0-9])", "C*_$1"),
            // The hash of a name as they were mangled before; std as it is shipped has such names.
            ("17h[0-9a-f]{16}E", "17h*E"),
            // The number of a name that several crates have for a function of their own, or of a copy that LLVM made.
            (r"\.[0-9]+$", ".*"),
            (r"[^0-9A-Za-z_.*]", "?"),
        ];
        Self { fleeting: fleeting.map(|(from, to)| (Regex::new(from).expect("an expression"), to)) }
    }

    pub fn of(&self, name: &str) -> String {
        self.fleeting
            .iter()
            .fold(name.to_owned(), |name, (from, to)| from.replace_all(&name, *to).into_owned())
    }
}

/// What the compiler takes for unlikely has names of its own. Some of it runs once in every process, and all of it is little.
const UNLIKELY: &str = "*(.text.unlikely.*)\n";

/// The script, for GNU ld and for lld.
pub fn script(pieces: &[Piece]) -> String {
    let bytes: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    let mut text = format!(
        "/* Where functions lie in the static binary: those that run together beside each other.\n   \
         Made by bench/order, not to be edited.\n   Bytes of functions when it was made: {bytes} */\n\
         SECTIONS {{ .text.ordered : {{\n"
    );
    let mut group = None;
    for piece in pieces {
        let its = piece.users.group();
        if group.replace(its) != Some(its) {
            text += &format!("/* {} */\n", GROUPS[its]);
            if its == Users::SHARED {
                text += UNLIKELY;
            }
        }
        text += &format!("*(.text.{})\n", piece.pattern);
    }
    text + "} } INSERT BEFORE .text;\n"
}

/// What the kernel maps of a file at once where one of its pages is touched (fault-around).
pub const WINDOW: u64 = 64 << 10;

/// How many bytes the functions at these addresses have, and in how many windows they lie.
pub fn extent(functions: &[Function], used: &BTreeSet<u64>) -> (u64, usize) {
    // Several names of one function are one.
    let sizes: BTreeMap<u64, u64> = functions
        .iter()
        .map(|function| (function.address, function.size))
        .filter(|(at, _)| used.contains(at))
        .collect();
    let windows: BTreeSet<u64> =
        sizes.iter().flat_map(|(at, size)| at / WINDOW..(at + size).div_ceil(WINDOW)).collect();
    (sizes.values().sum(), windows.len())
}
