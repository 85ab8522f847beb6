# What the scripts beside share: where the project is, the apt packages, the virtual environment. Sourced, not run.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$project/.venv

# What installing and mounting needs; libfuse3-dev, pkg-config, gcc and python3-dev are for building pyfuse3.
run_packages=(fuse3 libfuse3-dev pkg-config gcc python3-dev python3-venv git)
# What the tests use besides.
test_packages=(acl attr bindfs fio groff inotify-tools jq make nano rsync sqlite3 strace stress-ng vim)

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Installs the apt packages named, where they are missing; without root, says which line does.
need_packages() {
    local missing=() package
    if ! command -v dpkg-query >/dev/null; then
        need_without_apt
        return
    fi
    for package in "$@"; do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        die "packages are missing; run: sudo apt-get install -y ${missing[*]}"
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# On systems without apt: only looks.
need_without_apt() {
    local tool
    for tool in fusermount3 git pkg-config cc; do
        command -v "$tool" >/dev/null || die "$tool is missing; install FUSE 3 with its headers, git and a C compiler"
    done
    pkg-config --exists fuse3 || die "the headers of libfuse 3 are missing"
}

# Prints a Python of at least 3.11 that can make virtual environments: $PYTHON, the system's own, or the first on PATH.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} /usr/bin/python3 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "no Python of at least 3.11 with venv; set PYTHON=/path/to/python3"
}

# Makes .venv with the package and the extras named ("" or "dev,test"), again when pyproject.toml or Python changed.
setup_venv() {
    local extras=$1 python wanted marker=$venv/.caiafs-setup
    python=$(find_python)
    wanted="$("$python" --version) $(cksum <"$project/pyproject.toml")"
    if [ -f "$marker" ] && [ "$(head -n 1 "$marker")" = "$wanted" ]; then
        # An environment with the extras serves where none are asked for.
        if [ -z "$extras" ] || [ "$(tail -n 1 "$marker")" = "$extras" ]; then
            return
        fi
    fi
    echo "setting up .venv${extras:+ with $extras} ($("$python" --version))"
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "$project${extras:+[$extras]}"
    printf '%s\n%s\n' "$wanted" "$extras" >"$marker"
}
