#!/usr/bin/env python3
"""Versions of Hermes × ways to say whether one gateway serves all profiles: each wanted profile is served exactly once.

    tests/lib/topologies.py [--cell TEXT] [--jobs N] [--quiet-for SECONDS] VERSION=IMAGE…

Of each image, a container with a root profile and two named ones. After the boot, and again after everything that may
change who serves whom, it asks the kernel which gateways run, asks their own state files which profiles they serve, and
compares that with what `hermes-sup ctl status`, `hermes gateway status` and `hermes profile list` say. Prints a table, what was
wrong, and `N passed, N failed, 0 skipped`.

It looks again whenever something happens: a line of the container, or a change in the directory of a profile. Only the time in
which nothing may restart (`--quiet-for`) is measured with the clock.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

DEADLINE = 150
LABEL = 'hermes-sup-tests'
PROFILES = ['default', 'work', 'research']

# Name of the setting: flags of `docker run`, shell in the volume before the first start, wanted profiles, CMD.
RUNS = ['gateway', 'run']
SETTINGS = {
    'unset': ([], '', PROFILES, RUNS),
    'environment': (['--env=GATEWAY_MULTIPLEX_PROFILES=true'], '', PROFILES, RUNS),
    '.env': ([], 'echo GATEWAY_MULTIPLEX_PROFILES=true >>.env', PROFILES, RUNS),
    'config true': ([], "printf 'gateway:\\n  multiplex_profiles: true\\n' >config.yaml", PROFILES, RUNS),
    'config false': ([], "printf 'gateway:\\n  multiplex_profiles: false\\n' >config.yaml", PROFILES, RUNS),
    'standalone': ([], "printf 'gateway:\\n  standalone: true\\n' >profiles/work/config.yaml", PROFILES, RUNS),
    '--init': (['--init'], '', PROFILES, RUNS),
    'only a named one': ([], 'rm -f gateway_state.json', ['work'], ['sleep', 'infinity']),
    'sticky': ([], 'echo work >active_profile', PROFILES, RUNS),
}

# What runs in the container: every gateway's main process, and what its own state file says that it serves.
LOOK = r'''
import json, os
found = []
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        words = open(f'/proc/{pid}/cmdline').read().split('\0')[:-1]
        parent = int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])
    except OSError:
        continue
    if 'gateway' not in words or 'run' not in words or not any(w.endswith('/hermes') for w in words[:2]):
        continue
    if 'python' not in os.path.basename(words[0]):
        continue
    profile = words[words.index('-p') + 1] if '-p' in words else 'default'
    found.append((int(pid), parent, profile))
pids = {pid for pid, _, _ in found}
gateways = []
for pid, parent, profile in found:
    if parent in pids:
        continue
    home = '/opt/data' if profile == 'default' else f'/opt/data/profiles/{profile}'
    state, served = None, []
    try:
        keys = json.load(open(f'{home}/gateway_state.json'))
        if keys.get('pid') == pid:
            state, served = keys.get('gateway_state'), keys.get('served_profiles') or []
    except (OSError, ValueError):
        pass
    gateways.append({'pid': pid, 'profile': profile, 'state': state, 'served': served})
print(json.dumps(gateways))
'''


# Says whenever something changes in the directory of a profile; `watching` once it would see that.
WATCH = r'''
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLOSE_WRITE, MOVED, CREATE, DELETE = 0x8, 0xc0, 0x100, 0x200
inotify = libc.inotify_init1(0)
def watch():
    dirs = ['/opt/data', '/opt/data/profiles']
    dirs += [entry.path for entry in os.scandir(dirs[1]) if entry.is_dir()]
    for path in dirs:
        libc.inotify_add_watch(inotify, path.encode(), CLOSE_WRITE | MOVED | CREATE | DELETE)
watch()
print('watching', flush=True)
while os.read(inotify, 65536):
    watch()
    print('changed', flush=True)
'''


class Events:
    """What happens in a container that runs, from now on."""

    def __init__(self, name):
        self.happened, ready = threading.Event(), threading.Event()
        commands = [['logs', '--follow', '--tail=0', name],
                    ['exec', name, '/opt/hermes/.venv/bin/python3', '-c', WATCH]]
        self.sources = [subprocess.Popen(['docker', *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                        for command in commands]
        for source in self.sources:
            threading.Thread(target=self.listen, args=(source, ready), daemon=True).start()
        if not ready.wait(DEADLINE):
            raise Wrong('the directories of its profiles cannot be watched')

    def listen(self, source, ready):
        for line in source.stdout:
            if line == 'watching\n':
                ready.set()
            self.happened.set()

    def close(self):
        for source in self.sources:
            source.kill()
            source.wait()


def docker(*args, check=True):
    done = subprocess.run(['docker', *args], capture_output=True, text=True, timeout=DEADLINE)
    if check and done.returncode != 0:
        raise Wrong(f'docker {" ".join(args[:6])}: {done.stderr.strip() or done.stdout.strip()}')
    return done


class Wrong(Exception):
    """What a cell of the table came to."""


class Cell:
    def __init__(self, version, image, setting, quiet_for):
        self.version, self.image, self.setting, self.quiet_for = version, image, setting, quiet_for
        self.flags, self.script, self.wanted, self.cmd = SETTINGS[setting]
        self.name = f'hermes-sup-topology-{version}-{setting}'.replace(' ', '-').replace('--', '-').replace('.env', 'dotenv')
        self.events = None

    def exec(self, *cmd, user=None, check=True):
        user = [f'--user={user}'] if user else []
        return docker('exec', *user, self.name, *cmd, check=check)

    def status(self):
        answer = self.exec('hermes-sup', 'ctl', '--json', 'status', check=False)
        try:
            return {one['name']: one for one in json.loads(answer.stdout)['services']}
        except (ValueError, KeyError):
            return {}

    def gateways(self):
        return json.loads(self.exec('/opt/hermes/.venv/bin/python3', '-c', LOOK).stdout)

    def listen(self):
        """The container was started."""
        if self.events:
            self.events.close()
        self.events = Events(self.name)

    def wrong(self, wanted, begun=True):
        """Why it is not as it should be; None if it is. `begun`: gateways must have said that they run."""
        status, gateways = self.status(), self.gateways()
        for profile in wanted:
            service = status.get(profile)
            if service is None:
                return f'{profile} is unknown'
            own = [one for one in gateways if one['profile'] == profile]
            others = [one for one in gateways if one['profile'] != profile and profile in one['served']]
            servers = len(own) + len(others)
            told = f"{profile}: want {service['want']}, {service['state']} ({service.get('reason')})"
            if servers != 1:
                return f'{servers} gateways for {told}: {gateways}'
            if begun and own and own[0]['state'] not in ('running', 'degraded'):
                return f'its gateway has not begun: {told}'
            expected = ('up', 'ready') if own else ('served',)
            if service['state'] not in expected or bool(service.get('served_by')) == bool(own):
                return f'it is served otherwise than shown: {told}: {gateways}'
        for name, service in status.items():
            if service['state'] in ('failed', 'backoff'):
                return f"{name} is {service['state']}: {service.get('reason')}"
        return None

    def until(self, step, look):
        """Looks until there is nothing wrong, each time that something happens."""
        until, why = time.monotonic() + DEADLINE, 'nothing was seen'
        while time.monotonic() < until:
            self.events.happened.clear()
            why = look()
            if why is None:
                return
            self.events.happened.wait(until - time.monotonic())
        raise Wrong(f'{step}: {why}')

    def settle(self, step, wanted=None):
        self.until(step, lambda: self.wrong(wanted or self.wanted))

    def restarts(self):
        return {name: one['restarts'] for name, one in self.status().items()}

    def stays(self, step):
        """Nothing restarts and nothing fails in a time that is measured."""
        before, until = self.restarts(), time.monotonic() + self.quiet_for
        while time.monotonic() < until:
            self.events.happened.clear()
            why = self.wrong(self.wanted, begun=False)
            if why is not None:
                raise Wrong(f'{step}: no longer: {why}')
            self.events.happened.wait(max(0, until - time.monotonic()))
        after = self.restarts()
        if before != after:
            raise Wrong(f'{step}: restarts {before} became {after}')

    def agrees(self, step):
        """The three commands that say which gateways run do not contradict each other. Each takes a second or more."""
        self.until(f'{step}: contradiction', self.contradiction)

    def contradiction(self):
        status = self.status()
        listed = self.exec('hermes', 'profile', 'list', user='hermes').stdout.splitlines()
        for profile in self.wanted:
            state = status[profile]['state']
            # Before 0.21, Hermes calls a profile that another gateway serves stopped, and asks nobody else.
            if state == 'served' and self.version.startswith(('0.19.', '0.20.')):
                continue
            works = state in ('up', 'ready', 'served')
            line = next((line for line in listed if profile in line.replace('◆', ' ').split()[:1]), '')
            if ('running' in line) != works:
                return f'profile list says {line!r}, ctl status {state}'
            said = self.exec('hermes', '-p', profile, 'gateway', 'status', user='hermes', check=False).stdout
            # Below another init the image's `hermes` asks the supervisor, of the same service.
            if not any(line.startswith(f'{profile}: {state}') for line in said.splitlines()) and \
                    ('Gateway is running' in said) != works:
                return f'gateway status of {profile} says {said!r}, ctl status {state}'
        return None

    def stop_and_start(self):
        """A stop of one profile holds, or is refused and changes nothing."""
        before = self.status()['work']
        stopped = self.exec('hermes-sup', 'ctl', 'stop', 'work', check=False).returncode == 0
        others = [one for one in self.wanted if one != 'work']
        if stopped:
            self.until('ctl stop', lambda: self.wrong(others) or self.unserved('work'))
            self.exec('hermes-sup', 'ctl', 'start', 'work')
        else:
            after = self.status()['work']
            if (before['state'], before['want']) != (after['state'], after['want']):
                raise Wrong(f'ctl stop failed and changed {before} to {after}')
        self.settle('ctl stop and start')

    def root_comes_back(self):
        """While the root gateway is down, another one takes the place of the machine's only gateway that 0.21.4 and later know."""
        if 'default' in self.wanted and self.status()['work']['state'] in ('up', 'ready'):
            self.exec('hermes-sup', 'ctl', 'stop', 'default')
            self.exec('hermes-sup', 'ctl', 'restart', 'work')
            self.until('ctl stop of the root gateway', lambda: self.wrong(['work']))
            self.exec('hermes-sup', 'ctl', 'start', 'default')
            self.settle('ctl start of the root gateway')

    def unserved(self, profile):
        servers = [one for one in self.gateways() if one['profile'] == profile or profile in one['served']]
        service = self.status()[profile]
        if servers or service['want'] != 'down' or service['state'] not in ('down', 'parked', 'finished'):
            return f'{profile} was stopped: {service}, {servers}'
        return None

    def run(self):
        docker('rm', '--force', '--volumes', self.name, check=False)
        docker('volume', 'rm', '--force', self.name, check=False)
        docker('volume', 'create', f'--label={LABEL}', self.name)
        try:
            return self.steps()
        finally:
            if self.events:
                self.events.close()
            docker('rm', '--force', '--volumes', self.name, check=False)
            docker('volume', 'rm', '--force', self.name, check=False)

    def seed(self):
        lines = ['umask 022']
        for profile in PROFILES:
            home = '.' if profile == 'default' else f'profiles/{profile}'
            lines.append(f'mkdir -p {home}; echo You are {profile}. >{home}/SOUL.md')
            if profile in self.wanted:
                lines.append(f'echo \'{{"gateway_state":"running","desired_state":"running"}}\' >{home}/gateway_state.json')
        lines.append(self.script)
        docker('run', '--rm', f'--label={LABEL}', '--network=none', f'--volume={self.name}:/opt/data', '--user=hermes',
               '--workdir=/opt/data', '--entrypoint=sh', self.image, '-euc', '\n'.join(filter(None, lines)))

    def steps(self):
        self.seed()
        docker('run', '--detach', f'--name={self.name}', f'--label={LABEL}', '--network=none',
               f'--volume={self.name}:/opt/data', *self.flags, self.image, *self.cmd)
        self.listen()
        self.settle('boot')
        shape = self.shape()
        first = self.restarts()
        if any(first.values()):
            raise Wrong(f'boot: it took restarts: {first}')
        self.agrees('boot')
        self.stays('boot')
        docker('restart', self.name)
        self.listen()
        self.settle('docker restart')
        self.agrees('docker restart')
        self.exec('hermes-sup', 'ctl', 'restart', '--all', '--timeout', '120s')
        self.settle('ctl restart --all')
        root = next((one for one in self.gateways() if one['profile'] == 'default'), None)
        if root:
            self.exec('kill', '-9', str(root['pid']))
            self.settle('kill -9 of the root gateway')
            self.agrees('kill -9 of the root gateway')
        self.stop_and_start()
        self.root_comes_back()
        self.profiles_come_and_go()
        self.agrees('the end')
        return shape

    def profiles_come_and_go(self):
        hermes = lambda *words: self.exec('hermes', *words, user='hermes')
        hermes('profile', 'create', 'extra')
        self.settle('profile create')
        hermes('profile', 'rename', 'extra', 'other')
        self.settle('profile rename')
        self.exec('hermes', 'profile', 'delete', '--yes', 'other', user='hermes')
        self.settle('profile delete')

    def shape(self):
        """P: a process of its own, S: served."""
        status = self.status()
        return ' '.join({'up': 'P', 'ready': 'P', 'served': 'S'}.get(status[one]['state'], '-') for one in PROFILES)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--cell', default='')
    parser.add_argument('--quiet-for', type=float, default=60)
    parser.add_argument('--jobs', type=int, default=2 * os.cpu_count())
    parser.add_argument('images', nargs='+', metavar='VERSION=IMAGE')
    args = parser.parse_args()
    images = dict(image.split('=', 1) for image in args.images)
    cells = [Cell(version, image, setting, args.quiet_for) for version, image in images.items() for setting in SETTINGS
             if args.cell in f'{version} {setting}']

    def run(cell):
        try:
            shape, wrong = cell.run(), None
        except (Wrong, subprocess.SubprocessError, KeyError) as why:
            shape, wrong = 'wrong', str(why)
        print(f'{cell.version}, {cell.setting}: {wrong or shape}', file=sys.stderr, flush=True)
        return cell, shape, wrong

    table, wrongs = {}, []
    with ThreadPoolExecutor(args.jobs) as pool:
        for cell, shape, wrong in pool.map(run, cells):
            table[cell.version, cell.setting] = shape
            if wrong:
                wrongs.append(f'{cell.version}, {cell.setting}: {wrong}')
    print('Root, work and research: P has a process of its own, S is served by the root gateway.\n')
    width = max(map(len, SETTINGS))
    print(' ' * width, *(f'{version:>8}' for version in images))
    for setting in SETTINGS:
        print(f'{setting:<{width}}', *(f"{table.get((version, setting), ''):>8}" for version in images))
    print()
    for wrong in wrongs:
        print(f'wrong: {wrong}')
    print(f'{len(cells) - len(wrongs)} passed, {len(wrongs)} failed, 0 skipped')
    return 1 if wrongs else 0


if __name__ == '__main__':
    sys.exit(main())
