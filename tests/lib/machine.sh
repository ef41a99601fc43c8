# What the vm tier boots, sourced by tests/run: a kernel of the distribution, which is unpacked into the cache and not
# installed, and static binaries.
. docker/static.sh

# Sets HERMES_SUP_VM_KERNEL and HERMES_SUP_VM_MODULES, unless they are set. Fails with the reason on stderr.
machine_kernel() {
    [ -z "${HERMES_SUP_VM_KERNEL:-}" ] || return 0
    local place=$cache/kernel package new
    if ! compgen -G "$place/boot/vmlinuz-*" >/dev/null; then
        if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
            echo 'no Debian package can be fetched here: set HERMES_SUP_VM_KERNEL and HERMES_SUP_VM_MODULES' >&2
            return 1
        fi
        # An old list names a package that is no longer there.
        [ "$(id -u)" != 0 ] || apt-get update >/dev/null
        package=$(machine_kernel_package)
        [ -n "$package" ] || { echo 'apt knows no linux-image-cloud-amd64' >&2; return 1; }
        echo "fetching $package"
        mkdir -p "$cache"
        new=$(mktemp -d "$cache/kernel.XXXXXX")
        # Renamed into place whole, so that a run that is killed leaves no half of one.
        if ! { (cd "$new" && apt-get download "$package" >/dev/null 2>&1) && dpkg-deb -x "$new"/*.deb "$new/unpacked" &&
            rm -rf "$place" && mv "$new/unpacked" "$place"; }; then
            echo "$package cannot be fetched" >&2
            rm -rf "$new"
            return 1
        fi
        rm -rf "$new"
    fi
    HERMES_SUP_VM_KERNEL=$(compgen -G "$place/boot/vmlinuz-*")
    HERMES_SUP_VM_MODULES=$(compgen -G "$place/lib/modules/*")
    export HERMES_SUP_VM_KERNEL HERMES_SUP_VM_MODULES
}

# The package that the meta package stands for.
machine_kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -n 1
}

# Builds the binaries that run inside and exports where they are.
machine_binaries() {
    local target=x86_64-unknown-linux-musl built
    rust_target "$target" || return
    # The binary that the image gets too: what the tests depend on changes no feature of its crates (tests/architecture.rs). Both are
    # linked at once, each for a minute of one processor.
    static_build "$target" --quiet --bin hermes-sup --example adversary || return
    built=$(static_place "$target")
    HERMES_SUP_VM_BINARY=$(realpath "$built/hermes-sup")
    HERMES_SUP_VM_ADVERSARY=$(realpath "$built/examples/adversary")
    export HERMES_SUP_VM_BINARY HERMES_SUP_VM_ADVERSARY
}
