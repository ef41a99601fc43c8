//! What [`script`] makes of names, sizes and uses.

mod script;

use script::{Function, LINE, Patterns, Use, Users, WINDOW, extent, functions, pieces};
use std::collections::{BTreeMap, BTreeSet};

/// The lines for functions with these names, sizes and users, of which the first is used first.
fn lines(all: &[(&str, u64, Option<Users>)]) -> Vec<String> {
    let mut functions = Vec::new();
    let mut uses = BTreeMap::new();
    for (turn, (name, size, users)) in all.iter().enumerate() {
        let address = 0x1000 * turn as u64;
        functions.push(Function { address, size: *size, name: (*name).to_owned() });
        uses.extend(users.map(|users| (address, Use { users, turn })));
    }
    pieces(&functions, &uses).into_iter().map(|piece| piece.pattern).collect()
}

#[test]
fn functions_are_those_that_have_a_size() {
    let nm = "0000000000021545 0000000000000030 T main\n\
              0000000000021500 T _start\n\
              0000000000021600 0000000000000010 t _RNvCsabcdefghijk_3foo3bar\n\
              0000000000400000 0000000000000008 D environ\n                 \
              w _DYNAMIC\n\
              0000000000021700 0000000000000020 W memcpy\n";
    let function = |address, size, name: &str| Function { address, size, name: name.to_owned() };
    let expected = [
        function(0x21545, 0x30, "main"),
        function(0x21600, 0x10, "_RNvCsabcdefghijk_3foo3bar"),
        function(0x21700, 0x20, "memcpy"),
    ];
    assert_eq!(functions(nm), expected);
}

#[test]
fn patterns_outlive_a_compiler() {
    let patterns = Patterns::new();
    for (name, pattern) in [
        ("_RNvNtCs7BliBxkEZsN_4core3fmt5write", "_RNvNtC*_4core3fmt5write"),
        ("_RINvCs1QjoZc3SWQY_3one3twoECs5nn07Tn4rw_5three", "_RINvC*_3one3twoEC*_5three"),
        ("_RNvMs1_NtCs7BliBxkEZsN_4core3str3new", "_RNvMs1_NtC*_4core3str3new"),
        ("_ZN3std2rt4init17h0123456789abcdefE", "_ZN3std2rt4init17h*E"),
        ("_ZN3foo17h0123456789abcdefE.llvm.1234567", "_ZN3foo17h*E.llvm.*"),
        ("_RNvNtCs7BliBxkEZsN_5alloc5boxed14box_new_uninit.488", "_RNvNtC*_5alloc5boxed14box_new_uninit.*"),
        ("_ZN4core$LT$", "_ZN4core?LT?"),
        ("memcpy", "memcpy"),
    ] {
        assert_eq!(patterns.of(name), pattern);
    }
}

#[test]
fn what_is_used_together_has_one_line() {
    let used = Some(Users::STEADY);
    assert_eq!(lines(&[("_Rone", 500, used), ("_Rother", 500, used)]), ["_Ro*"]);
    let many = ["_R10hermes_sup4core5step1", "_R10hermes_sup4core5step2"].map(|name| (name, 500, used));
    let [one, other] = many;
    // Cut soon after the fork, not at the end of what is the same.
    assert_eq!(lines(&[one, other, ("_R3std", 1000, None)]), ["_R10hermes_sup4*"]);
}

#[test]
fn a_line_is_spent_to_leave_out_what_is_unused() {
    let used = Some(Users::STEADY);
    assert_eq!(lines(&[("ab", 500, used), ("ac", LINE - 1, None), ("ad", 500, used)]), ["a*"]);
    assert_eq!(lines(&[("ab", 500, used), ("ac", LINE + 1, None), ("ad", 500, used)]), ["ab", "ad"]);
    assert_eq!(lines(&[("ab", 500, None)]), [""; 0]);
}

#[test]
fn a_name_that_begins_others_is_taken_alone() {
    assert_eq!(lines(&[("read", 500, Some(Users::BOOT)), ("readdir", 5000, None)]), ["read"]);
    assert_eq!(lines(&[("read", 5000, None), ("readdir", 500, Some(Users::BOOT))]), ["readdir"]);
}

/// `C*_4core*` would also take the names of other crates that speak of core at their ends.
#[test]
fn a_prefix_does_not_end_with_the_name_of_a_crate() {
    let used = Some(Users::STEADY);
    let [one, other] = ["3fmt5write", "4iter4next"].map(|name| format!("_RNvNtCsabcdefghijk_4core{name}"));
    let expected = ["_RNvNtC*_4core3fmt5write", "_RNvNtC*_4core4iter4next"];
    assert_eq!(lines(&[(&one, 10, used), (&other, 10, used)]), expected);
}

#[test]
fn names_that_are_one_pattern_are_one_line() {
    let (one, other) = ("_RNvCsabcdefghijk_3foo3bar", "_RNvCslmnopqrstuv_3foo3bar");
    assert_eq!(lines(&[(one, 5, Some(Users::BOOT)), (other, 5000, None)]), ["_RNvC*_3foo3b*"]);
}

#[test]
fn groups_follow_each_other_and_first_uses_within_them() {
    let both = Users::COMMANDS.and(Users::KEEPERS);
    let all = [
        ("a", 500, Some(Users::BOOT)),
        ("b", 500, Some(Users::STEADY)),
        ("c", 500, Some(Users::KEEPERS.and(Users::STEADY))),
        ("d", 500, Some(both.and(Users::STEADY))),
        ("f", 500, Some(Users::COMMANDS.and(Users::STEADY))),
        ("e", 500, Some(Users::COMMANDS)),
    ];
    assert_eq!(lines(&all), ["f", "e", "d", "c", "b", "a"]);
}

/// A keeper would else go to the place of the commands for a few bytes.
#[test]
fn a_line_of_several_lies_where_all_of_its_users_go() {
    let all = |users| {
        let both = Users::COMMANDS.and(Users::KEEPERS);
        let unused = ("xz", 5000, None);
        [("xaa", 10, Some(Users::KEEPERS)), ("xab", 100, Some(users)), unused, ("y", 500, Some(both))]
    };
    assert_eq!(lines(&all(Users::COMMANDS)), ["xa*", "y"], "with what both use");
    assert_eq!(lines(&all(Users::STEADY)), ["y", "xa*"], "with what keepers use");
}

#[test]
fn the_script_says_how_much_it_orders() {
    let function = |address, name: &str| Function { address, size: 1000, name: name.to_owned() };
    let functions = [function(0, "one"), function(1, "two"), function(2, "unused")];
    let uses = BTreeMap::from([
        (0, Use { users: Users::COMMANDS.and(Users::KEEPERS), turn: 0 }),
        (1, Use { users: Users::BOOT, turn: 1 }),
    ]);
    let script = script::script(&pieces(&functions, &uses));
    let (head, lines) = script.split_once("SECTIONS { .text.ordered : {\n").expect("a section");
    assert!(head.contains("when it was made: 2000 */"), "{head}");
    let lines: Vec<&str> = lines.lines().filter(|line| !line.starts_with("/*")).collect();
    assert_eq!(lines, ["*(.text.unlikely.*)", "*(.text.one)", "*(.text.two)", "} } INSERT BEFORE .text;"]);
}

#[test]
fn windows_are_counted_once() {
    let function = |address, size, name: &str| Function { address, size, name: name.to_owned() };
    let functions = [
        function(WINDOW - 8, 16, "across"),
        function(WINDOW + 100, 20, "second"),
        function(WINDOW + 100, 20, "its other name"),
        function(WINDOW * 4, 30, "unused"),
    ];
    assert_eq!(extent(&functions, &BTreeSet::from([WINDOW - 8, WINDOW + 100])), (36, 2));
    assert_eq!(extent(&functions, &BTreeSet::new()), (0, 0));
}
