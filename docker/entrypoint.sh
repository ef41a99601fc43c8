#!/bin/sh
# The entry point of images long ago, kept for what still calls it: prepares the volume and runs nothing.
echo '[hermes] WARNING: docker/entrypoint.sh is deprecated and runs no command: use the ENTRYPOINT of the image.' >&2
exec /opt/hermes/docker/stage2-hook.sh
