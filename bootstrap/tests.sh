#!/bin/sh
# Makes ready what the tests use besides Incus: Bubblewrap, PostgreSQL, nginx, btrfs, Chromium, and certutil,
# with which Chromium trusts a CA. Where a package cannot be had, the tests that need it say so and are skipped.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=lib/apt.sh
. "$HERE/lib/apt.sh"

missing=""
# lacks PROGRAM PACKAGE
lacks() { command -v "$1" >/dev/null || missing="$missing${missing:+ }$2"; }

lacks chromium chromium
lacks certutil libnss3-tools
# Ubuntu's chromium is a way to a snap, which needs a snapd that runs.
if [ -n "$missing" ] && [ "$(os_release ID)" != debian ]; then
    say "this distribution has no Chromium package: tests in a browser are skipped"
    missing=""
fi
lacks bwrap bubblewrap
# Its programs are not on PATH.
set -- "$ROOT"/usr/lib/postgresql/*/bin/initdb
[ -x "$1" ] || missing="$missing${missing:+ }postgresql"
[ -x "$ROOT/usr/sbin/nginx" ] || missing="$missing${missing:+ }nginx"
[ -x "$ROOT/usr/sbin/mkfs.btrfs" ] || missing="$missing${missing:+ }btrfs-progs"
[ -n "$missing" ] || exit 0
if ! is_root; then
    say "there is no $missing: the tests that use it are skipped. For them: sudo apt-get install $missing"
    exit 0
fi
open_log tests.log
# Debian's package of PostgreSQL makes and starts a server, unless this says not to: the tests start their own.
setting=$ROOT/etc/postgresql-common/createcluster.d/incus-stt-tests.conf
# Where this file is there, packages start nothing (Debian's policy, 11.9.3).
policy=$ROOT/usr/sbin/policy-rc.d
policy_is_ours=
# shellcheck disable=SC2317,SC2329 # the traps call it
clean_up() {
    stop_child
    rm -f "$setting"
    [ -z "$policy_is_ours" ] || rm -f "$policy"
}
clean_up_at_end
case " $missing " in
    *' postgresql '*) write_file "no server of PostgreSQL's own" "$setting" "create_main_cluster = false" ;;
esac
case " $missing " in
    *' nginx '*)
        # Neither now nor after a boot: it would take port 80.
        unit=$ROOT/etc/systemd/system/nginx.service
        mkdir -p "$(dirname "$unit")"
        [ -e "$unit" ] || ln -sf /dev/null "$unit"
        if [ ! -e "$policy" ]; then
            policy_is_ours=1
            write_file "no server of nginx's own" "$policy" "#!/bin/sh
exit 101"
            chmod +x "$policy"
        fi
        ;;
esac
# shellcheck disable=SC2119  # no arguments of ours
apt_lists_fresh "$(os_release VERSION_CODENAME)" || apt_update
# shellcheck disable=SC2086  # words
apt_install "the tests use $missing" $missing
