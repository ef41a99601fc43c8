# A Docker engine for the docker tier and for upstream's tests, sourced by tests/run and tests/upstream. It takes the
# engine of this machine if that is a Linux one on cgroup v2, else it starts one of its own that touches nothing of
# another's and vanishes with us.

# COMMAND=PACKAGE…: installs the packages whose command is not there. Debian only; elsewhere says what is missing.
install_missing() {
    local pair packages=()
    for pair; do
        command -v "${pair%%=*}" >/dev/null || packages+=("${pair#*=}")
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: ${packages[*]}" >&2
        return 1
    fi
    echo "installing ${packages[*]}"
    # A package that brings a daemon must not start it: dockerd would make its bridge and its packet filter rules.
    local policy=/usr/sbin/policy-rc.d status=0
    if [ -e "$policy" ]; then policy=''; else install -m 755 <(printf '#!/bin/sh\nexit 101\n') "$policy"; fi
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } \
        >/dev/null || status=$?
    [ -z "$policy" ] || rm "$policy"
    return $status
}

engine_own=''

engine_usable() {
    [ "$(docker info --format '{{.OSType}} {{.CgroupVersion}}' 2>/dev/null)" = 'linux 2' ]
}

# Sets DOCKER_HOST when the engine is ours. Fails with the reason on stderr.
engine_start() {
    if command -v docker >/dev/null && engine_usable; then
        echo "using the engine at ${DOCKER_HOST:-the default socket}"
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        echo 'no working Docker engine on cgroup v2, and only root can start one' >&2
        return 1
    fi
    install_missing dockerd=docker.io docker=docker.io runc=runc
    mkdir -p "$cache"
    # One engine a cache: the descriptor of the lock is the engine's alone, so a killed run leaves no stale one.
    local lock
    exec {lock}>"$cache/engine.lock"
    flock --nonblock "$lock" || { echo 'waiting for another run on this cache'; flock "$lock"; }
    engine_own=$(mktemp -d /run/hermes-sup-engine.XXXXXX)
    # Its standard input is the tie: when this shell ends, however it ends, the pipe closes and the engine goes.
    coproc ENGINE {
        exec unshare --mount --pid --fork --kill-child --mount-proc \
            tests/lib/engine-init "$engine_own" "$cache/engine" "${engine_own##*/}" >"$engine_own/log" 2>&1
    }
    exec {lock}>&-
    engine_pid=$ENGINE_PID engine_tie=${ENGINE[1]}
    export DOCKER_HOST=unix://$engine_own/docker.sock
    # It says when it listens; tail ends with it, and when nobody reads on.
    timeout 60 tail --pid="$engine_pid" --lines=+1 -F "$engine_own/log" 2>/dev/null | grep -qm1 'API listen on'
    if ! engine_usable; then
        echo 'the engine of our own does not start:' >&2
        tail -n 20 "$engine_own/log" >&2
        engine_stop
        return 1
    fi
    echo "started an engine of our own at $DOCKER_HOST (images are kept in $cache/engine)"
}

engine_stop() {
    [ -n "$engine_own" ] || return 0
    # Already closed when the engine ended by itself: bash then does it.
    { exec {engine_tie}>&-; } 2>/dev/null
    wait "$engine_pid" 2>/dev/null
    local root
    root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    # Only empty directories are left of a subtree whose PID namespace is gone.
    [ ! -d "$root/${engine_own##*/}" ] || find "$root/${engine_own##*/}" -depth -type d -exec rmdir {} +
    rm -rf --one-file-system "$engine_own"
    engine_own=''
    unset DOCKER_HOST
}
