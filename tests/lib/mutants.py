#!/usr/bin/env python3
"""Every mutant that cargo-mutants makes of core, topics and control, against the unit tests, from one build.

    tests/lib/mutants.py [FILE|DIRECTORY…] [--budget TIME] [--jobs N] [--last] [--unlisted]

A build for each mutant takes a minute of this crate. So all of them are in one program (mutant schemata): a copy of the source in
which each function has its mutants beside it, and the environment says which is in force. What a mutant is, is taken from
`cargo mutants --list`. What does not build (`unviable`) is found by building, and taken out.

Each test is run once alone, for its time and for the functions that it reaches. A mutant is run with the tests that reach its
function: those of its own room first, and no further after the first that fails. What the quick ones let live is then tried with the slow
ones. So a survivor has withstood every unit test that reaches it, the exhaustive model and the simulator among them.

`--budget 20m` stops after that time and says how many were not tried to the end; `--last` tries those alone that survived the last
time, or were not tried; `--quick` leaves out the slow tests; `--alone` builds `core` or `control` without the rooms that use it, and
so has its own tests only, in a tenth of the time. Survivors are compared with `tests/mutants.toml`; it fails if one is not there, or if one that is there is caught. `--unlisted` prints
the differences that are not.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACE = ROOT / 'target/mutants'
TREE = PLACE / 'tree'
# What was found not to build, as marks.
UNVIABLE = PLACE / 'unviable'
KEPT = ROOT / 'tests/mutants.toml'
OURS = ['src/core', 'src/daemon/topics', 'src/control']
# Rooms that can be built without the others, and what each needs.
ALONE = {'core': ['core'], 'control': ['core', 'control', 'sys', 'containment']}
# Parts of these that are tests, though they are not named so: the exhaustive model.
TESTS = ['src/core/model/']
# Those that take a minute: the exhaustive search of the lifecycle, and the simulator.
SLOW = ['core::model::every_reachable_state_keeps_the_rules_and_answers_everybody', 'daemon::simulation::whatever_happens_the_rules_hold',
        'daemon::simulation::the_same_seed_tells_the_same_story']
# Tests of the tests themselves: they put faults in, and look for them.
SPARED = ['core::model::the_search_catches_every_seeded_fault', 'daemon::simulation::every_planted_bug_is_caught']
# Tests at a time, of one mutant: those that are nearest to it, then more.
FIRST, BATCH = 8, 60
# Memory of one run, in bytes.
MEMORY = 8 << 30

# The module of the copy that tells a function which of its mutants is in force, and in a run of one test writes down that it was
# reached.
SWITCH = '''//! Which mutant is in force.
#![allow(clippy::all)]

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

struct Reached {
    file: File,
    seen: Vec<bool>,
}

static CHOSEN: OnceLock<(u32, Option<Mutex<Reached>>)> = OnceLock::new();

pub fn number(function: usize) -> u32 {
    let (number, reached) = CHOSEN.get_or_init(|| {
        let number = std::env::var("MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
        let file = std::env::var("MUTANTS_REACHED").ok().and_then(|path| File::options().append(true).create(true).open(path).ok());
        (number, file.map(|file| Mutex::new(Reached { file, seen: Vec::new() })))
    });
    if let Some(reached) = reached {
        let mut reached = reached.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if reached.seen.len() <= function {
            reached.seen.resize(function + 1, false);
        }
        if !reached.seen[function] {
            reached.seen[function] = true;
            let _ = reached.file.write_all(format!("{function}\\n").as_bytes());
        }
    }
    *number
}
'''


class Mutant:
    """One change that cargo-mutants would make: where in the text, and by what."""

    def __init__(self, entry, text):
        self.file = entry['file']
        self.function = entry.get('function')
        self.begin, self.end = offsets(text, entry['span'])
        self.replacement = entry['replacement']
        # Its name without the line, which changes with everything that is written above it.
        self.name = re.sub(r'^[^ ]*: ', '', entry['name'])
        self.line = entry['span']['start']['line']
        self.number = 0
        self.home = None
        # It, in this text of its file.
        self.mark = hashlib.sha256(f"{text}\0{entry['name']}".encode()).hexdigest()

    def key(self):
        return (self.file, self.name)

    def __str__(self):
        return f'{self.file}:{self.line}: {self.name}'


class Function:
    """A function with a body that has mutants. `inner` are functions within it."""

    def __init__(self, file, text, span):
        self.file = file
        self.begin, self.end = offsets(text, span)
        head = re.compile(r'\bfn\s+\w+').search(text, self.begin)
        self.body = text.index('{', after_parameters(text, head.end()))
        self.opaque = re.search(r'->\s*impl\s', text[head.end():self.body])
        # It has something of the caller's that is not its own object's, an iterator or a reference: no box can be named for it.
        head = text[self.begin:self.body].split('->')[0]
        self.is_beyond = self.opaque and (text[self.begin:self.body].count('impl ') > 1 or head.count('&') > 1)
        self.number = 0
        self.mutants = []
        self.inner = []


def offsets(text, span):
    """Of a span in lines and columns, which count from one."""
    return tuple(place(text, span[end]) for end in ('start', 'end'))


def place(text, at):
    return starts(text)[at['line'] - 1] + at['column'] - 1


@functools.cache
def starts(text):
    return [0, *(match.end() for match in re.finditer('\n', text))]


def after_parameters(text, at):
    """Behind the list of parameters that begins next, with the generics before it."""
    depth = 0
    for index in range(text.index('(', at), len(text)):
        depth += {'(': 1, ')': -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    raise ValueError('a list of parameters without an end')


def listed(files):
    """All mutants of these files, in the order in which the files are named."""
    command = ['cargo', 'mutants', '--list', '--json', '--no-shuffle']
    for file in files:
        command += ['--file', f'{file}/**' if (ROOT / file).is_dir() else file]
    entries = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    texts = {}
    found = []
    for entry in entries:
        file = entry['file']
        if any(file.startswith(test) for test in TESTS) or not entry.get('function'):
            continue
        if file not in texts:
            texts[file] = (ROOT / file).read_text()
        found.append((entry, Mutant(entry, texts[file])))
    # The order of those named, then of the file.
    found.sort(key=lambda pair: (next(i for i, file in enumerate(files) if pair[1].file.startswith(file)), pair[1].file, pair[1].begin))
    functions = {}
    for number, (entry, mutant) in enumerate(found, 1):
        mutant.number = number
        span = entry['function']['span']
        where = (mutant.file, span['start']['line'], span['start']['column'])
        if where not in functions:
            functions[where] = Function(mutant.file, texts[mutant.file], span)
        mutant.home = functions[where]
        mutant.home.mutants.append(mutant)
    for function in functions.values():
        if function.is_beyond:
            print(f'left out, because it has no type of its own: {len(function.mutants)} mutants of {function.mutants[0]}', flush=True)
    ours = [function for function in functions.values() if not function.is_beyond]
    for number, function in enumerate(ours):
        function.number = number
    return [mutant for _, mutant in found if not mutant.home.is_beyond], ours, texts


class Writer:
    """The text of a file of the copy, and the lines that each mutant has there."""

    def __init__(self, text):
        self.text = text
        self.parts = []
        self.line = 1
        self.lines = []

    def put(self, part):
        self.parts.append(part)
        self.line += part.count('\n')

    def write(self, functions, begin, end):
        """The text between two places, with the mutants of the functions in it."""
        for function in functions:
            if function.begin < begin:
                continue
            self.head(function, begin)
            self.body(function)
            begin = function.end
        self.put(self.text[begin:end])

    def head(self, function, begin):
        head = self.text[begin:function.body]
        if function.opaque:
            # Each mutant would be another type: a box is one for all of them.
            head, _, bounds = head.rpartition('-> impl ')
            bounds = bounds.strip()
            head += f'-> Box<dyn {bounds}> ' if "'" in bounds else f"-> Box<dyn {bounds} + '_> "
        # What asks the environment is no constant.
        before, const, after = head.rpartition('const fn ')
        self.put(before + 'fn ' + after if const and '\n}' not in after else head)

    def body(self, function):
        opening, closing = ('Box::new({', '})') if function.opaque else ('{', '}')
        self.put(f'{{ let __mutant = crate::mutant::number({function.number});\n')
        for mutant in function.mutants:
            first = self.line
            body = self.text[function.body + 1:mutant.begin] + mutant.replacement + ' ' + self.text[mutant.end:function.end - 1]
            self.put(f'if __mutant == {mutant.number} {{ return {opening}{body}\n{closing}; }}\n')
            self.lines.append((first, self.line - 1, mutant))
        if function.opaque:
            self.put('return Box::new({')
        self.write(function.inner, function.body + 1, function.end - 1)
        self.put('}); }' if function.opaque else '}')


def nest(functions):
    """Functions within functions belong to those; what is left stands by itself, in the order of the text."""
    outer = []
    for function in sorted(functions, key=lambda function: (function.begin, -function.end)):
        home = outer
        while home and home[-1].end > function.begin:
            home = home[-1].inner
        home.append(function)
    return outer


def copy_tree():
    """What a build needs: the source itself, everything else by link."""
    TREE.mkdir(parents=True, exist_ok=True)
    for entry in ROOT.iterdir():
        if entry.name in ('src', 'target', '.git'):
            continue
        link = TREE / entry.name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(entry, TREE))
    there = {path.relative_to(ROOT) for path in (ROOT / 'src').rglob('*') if path.is_file()}
    for path in [path for path in (TREE / 'src').rglob('*') if path.is_file()]:
        if path.relative_to(TREE) not in there:
            path.unlink()
    return there


def put_file(path, content):
    """Written only if it is another: cargo goes by the time of a file."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_tree(functions, texts, rooms=None):
    """The copy with all mutants, of all rooms or of these. Returns, for each of its files, which lines are whose."""
    lines = {}
    for file in copy_tree():
        name = str(file)
        content = (ROOT / file).read_bytes()
        mine = [function for function in functions if function.file == name]
        for function in mine:
            function.inner = []
        if mine:
            writer = Writer(texts[name])
            writer.write(nest(mine), 0, len(texts[name]))
            content = ''.join(writer.parts).encode()
            lines[name] = writer.lines
        if name == 'src/lib.rs':
            left_out = r'(?m)^pub mod (?!(?:' + '|'.join(rooms or [r'\w+']) + r');).*$'
            content = re.sub(left_out, '', content.decode()).encode() + b'pub mod mutant;\n'
        put_file(TREE / file, content)
    put_file(TREE / 'src/mutant.rs', SWITCH.encode())
    return lines


def build(functions, texts, unviable, rooms):
    """Builds, and takes out what does not, until it does. Returns the path of the program of the unit tests."""
    command = ['cargo', 'test', '--lib', '--no-run', '--message-format=json', '--target-dir', str(ROOT / 'target'),
               '--config', 'profile.dev.package.hermes-sup.debug=0']
    while True:
        lines = write_tree(functions, texts, rooms)
        began = time.monotonic()
        run = subprocess.run(command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        bad, unknown, program = set(), [], None
        for line in run.stdout.splitlines():
            message = json.loads(line)
            if message['reason'] == 'compiler-artifact' and message['profile']['test'] and message['executable']:
                program = message['executable']
            if message['reason'] != 'compiler-message' or message['message']['level'] != 'error':
                continue
            found = {mutant for span in message['message']['spans'] for mutant in within(lines, span)}
            bad |= found
            if not found and message['message']['spans']:
                unknown.append(message['message']['rendered'])
        if run.returncode == 0 and program:
            print(f'built in {time.monotonic() - began:.0f} s; {len(unviable)} unviable', flush=True)
            return program
        if not bad:
            sys.exit('the copy with the mutants does not build:\n' + '\n'.join(unknown or [run.stderr[-4000:]]))
        print(f'{len(bad)} do not build ({time.monotonic() - began:.0f} s)', flush=True)
        unviable |= bad
        for mutant in bad:
            mutant.home.mutants.remove(mutant)
        known = UNVIABLE.read_text() if UNVIABLE.exists() else ''
        UNVIABLE.write_text(known + ''.join(f'{mutant.mark}\n' for mutant in bad))


def within(lines, span):
    """The mutants in whose text an error is, or what a macro made of it."""
    while span:
        name = span['file_name']
        for first, last, mutant in lines.get(name, ()):
            if first <= span['line_start'] and span['line_end'] <= last:
                yield mutant
        span = (span.get('expansion') or {}).get('span')


def limits(seconds):
    def set_limits():
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.setpgid(0, 0)
    return set_limits


def attempt(program, arguments, environment, seconds):
    """Whether the tests passed, `passed`, `failed` or `timeout`, and how many seconds of the processor they took. They may take so many,
    and of the clock thirty more than ten times as many."""
    with subprocess.Popen([program, *arguments], cwd=TREE, env=os.environ | environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, preexec_fn=limits(seconds)) as process:
        def kill():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        timer = threading.Timer(10 * seconds + 30, kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        # What it started ends with it.
        kill()
        process.returncode = os.waitstatus_to_exitcode(status)
    took = usage.ru_utime + usage.ru_stime
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return 'timeout', took
    return ('failed' if process.returncode else 'passed'), took


def survey(program, jobs, quick, ours):
    """Of each test, or of those of this room, its time in seconds, and the functions that it reaches. Without what fails or is ignored
    here."""
    known, stamp = PLACE / 'survey.json', os.stat(program).st_mtime_ns
    if known.exists():
        found = json.loads(known.read_text())
        if found['stamp'] == [stamp, quick, ours]:
            return {name: (took, set(reached)) for name, took, reached in found['tests']}

    def names(*options):
        run = subprocess.run([program, '--list', '--format', 'terse', *options], cwd=TREE, check=True, stdout=subprocess.PIPE, text=True)
        return [line.removesuffix(': test') for line in run.stdout.splitlines() if line.endswith(': test')]

    wanted = sorted(set(names()) - set(names('--ignored')) - set(SPARED) - set(SLOW if quick else []))
    wanted = [name for name in wanted if not ours or name.startswith(f'{ours}::')]
    place = PLACE / 'reached'
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)

    def look(pair):
        number, name = pair
        file = place / str(number)
        result, took = attempt(program, [name, '--exact'], {'MUTANTS_REACHED': str(file)}, 600)
        reached = {int(line) for line in file.read_text().split()} if file.exists() else set()
        return name, took, reached, result

    tests = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for name, took, reached, result in pool.map(look, enumerate(wanted)):
            if result == 'passed':
                tests[name] = (took, reached)
            else:
                print(f'left out, because it does not pass without a mutant: {name}: {result}', flush=True)
    known.write_text(json.dumps({'stamp': [stamp, quick, ours], 'tests': [(name, took, sorted(reached)) for name, (took, reached) in tests.items()]}))
    return tests


def room(file):
    """The module of a file, in its parts."""
    return file.removeprefix('src/').removesuffix('.rs').removesuffix('/mod').split('/')


def batches(mutant, tests, slow):
    """The tests that reach a mutant, either the quick or the slow, in the order in which they are tried, some at a time, each with
    the seconds that it takes."""
    home = room(mutant.file)

    def order(test):
        took, name = test
        return (-sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(home, name.split('::')))), took)

    reaching = sorted(((took, name) for name, (took, reached) in tests.items()
                       if mutant.home.number in reached and (name in SLOW) == slow), key=order)
    size = 1 if slow else FIRST
    while reaching:
        yield reaching[:size]
        reaching = reaching[size:]
        size = 1 if slow else BATCH


def judge(program, mutant, tests, slow):
    """What became of a mutant: `caught`, `missed` or `timeout`."""
    for batch in batches(mutant, tests, slow):
        seconds = int(3 + 4 * sum(took for took, _ in batch))
        result, _ = attempt(program, ['--exact', '--test-threads', '2', *(name for _, name in batch)], {'MUTANT': str(mutant.number)}, seconds)
        if result != 'passed':
            return 'caught' if result == 'failed' else 'timeout'
    return 'missed'


def duration(text):
    match = re.fullmatch(r'(\d+)(s|m|h)', text)
    if not match:
        raise argparse.ArgumentTypeError('a time, as 90s, 20m or 2h')
    return int(match[1]) * {'s': 1, 'm': 60, 'h': 3600}[match[2]]


def kept():
    """What is known to survive: how many of a name, in which file."""
    if not KEPT.exists():
        return collections.Counter()
    entries = tomllib.loads(KEPT.read_text()).get('kept', [])
    return collections.Counter((entry['file'], mutant) for entry in entries for mutant in entry['mutants'] if entry['reason'])


def main():
    parser = argparse.ArgumentParser(prog='tests/run mutants')
    parser.add_argument('files', nargs='*', metavar='FILE')
    parser.add_argument('--budget', type=duration, default=10**9, metavar='TIME')
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--last', action='store_true')
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--alone', action='store_true')
    parser.add_argument('--unlisted', action='store_true')
    options = parser.parse_args()
    files = [file.rstrip('/') for file in options.files] or OURS
    for file in files:
        if not (ROOT / file).exists():
            parser.error(f"there is no '{file}'")

    rooms = None
    if options.alone:
        names = {room(file)[0] for file in files}
        rooms = ALONE.get(names.pop()) if len(names) == 1 else None
        if not rooms:
            parser.error(f"only one of {', '.join(ALONE)} is built alone")

    began = time.monotonic()
    mutants, functions, texts = listed(files)
    print(f'{len(mutants)} mutants in {len(functions)} functions', flush=True)
    known = set(UNVIABLE.read_text().split()) if UNVIABLE.exists() else set()
    unviable = {mutant for mutant in mutants if mutant.mark in known}
    for mutant in unviable:
        mutant.home.mutants.remove(mutant)
    program = build(functions, texts, unviable, rooms)
    tests = survey(program, options.jobs, options.quick, rooms and room(files[0])[0])
    print(f'{len(tests)} tests, {sum(took for took, _ in tests.values()):.0f} s one after the other', flush=True)

    outcomes = PLACE / 'outcomes.json'
    before = {tuple(key): result for key, result in json.loads(outcomes.read_text())} if outcomes.exists() else {}
    todo = [mutant for mutant in mutants if mutant not in unviable]
    if options.last:
        todo = [mutant for mutant in todo if before.get(full_key(mutant, mutants)) not in ('caught', 'timeout')]
    results = {}
    lock = threading.Lock()

    def trial(slow, mutant):
        if time.monotonic() - began > options.budget:
            return
        result = judge(program, mutant, tests, slow)
        with lock:
            if result != 'caught':
                print(f"{result}{'' if slow or result == 'timeout' else ' by the quick'}: {mutant}", flush=True)
            if result != 'missed' or slow or options.quick:
                results[mutant] = result
                before[full_key(mutant, mutants)] = result
            else:
                survived.append(mutant)
            count = len(results) + len(survived)
            if count % 100 == 0:
                outcomes.write_text(json.dumps([[list(key), value] for key, value in before.items()]))
                print(f'… {count} of {len(todo)}, {time.monotonic() - began:.0f} s', flush=True)

    survived = []
    for slow in (False, True):
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(functools.partial(trial, slow), survived if slow else todo))
    outcomes.write_text(json.dumps([[list(key), value] for key, value in before.items()]))
    sys.exit(report(mutants, results, unviable, options))


def full_key(mutant, mutants):
    """Its name, and the number that it has among those of its name."""
    return (*mutant.key(), sum(1 for other in mutants if other.key() == mutant.key() and other.number < mutant.number))


def report(mutants, results, unviable, options):
    known = kept()
    survivors = collections.Counter(mutant.key() for mutant, result in results.items() if result == 'missed')
    unlisted = [mutant for mutant, result in results.items() if result == 'missed' and survivors[mutant.key()] > known[mutant.key()]]
    tried = {mutant.key() for mutant in results}
    stale = []
    if not options.last:
        stale = [f'{file}: {name}' for (file, name), times in known.items() if (file, name) in tried and survivors[(file, name)] < times]
        everything = {mutant.key() for mutant in mutants}
        stale += [f'{file}: {name} (there is no such mutant)' for file, name in known
                  if (file, name) not in everything and any(other.file == file for other in mutants)]
    for mutant in unlisted:
        print(f'wrong: survives, and is not in tests/mutants.toml: {mutant}')
        if options.unlisted:
            text = (ROOT / mutant.file).read_text()
            print('    ' + text[mutant.begin:mutant.end].replace('\n', '\n    ') + '\n  → ' + mutant.replacement)
    for entry in stale:
        print(f'wrong: is in tests/mutants.toml, and does not survive: {entry}')
    count = collections.Counter(results.values())
    print(f"{count['caught']} caught, {count['missed']} missed ({count['missed'] - len(unlisted)} of them kept with a reason), "
          f"{len(unviable)} unviable, {count['timeout']} timeouts, {len(mutants) - len(unviable) - len(results)} not tried")
    return 1 if unlisted or stale else 0


if __name__ == '__main__':
    main()
