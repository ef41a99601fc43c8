#!/usr/bin/env python3
"""Versions of Hermes × ways to say whether one gateway serves all profiles: each wanted profile is served exactly once.

    tests/lib/topologies.py [--cell TEXT] [--quiet-for SECONDS] VERSION=IMAGE…

Of each image, a container with a root profile and two named ones. After the boot, and again after everything that may
change who serves whom, it asks the kernel which gateways run, asks their own state files which profiles they serve, and
compares that with what `hermes-sup ctl status` says. Prints a table, what was wrong, and `N passed, N failed, 0 skipped`.
"""

import argparse
import json
import subprocess
import sys
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
        self.served_by_root = set()

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

    def settle(self, step, wanted=None):
        wanted, until, why = wanted or self.wanted, time.monotonic() + DEADLINE, None
        while time.monotonic() < until:
            why = self.wrong(wanted)
            if why is None:
                return
            time.sleep(0.5)
        raise Wrong(f'{step}: {why}')

    def restarts(self):
        return {name: one['restarts'] for name, one in self.status().items()}

    def stays(self, step):
        """Nothing restarts and nothing fails for a while."""
        before, until = self.restarts(), time.monotonic() + self.quiet_for
        while time.monotonic() < until:
            why = self.wrong(self.wanted, begun=False)
            if why is not None:
                raise Wrong(f'{step}: no longer: {why}')
            time.sleep(2)
        after = self.restarts()
        if before != after:
            raise Wrong(f'{step}: restarts {before} became {after}')

    def cli_agrees(self):
        """Hermes's own list of profiles says the same. Before 0.21 it knows only processes."""
        if self.version.startswith(('0.19.', '0.20.')):
            return
        status = self.status()
        listed = self.exec('hermes', 'profile', 'list', user='hermes').stdout
        for profile in self.wanted:
            line = next((line for line in listed.splitlines() if profile in line.split()[:2] or f'◆{profile}' in line), '')
            runs = 'running' in line
            if runs != (status[profile]['state'] in ('up', 'ready', 'served')):
                raise Wrong(f"profile list contradicts ctl status: {line!r}, {status[profile]['state']}")

    def run(self):
        docker('rm', '--force', '--volumes', self.name, check=False)
        docker('volume', 'rm', '--force', self.name, check=False)
        docker('volume', 'create', f'--label={LABEL}', self.name)
        try:
            return self.steps()
        finally:
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
        self.settle('boot')
        shape = self.shape()
        first = self.restarts()
        if any(first.values()):
            raise Wrong(f'boot: it took restarts: {first}')
        self.stays('boot')
        self.cli_agrees()
        docker('restart', self.name)
        self.settle('docker restart')
        self.exec('hermes-sup', 'ctl', 'restart', '--all', '--timeout', '120s')
        self.settle('ctl restart --all')
        root = next((one for one in self.gateways() if one['profile'] == 'default'), None)
        if root:
            self.exec('kill', '-9', str(root['pid']))
            self.settle('kill -9 of the root gateway')
        self.profiles_come_and_go()
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
    parser.add_argument('--jobs', type=int, default=3)
    parser.add_argument('images', nargs='+', metavar='VERSION=IMAGE')
    args = parser.parse_args()
    images = dict(image.split('=', 1) for image in args.images)
    cells = [Cell(version, image, setting, args.quiet_for) for version, image in images.items() for setting in SETTINGS
             if args.cell in f'{version} {setting}']

    def run(cell):
        try:
            return cell, cell.run(), None
        except (Wrong, subprocess.SubprocessError, KeyError) as wrong:
            return cell, 'wrong', str(wrong)

    table, wrongs = {}, []
    with ThreadPoolExecutor(args.jobs) as pool:
        for cell, shape, wrong in pool.map(run, cells):
            table[cell.version, cell.setting] = shape
            if wrong:
                wrongs.append(f'{cell.version}, {cell.setting}: {wrong}')
                print(f'wrong: {wrongs[-1]}', file=sys.stderr, flush=True)
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
