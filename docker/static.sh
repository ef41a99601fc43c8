# How the static binary is made, wherever it is: docker/build and the container it builds in, the tests, the benchmarks. Sourced by a
# POSIX shell in the directory of the source.
#
# The same source makes the same bytes in any directory, with the same Rust and the same linker: what lies where on this machine is
# not told in them, and the time is not. `tests/run supply` holds it.

# TARGET: can be built for, from now on. What is missing is fetched, where there is rustup.
rust_target() {
    [ -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)" ] || rustup target add "$1" && return
    echo "no Rust target $1" >&2
    return 1
}

# Prints the target of a binary that runs in any image: musl where that can be had, else glibc.
static_target() {
    static_machine=$(uname -m)
    if rust_target "$static_machine-unknown-linux-musl" >&2; then
        echo "$static_machine-unknown-linux-musl"
    else
        echo "$0: linking glibc statically" >&2
        echo "$static_machine-unknown-linux-gnu"
    fi
}

# It lies where the linker put it. Moved to a random place, as PIE is, each process that executes it relocates 28 pages of its own: 112 kB
# of private memory in the supervisor, in its fork server and in every executed keeper, and 70 of the 870 µs of a `status`. Stack,
# heap and mappings are at random places either way.
#
# The functions that run together are laid beside each other by docker/text.ld, which bench/order makes.
static_musl="'-Crelocation-model=static', '-Clink-arg=-Wl,-T,docker/text.ld'"

# TARGET WORD…: `cargo build --release` for it, with these words.
static_build() {
    static_for=$1
    shift
    # These are added to those of .cargo/config.toml. RUSTFLAGS would take their place, so its words are, too.
    static_flags=''
    case $static_for in
        *-gnu) static_flags="'-Ctarget-feature=+crt-static', " ;;
        *-musl) static_flags="$static_musl, " ;;
    esac
    for static_word in ${RUSTFLAGS:-}; do
        static_flags="$static_flags'$static_word', "
    done
    for static_word in "$(pwd -P)=/source" "$(static_directory)=/target" "${CARGO_HOME:-$HOME/.cargo}=/cargo"; do
        static_flags="$static_flags'--remap-path-prefix=$static_word', "
    done
    env -u RUSTFLAGS cargo build --locked --release --target "$static_for" --config "target.$static_for.rustflags = [$static_flags]" "$@"
}

# TARGET: the directory in which `static_build` leaves what it builds.
static_place() {
    echo "$(static_directory)/$1/release"
}

static_directory() {
    case ${CARGO_TARGET_DIR:-target} in
        /*) echo "$CARGO_TARGET_DIR" ;;
        *) echo "$(pwd -P)/${CARGO_TARGET_DIR:-target}" ;;
    esac
}

# When this source was committed, in Unix seconds; where there is no repository, the moment.
source_time() {
    git log -1 --format=%ct 2>/dev/null || date +%s
}
