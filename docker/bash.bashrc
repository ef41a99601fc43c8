
# hermes can write below /opt/data: a shell of root's looks no program up there.
if [ "$EUID" = 0 ]; then
    PATH=$(printf %s ":$PATH:" | /usr/bin/sed 's#:/opt/data/[^:]*##g; s#^:##; s#:$##')
fi
