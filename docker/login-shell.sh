# For login shells (`bash -l`, `su - hermes`, the console of a container platform): /etc/profile gives them Debian's own
# PATH, and `su -` takes the image's variables away. /etc/profile.d/hermes.sh in the image.
if [ -z "${HERMES_HOME:-}" ]; then
    export HERMES_HOME=/opt/data
    # What the container was started with, where this user may read it. Only /init writes there.
    for file in /run/s6/container_environment/HERMES_* /run/s6/container_environment/PLAYWRIGHT_BROWSERS_PATH \
        /run/s6/container_environment/PYTHON*; do
        [ ! -r "$file" ] || export "${file##*/}=$(cat "$file")"
    done
    unset file
fi
export VIRTUAL_ENV=/opt/hermes/.venv
case ":$PATH:" in
    *:/opt/hermes/bin:*) ;;
    *)
        # hermes can write in its own .local/bin: nothing of it is for another user.
        [ "$(/usr/bin/id -un)" != hermes ] || PATH=/opt/data/.local/bin:$PATH
        export PATH=/opt/hermes/bin:/opt/hermes/.venv/bin:$PATH
        ;;
esac
