#!/bin/sh
# Prepares the data volume before any service starts; /etc/cont-init.d/01-hermes-setup calls it at every boot. It gives
# hermes the uid and gid that were asked for and what is its own on the volume, makes directories and first files,
# and brings the configuration to this image's version.
#
# hermes can write the volume, so as root nothing there is opened and no link is followed: links are refused, owners
# change with chown -h, and everything else is done as hermes. A step that fails is a warning: better a gateway
# without it than no gateway. The boot waits for this script, so a program is started only where there is work.
set -u
umask 022
# The container's PATH holds a directory that hermes can write. Ours, as root, has lost it already; hermes gets it all.
path=$PATH
[ ! -f /run/s6/container_environment/PATH ] || path=$(/bin/cat /run/s6/container_environment/PATH)
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

home=${HERMES_HOME:-/opt/data}
home=${home%/}
install=/opt/hermes
python=$install/.venv/bin/python
uid=$(id -u)

say() { printf '[stage2] %s\n' "$*"; }

warn() { say "Warning: $*"; }

# Whatever it meets on the volume, it ends: what it waits for, hermes could keep from coming.
patience=300

as_hermes() {
    if [ "$uid" = 0 ]; then
        HOME=/opt/data PATH=$path /usr/bin/timeout --signal KILL "$patience" /command/s6-setuidgid hermes "$@"
    else
        PATH=$path /usr/bin/timeout --signal KILL "$patience" "$@"
    fi
}

# ACTION PATH: whether a link is on the way from the home to PATH, and says so. Links above the home are the operator's.
refused() {
    refused_step=$2
    while [ ! -L "$refused_step" ]; do
        [ "$refused_step" != "$home" ] || return 1
        refused_step=${refused_step%/*}
    done
    warn "refusing $1 through symlinked path $2 — continuing"
}

# WHAT FIND-ARGUMENT…: hermes gets what find meets of another owner. A service may be renaming what find has just seen
# (another container on the volume), hence -execdir: the new owner goes to the file that was looked at.
give() {
    give_what=$1
    shift
    find "$@" \( ! -user hermes -o ! -group hermes \) -execdir chown -h hermes:hermes {} + 2>/dev/null ||
        warn "chown $give_what failed (rootless container?) — continuing"
}

give_tree() {
    [ -e "$1" ] || [ -L "$1" ] || return 0
    refused 'recursive chown' "$1" || give "$1" "$1"
}

# MODE FILE: hermes's own, with this mode.
private() {
    [ -f "$2" ] || return 0
    ! refused chown/chmod "$2" || return 0
    [ "$(stat --format '%U:%G %a' "$2")" != "hermes:hermes $1" ] || return 0
    [ "$uid" != 0 ] || give "$2" "$2" -maxdepth 0
    as_hermes chmod "$1" "$2" || warn "chmod $1 $2 failed — continuing"
}

# MODE FILE TEXT: makes the file, if nothing has that name.
create() {
    # A shell would open a FIFO, and wait for its reader.
    if [ -e "$2" ] || [ -L "$2" ]; then
        warn "$2 is no file: it stays — continuing"
        return
    fi
    # shellcheck disable=SC2016 # its own arguments, not ours
    as_hermes /bin/sh -c 'umask 077 && set -C && printf %s "$3" >"$2" && chmod "$1" "$2"' sh "$@" ||
        warn "cannot write $2 — continuing"
}

guard() {
    [ "$uid" != 0 ] && [ "$uid" != "$(id -u hermes)" ] || return 0
    cat >&2 <<END
[stage2] ERROR: container started with --user $uid (an arbitrary, non-hermes UID) — not supported.
Only root can prepare the volume, and only hermes can use it. Leave --user out and say whose files they shall be:
    docker run -e HERMES_UID=\$(id -u) -e HERMES_GID=\$(id -g) …
PUID and PGID mean the same.
END
    exit 1
}

# VALUE: a uid or gid that a user may take over.
valid_id() {
    case $1 in
        '' | *[!0-9]* | ??????*) return 1 ;;
    esac
    [ "$1" -ge 1 ] && [ "$1" -le 65534 ]
}

remap() {
    remap_uid=${HERMES_UID:-${PUID:-}} remap_gid=${HERMES_GID:-${PGID:-}}
    if valid_id "$remap_uid" && [ "$remap_uid" != "$(id -u hermes)" ]; then
        say "Changing hermes UID to $remap_uid"
        # A host's uid may be the one of a system user here.
        usermod --non-unique --uid "$remap_uid" hermes || warn "usermod failed — continuing as $(id -u hermes)"
    fi
    if valid_id "$remap_gid" && [ "$remap_gid" != "$(id -g hermes)" ]; then
        say "Changing hermes GID to $remap_gid"
        groupmod --non-unique --gid "$remap_gid" hermes || warn "groupmod failed — continuing as $(id -g hermes)"
    fi
}

# NODE NAME: hermes joins the group of a socket or device, as NAME where the group has no name here. It has to be in the
# group file: a change of user reads that and drops what `docker run --group-add` gave.
join_group_of() {
    join_gid=$(stat --format %g "$1" 2>/dev/null) || return 0
    case " $(id -G hermes) " in
        *" $join_gid "*) say "hermes already in group $join_gid for $1" && return ;;
    esac
    join_group=$(getent group "$join_gid" | cut -d : -f 1)
    if [ -z "$join_group" ]; then
        join_group=$2
        if ! groupadd --gid "$join_gid" "$join_group"; then
            warn "groupadd --gid $join_gid $join_group failed: hermes cannot use $1 — continuing"
            return
        fi
    fi
    if usermod --append --groups "$join_group" hermes; then
        say "Added hermes to group $join_group (GID $join_gid) for $1"
    else
        warn "usermod --append --groups $join_group hermes failed: hermes cannot use $1 — continuing"
    fi
}

join_groups() {
    for node in /var/run/docker.sock /run/docker.sock; do
        [ -S "$node" ] || continue
        join_group_of "$node" hostdocker
        break
    done
    for node in /dev/dri/*; do
        [ -c "$node" ] || continue
        node_gid=$(stat --format %g "$node")
        # Being in root's group would give far more than the device.
        [ "$node_gid" = 0 ] || join_group_of "$node" "hostdri$node_gid"
    done
}

# The volume of another uid (a bind mount, a remapped hermes): what hermes works in, never what else is there. On every
# boot: what a `docker exec` as root leaves behind where a gateway then fails.
take_over() {
    # usermod has given the home to the new uid, but groupmod gave nothing to the new group. A host's group that nobody
    # asked to change stays.
    format=%u wanted=$(id -u hermes)
    if valid_id "${HERMES_GID:-${PGID:-}}"; then format=%u:%g wanted=$wanted:$(id -g hermes); fi
    if [ "$(stat --format "$format" "$home")" != "$wanted" ]; then
        say "Fixing ownership of $home: what hermes works in"
        refused chown "$home" || give "$home" "$home" -maxdepth 0
        for sub in cron sessions logs hooks memories skills skins plans workspace home profiles pairing \
            platforms/pairing lazy-packages services; do
            give_tree "$home/$sub"
        done
    else
        for sub in profiles cron platforms/pairing pairing; do
            give_tree "$home/$sub"
        done
    fi
    set --
    for name in logs/gateways auth.json auth.lock .env state.db state.db-shm state.db-wal hermes_state.db \
        response_store.db response_store.db-shm response_store.db-wal gateway.pid gateway.lock gateway_state.json \
        processes.json active_profile; do
        [ -e "$home/$name" ] || [ -L "$home/$name" ] || continue
        refused chown "$home/$name" || set -- "$@" "$home/$name"
    done
    [ $# = 0 ] || give "$*" "$@" -maxdepth 0
}

directories() {
    set --
    for sub in backups cron sessions logs logs/gateways hooks memories skills skins plans workspace home pairing \
        platforms/pairing lazy-packages; do
        [ -d "$home/$sub" ] || set -- "$@" "$home/$sub"
    done
    [ $# = 0 ] || as_hermes mkdir -p "$@" || warn "cannot make all directories of $home — continuing"
}

# NAME SEED: the file of the first boot.
seed() {
    [ ! -f "$home/$1" ] && [ -f "$install/docker/seed/$2" ] || return 0
    refused seed "$home/$1" || as_hermes cp -n "$install/docker/seed/$2" "$home/$1" ||
        warn "cannot write $home/$1 — continuing"
}

# FILE: its first megabyte, read as hermes. The file is hermes's and may be anything: terabytes of nothing, a link, a FIFO.
beginning() {
    as_hermes /bin/dd if="$1" iflag=nonblock,nofollow,fullblock bs=65536 count=16 2>/dev/null
}

# The API server of the gateway, on loopback, does not start without a key. One that somebody has set stays, in the file or in
# the container's environment. Without the library that the server is made with, a key would only hurt the gateway.
api_server_key() {
    [ -f "$home/.env" ] && [ -z "${API_SERVER_KEY:-}" ] || return 0
    set -- "$install"/.venv/lib/python3*/site-packages/aiohttp
    [ -d "$1" ] || return 0
    ! beginning "$home/.env" | grep -q '^[[:space:]]*\(export[[:space:]]*\)\{0,1\}API_SERVER_KEY=.' || return 0
    ! refused append "$home/.env" || return 0
    key=$(od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n')
    # What is there may lack its newline. A key that is read last counts.
    if printf '\nAPI_SERVER_KEY=%s\n' "$key" |
        as_hermes /bin/dd of="$home/.env" oflag=append,nonblock,nofollow conv=notrunc,nocreat 2>/dev/null; then
        say 'Generated API_SERVER_KEY for the loopback gateway api_server'
    else
        warn "cannot write $home/.env: the gateway's API server stays off — continuing"
    fi
}

# The volume may be shared with an installation on the host, which must not take itself for this image. Ours is stamped
# beside its code.
unstamp() {
    [ -f "$home/.install_method" ] || return 0
    stamp=$(beginning "$home/.install_method" | sed 1q)
    [ "$stamp" != docker ] || as_hermes rm -f "$home/.install_method"
}

schema_of() { beginning "$1" | sed -n '/^_config_version:[[:space:]]*[0-9]/{s/^[^0-9]*\([0-9]*\).*/\1/p;q}'; }

# The seed was made by this image's Hermes and has its version of the schema: Python is started only for an older one.
migrate() {
    case ${HERMES_SKIP_CONFIG_MIGRATION:-} in
        1 | [Tt][Rr][Uu][Ee] | [Yy][Ee][Ss] | [Oo][Nn]) return ;;
    esac
    [ -f "$home/config.yaml" ] && ! [ -L "$home/config.yaml" ] || return 0
    for name in config.yaml .env; do
        size=$(stat --format %s "$home/$name" 2>/dev/null) || continue
        [ "$size" -le 1048576 ] && continue
        warn "$name has $size bytes: the configuration is not migrated — continuing"
        return 0
    done
    schema=$(schema_of "$home/config.yaml")
    latest=$(schema_of "$install/docker/seed/config.yaml")
    [ "${schema:-0}" -lt "${latest:-0}" ] || return 0
    check='from hermes_cli.config import check_config_version as versions, migrate_config; current, latest = versions()'
    # What cannot be parsed counts as new: it is left to its owner.
    as_hermes "$python" -c "$check; raise SystemExit(current >= latest)" || return 0
    say "Migrating config.yaml from schema ${schema:-0} to $latest"
    backup=bak-$(date -u +%Y%m%dT%H%M%SZ)
    for name in config.yaml .env; do
        [ ! -f "$home/$name" ] || as_hermes cp -p "$home/$name" "$home/$name.$backup"
    done
    as_hermes "$python" -c "$check; migrate_config(interactive=False); raise SystemExit(versions()[0] < latest)" && return
    warn "the migration failed: config.yaml and .env are as they were — continuing"
    for name in config.yaml .env; do
        [ ! -f "$home/$name.$backup" ] || as_hermes cp -p "$home/$name.$backup" "$home/$name"
    done
}

# What an orchestrator hands to a fresh volume. What is there already is newer, and stays.
bootstrap() {
    if [ -n "${HERMES_AUTH_JSON_BOOTSTRAP:-}" ] && [ ! -f "$home/auth.json" ]; then
        refused seed "$home/auth.json" || create 600 "$home/auth.json" "$HERMES_AUTH_JSON_BOOTSTRAP"
    fi
    renewal=$install/scripts/docker_rebootstrap_nous_session.py
    if [ -n "${HERMES_AUTH_JSON_REBOOTSTRAP:-}" ] && [ -f "$home/auth.json" ] && [ -f "$renewal" ]; then
        refused reseed "$home/auth.json" || as_hermes "$python" "$renewal" "$home/auth.json" ||
            warn "$renewal failed — continuing"
    fi
    # A gateway is wanted up only by this very word.
    if [ "${HERMES_GATEWAY_BOOTSTRAP_STATE:-}" = running ] && [ ! -f "$home/gateway_state.json" ]; then
        refused seed "$home/gateway_state.json" || create 644 "$home/gateway_state.json" '{"gateway_state":"running"}
'
    fi
}

skills() {
    [ -d "$install/skills" ] || return 0
    as_hermes env HERMES_BUNDLED_SKILLS="$install/skills" "$python" -m tools.skills_sync ||
        warn 'the skills sync failed — continuing'
}

# The browser is found by its name: the libraries beside it are executable too.
browser() {
    [ -z "${AGENT_BROWSER_EXECUTABLE_PATH:-}" ] && [ -d "${PLAYWRIGHT_BROWSERS_PATH:-}" ] || return 0
    chromium=$(find "$PLAYWRIGHT_BROWSERS_PATH" -type f -executable \( -name chrome -o -name chromium \
        -o -name chrome-headless-shell -o -name headless_shell -o -name chromium-browser \) -print -quit 2>/dev/null)
    if [ -z "$chromium" ]; then
        warn "no Chromium below $PLAYWRIGHT_BROWSERS_PATH: the browser tool may fail"
        return
    fi
    say "Found agent-browser Chromium binary: $chromium"
    # From here it reaches every service and the CMD.
    mkdir -p /run/s6/container_environment
    printf %s "$chromium" >/run/s6/container_environment/AGENT_BROWSER_EXECUTABLE_PATH ||
        warn 'the browser tool will not know it — continuing'
}

guard
mkdir -p "$home" || warn "cannot make $home — continuing"
if [ "$uid" = 0 ]; then
    remap
    join_groups
    if [ ! -x "$home" ]; then
        # Root without CAP_DAC_OVERRIDE in front of a home that only hermes may enter: the rest is done as hermes.
        browser
        as_hermes env PLAYWRIGHT_BROWSERS_PATH= "$0"
        exit
    fi
    take_over
    /bin/sh "$install/docker/first-in-path.sh" 2>/dev/null || warn "/opt/hermes/bin cannot be written — continuing"
fi
directories
unstamp
seed .env env
seed config.yaml config.yaml
seed SOUL.md SOUL.md
private 640 "$home/config.yaml"
private 600 "$home/.env"
api_server_key
migrate
bootstrap
skills
browser
say 'Setup complete; starting user services'
