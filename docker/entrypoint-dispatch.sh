#!/bin/sh
# An ENTRYPOINT for places that put an init of their own in front of it. Another init may refuse to run there; ours
# supervises as a child subreaper too, so there is nothing to choose.
exec /init /opt/hermes/docker/main-wrapper.sh "$@"
