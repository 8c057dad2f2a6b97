#!/bin/sh
# Makes ready what the tests use besides Incus: Chromium, and certutil, with which it trusts a CA.
# Where the distribution has no package of it, the tests that need a browser say so and are skipped.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=lib/apt.sh
. "$HERE/lib/apt.sh"

missing=""
command -v chromium >/dev/null || missing="chromium"
command -v certutil >/dev/null || missing="$missing${missing:+ }libnss3-tools"
[ -n "$missing" ] || exit 0
# Ubuntu's chromium is a way to a snap, which needs a snapd that runs.
[ "$(os_release ID)" = debian ] || { say "this distribution has no Chromium package: tests in a browser are skipped"; exit 0; }
if ! is_root; then
    say "there is no $missing: tests in a browser are skipped. For them: sudo apt-get install $missing"
    exit 0
fi
open_log browser.log
# shellcheck disable=SC2119  # no arguments of ours
apt_lists_fresh "$(os_release VERSION_CODENAME)" || apt_update
# shellcheck disable=SC2086  # words
apt_install "the tests use a browser" $missing
