#!/bin/sh
# Links to every program of root's in /opt/hermes/bin, the first directory of the image's PATH, but for what the venv after
# that has. hermes can fill the directory that comes next, and `docker exec` runs as root. The build calls it, and each boot:
# an image made from this one may have more programs.
cd /opt/hermes/bin || exit
for program in /usr/local/sbin/* /usr/local/bin/* /usr/sbin/* /usr/bin/*; do
    name=${program##*/}
    [ ! -x "$program" ] || [ -e "$name" ] || [ -e "../.venv/bin/$name" ] || [ -d "$program" ] || ln -sf "$program" . || exit
done
