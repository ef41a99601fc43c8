# Podman's generator of units, which the deploy tier asks, sourced by tests/run: that of this machine, or that of a release of
# Debian whose Podman has one. It is unpacked into the cache with the C library of that release, and not installed.

# From 4.4 on, Podman has it; bookworm's is 4.3.
quadlet_release=trixie

# Sets `quadlet`, the command. Fails with the reason on stderr.
quadlet_generator() {
    local place=$cache/quadlet-$quadlet_release program new loader
    for program in /usr/libexec/podman/quadlet /usr/lib/podman/quadlet; do
        if [ -x "$program" ]; then
            quadlet=("$program")
            return
        fi
    done
    if [ ! -d "$place" ]; then
        if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
            echo 'there is no Podman with quadlet (4.4 or later), and no Debian package can be fetched here' >&2
            return 1
        fi
        echo "fetching the Podman of Debian $quadlet_release"
        mkdir -p "$cache"
        new=$(mktemp -d "$cache/quadlet.XXXXXX")
        # Renamed into place whole, so that a run that is killed leaves no half of one.
        if ! { quadlet_fetch "$new" >/dev/null 2>&1 && mv "$new/root" "$place"; }; then
            echo "the Podman of Debian $quadlet_release cannot be fetched" >&2
            rm -rf "$new"
            return 1
        fi
        rm -rf "$new"
    fi
    loader=$(compgen -G "$place/usr/lib/*/ld-linux*") || return
    quadlet=("$loader" --library-path "$(dirname "$loader")" "$place/usr/libexec/podman/quadlet")
}

# DIR: the program and its library below DIR/root. From where apt has its packages of Debian, with an index and a state of its own:
# apt itself checks the release's signature and the packages' checksums.
quadlet_fetch() {
    local mirror package keys=/usr/share/keyrings/debian-archive-keyring.gpg
    # Without its lists apt knows of no index.
    [ "$(id -u)" != 0 ] || apt-get update || return
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 'Label: Debian' | head -n 1)
    [ -n "$mirror" ] || return
    mkdir -p "$1"/{state/lists/partial,cache/archives/partial,debs,root} || return
    echo "deb [signed-by=$keys target=Packages] $mirror $quadlet_release main" >"$1/sources.list"
    : >"$1/status"
    cat >"$1/apt.conf" <<END
Dir::State "$1/state";
Dir::State::status "$1/status";
Dir::Cache "$1/cache";
Dir::Etc::sourcelist "$1/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
END
    APT_CONFIG=$1/apt.conf apt-get update || return
    (cd "$1/debs" && APT_CONFIG=$1/apt.conf apt-get download podman libc6) || return
    # Each has one of the two.
    for package in "$1"/debs/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$1/root" --wildcards './usr/libexec/podman/quadlet' './usr/lib/*-linux-gnu*/*'
    done
    [ -x "$1/root/usr/libexec/podman/quadlet" ]
}
