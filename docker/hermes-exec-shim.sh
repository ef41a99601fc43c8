#!/bin/sh
# `hermes` for `docker exec`, whose user is root: what root writes on the volume the gateways could not read, so the
# real hermes runs as hermes. HERMES_DOCKER_EXEC_AS_ROOT=1 keeps root.
real=/opt/hermes/.venv/bin/hermes
setuidgid=/command/s6-setuidgid

if [ ! -x "$real" ]; then
    echo "hermes: $real is missing: the image is damaged" >&2
    exit 127
fi
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
