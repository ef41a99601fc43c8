#!/bin/sh
# /usr/bin/tini, for the templates that still name it as their entry point. What tini does, /init does; its options
# are dropped and the rest is the CMD. The two variables are for tests.
init=${HERMES_TINI_SHIM_TARGET:-/init}
wrapper=${HERMES_TINI_SHIM_WRAPPER:-/opt/hermes/docker/main-wrapper.sh}

while [ $# -gt 0 ]; do
    case $1 in
        --) shift && break ;;
        # A signal or an exit code follows.
        -p | -e) shift && [ $# -gt 0 ] && shift ;;
        -*) shift ;;
        *) break ;;
    esac
done
case ${1-} in
    /init | "$init") shift ;;
esac
case ${1-} in
    "$wrapper" | */main-wrapper.sh) exec "$init" "$@" ;;
esac
exec "$init" "$wrapper" "$@"
