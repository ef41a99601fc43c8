#!/bin/sh
# The ENTRYPOINT. Where somebody puts an init of their own in front of it, another init may refuse to run; ours supervises as
# a child subreaper too, so there is nothing to choose.
exec /init /opt/hermes/docker/main-wrapper.sh "$@"
