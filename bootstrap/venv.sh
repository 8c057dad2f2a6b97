#!/bin/sh
# Makes .venv from the requirements, which are pinned by hash; nothing to do where it is up to date.
# Usage: venv.sh [--there] FILE…   (requirements.txt, requirements-dev.txt); --there: only say whether it is.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
cd "$HERE/.."

there=
[ "$1" != --there ] || { there=yes; shift; }
stamp=.venv/.requirements
# The pip that installs them. That of a Python of 2023 takes three times as long to choose wheels.
pip=bootstrap/requirements-pip.txt
sums=$(sha256sum "$pip" "$@")
if [ -e "$stamp" ] && ! printf '%s\n' "$sums" | grep -qvxF -f "$stamp"; then exit 0; fi
[ -z "$there" ] || die "this clone's Python packages are not installed, or not all of them. Run: make setup"

for python in python3.13 python3.12 python3.11 python3; do
    if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
        found=$python
        break
    fi
done
[ -n "${found:-}" ] || die "there is no Python 3.11, 3.12 or 3.13 on this machine. Install one (apt-get install python3 python3-venv), then run this again."

if [ ! -x .venv/bin/pip ]; then
    if ! "$found" -c 'import ensurepip' 2>/dev/null; then
        version=$("$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        as_root "Python's venv is missing" apt-get install -y -q "$version"
        need_root "apt-get install -y $version"
    fi
    say "making .venv with $("$found" --version)"
    "$found" -m venv .venv || die "'$found -m venv .venv' failed (above: why). Fix that, then run this again."
fi
# Wheels only: a source package runs code of its own here, and what builds it comes without a hash.
# Nothing but what the lock names, which leaves out what has no wheel (overrides-vosk.txt).
install() {
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps "$@" ||
        die "pip could not install the packages (above: why). Check the network and pip's configuration, then run this again. If the hashes do not match, the package index has other files than those that were locked: use another index."
}
say "installing the pinned packages of $* into .venv"
if ! sha256sum "$pip" | grep -qxF -f - "$stamp" 2>/dev/null; then install -r "$pip"; fi
for file in "$@"; do set -- "$@" -r "$file"; shift; done
install "$@"
# What stays of the stamp: sets that this run did not install.
kept=$(grep -vF "$(printf '%s\n' "$sums" | sed 's/^[^ ]*//')" "$stamp" 2>/dev/null || true)
printf '%s\n' "$sums" ${kept:+"$kept"} >"$stamp"
