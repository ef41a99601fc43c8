#!/bin/sh
# The container's program, which /init runs with this script in front: finds out what the CMD means, becomes hermes
# and executes it. Nothing may be printed here: the CMD's output is all that `docker run` shows.
#
#   no argument                        hermes
#   the first one can be executed      that
#   anything else                      hermes with these arguments
#
# PATH holds a directory that hermes can write, so until root is gone nothing is looked up in it.
set -e

# An init that starts its program without the container's environment keeps it in files. Once is enough.
if [ -z "${HERMES_HOME:-}" ] && [ -z "${HERMES_MAIN_WRAPPER_ENV_READY:-}" ] && [ -x /command/with-contenv ]; then
    export HERMES_MAIN_WRAPPER_ENV_READY=1
    exec /command/with-contenv /bin/sh "$0" "$@"
fi
unset HERMES_MAIN_WRAPPER_ENV_READY

uid=$(/usr/bin/id -u)
if [ "$uid" != 0 ] && [ "$uid" != "$(/usr/bin/id -u hermes)" ]; then
    cat >&2 <<END
[hermes] ERROR: container started with --user $uid (an arbitrary, non-hermes UID) — not supported.
Leave --user out and say whose files they shall be; hermes takes over that uid and gid at boot:
    docker run -e HERMES_UID=\$(id -u) -e HERMES_GID=\$(id -g) …
PUID and PGID mean the same.
END
    exit 1
fi

export HOME=/opt/data
export HERMES_HOME="${HERMES_HOME:-$HOME}"
# What the venv's own activate script does, without its changes to an interactive shell.
export VIRTUAL_ENV=/opt/hermes/.venv
export PATH="$VIRTUAL_ENV/bin:$PATH"
unset PYTHONHOME
# Where `docker run --workdir` put us, unless somebody in between moved and kept it.
[ -z "${HERMES_ORIG_CWD:-}" ] || cd "$HERMES_ORIG_CWD"

# An option is one of hermes, and not of `command`.
case ${1:--} in
    -*) set -- hermes "$@" ;;
    *) command -v "$1" >/dev/null || set -- hermes "$@" ;;
esac
if [ "$uid" = 0 ]; then
    export USER=hermes LOGNAME=hermes
    set -- /command/s6-setuidgid hermes "$@"
fi
exec "$@"
