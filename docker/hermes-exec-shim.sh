#!/bin/sh
# `hermes` for `docker exec`, whose user is root: what root writes on the volume the gateways could not read, so the
# real hermes runs as hermes. HERMES_DOCKER_EXEC_AS_ROOT=1 keeps root.
#
# Below another init (docker run --init, Fly, Railway) hermes sees no s6, takes its gateways for processes that nobody
# supervises, and kills them, or runs one in the exec session. There its commands for gateways go to the supervisor.
real=/opt/hermes/.venv/bin/hermes
setuidgid=/command/s6-setuidgid
ctl='/usr/local/bin/hermes-sup ctl'

# Whether the supervisor is there, and hermes does not see it.
unseen() {
    read -r init </proc/1/comm
    [ "$init" != s6-svscan ] && $ctl list >/dev/null 2>&1
}

# Whether it can be the name of a profile. On the volume anything may stand in its place, also an option of ctl.
is_profile() {
    case $1 in '' | -* | *[!a-z0-9_-]*) return 1 ;; esac
}

every_gateway() {
    echo default
    for soul in "${HERMES_HOME:-/opt/data}"/profiles/*/SOUL.md; do
        name=${soul%/SOUL.md} name=${name##*/}
        if is_profile "$name" && [ -e "$soul" ]; then echo "$name"; fi
    done
}

# What `hermes profile use` has noted, read as hermes: the file is hermes's, and may be a link, or a FIFO that nobody writes to.
noted_profile() {
    if [ "$(/usr/bin/id -u)" = 0 ]; then set -- "$setuidgid" hermes; fi
    "$@" /bin/dd if="${HERMES_HOME:-/opt/data}/active_profile" iflag=nonblock,nofollow bs=256 count=1 2>/dev/null |
        { read -r name || :; echo "$name"; }
}

# [-p PROFILE] gateway start|stop|restart|status|list [--all]: done by the supervisor. Whatever else there is on the line
# is for hermes.
gateway_command() {
    profile='' verb='' all=''
    while [ $# -gt 0 ]; do
        case $1 in
            -p | --profile) [ $# -gt 1 ] || return 0; profile=$2 && shift ;;
            -p=* | --profile=*) profile=${1#*=} ;;
            gateway) [ -z "$verb" ] || return 0; verb=gateway ;;
            start | stop | restart | status | list) [ "$verb" = gateway ] || return 0; verb=$1 ;;
            --all) all=1 ;;
            *) return 0 ;;
        esac
        shift
    done
    case $verb in start | stop | restart | status | list) ;; *) return 0 ;; esac
    unseen || return 0
    if [ -z "$profile" ]; then
        profile=$(noted_profile)
        if [ -n "$profile" ] && ! is_profile "$profile"; then
            echo 'hermes: active_profile names no profile: name one with -p, or run: hermes profile use default' >&2
            exit 1
        fi
    fi
    # shellcheck disable=SC2046 # the names of profiles have no white space
    case $verb in
        list) exec $ctl status $(every_gateway) ;;
        *) exec $ctl "$verb" $(if [ -n "$all" ]; then every_gateway; else echo "${profile:-default}"; fi) ;;
    esac
}

if [ ! -x "$real" ]; then
    echo "hermes: $real is missing: the image is damaged" >&2
    exit 127
fi
case " $* " in
    *' gateway '*) gateway_command "$@" ;;
esac
# By its path: PATH holds a directory that hermes can write.
[ "$(/usr/bin/id -u)" = 0 ] || exec "$real" "$@"
case ${HERMES_DOCKER_EXEC_AS_ROOT:-} in
    1 | true | TRUE | True | yes | YES | Yes)
        # What it starts is root's, too.
        export PATH=/opt/hermes/bin:/opt/hermes/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        exec "$real" "$@"
        ;;
esac
if [ ! -x "$setuidgid" ]; then
    echo "hermes: $setuidgid is missing: use 'docker exec --user hermes', or HERMES_DOCKER_EXEC_AS_ROOT=1" >&2
    exit 126
fi
export HOME=/opt/data
exec "$setuidgid" hermes "$real" "$@"
