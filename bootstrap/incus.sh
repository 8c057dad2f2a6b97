#!/bin/sh
# Makes a working Incus on this host: Debian 12 and 13, Ubuntu 24.04 and later.
# Does nothing, fast, where Incus works. Exits 0 done, 1 failed, 3 root has to do something.
# STT_POOL: name of the storage pool to make where there is none (default: default).
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=lib/apt.sh
. "$HERE/lib/apt.sh"

POOL=${STT_POOL:-default}
SOCKET=$ROOT/var/lib/incus/unix.socket
DAEMON_LOG=$ROOT/var/log/incus/incusd.log
daemon_pid=
stale=
PACKAGES="incus-client dnsmasq-base nftables squashfs-tools xz-utils debootstrap lxcfs conntrack"

# 124: it is there and hangs.
incus_works() {
    have incus || return 1
    ask_incus query /1.0 >/dev/null 2>&1
}

ensure_pool() {
    pools=$(ask_incus storage list --format csv) ||
        die "Incus does not list its storage pools. Try 'incus storage list' and fix what it reports, then run this again."
    [ -z "$pools" ] || return 0
    say "making the storage pool $POOL: incus storage create $POOL dir"
    # In a cluster, each member is told first.
    for member in $(ask_incus cluster list --format csv --columns n 2>/dev/null); do
        ask_incus storage create "$POOL" dir --target "$member" >/dev/null ||
            die "the storage pool $POOL could not be prepared on the cluster's member $member. See 'incus cluster list', and run this again."
    done
    ask_incus storage create "$POOL" dir >/dev/null ||
        die "the storage pool $POOL could not be made. Make one by hand ('incus storage create $POOL dir') and run this again."
}

find_daemon() {
    for daemon in "$ROOT/usr/libexec/incus/incusd" "$ROOT/opt/incus/bin/incusd" "$ROOT/usr/lib/incus/incusd" "$ROOT/usr/sbin/incusd"; do
        [ ! -x "$daemon" ] || { printf '%s\n' "$daemon"; return 0; }
    done
    return 1
}

# The service works, but not for this user: that is not a reason to install anything.
check_permission() {
    if is_root || [ ! -S "$SOCKET" ] || [ -w "$SOCKET" ]; then return 0; fi
    user=$(id -un)
    case " $(id -nG "$user" 2>/dev/null) " in
        *" incus-admin "*) say "error: $user is in the group incus-admin, but not yet in this session. Log in again (or run 'newgrp incus-admin'), then run this again." ;;
        *) say "error: $user may not use Incus. Run 'sudo usermod -aG incus-admin $user', log in again, then run this again." ;;
    esac
    exit 3
}

add_backports() {
    main=$(apt_source bookworm)
    [ -n "$main" ] || die "no Debian 12 package source is configured on this host. Add one under /etc/apt, then run this again."
    file=$ROOT/etc/apt/sources.list.d/incus-stt-backports.sources
    write_file "Debian 12 has Incus in its backports" "$file" \
        "$(apt_stanza "$(field "$main" 1)" bookworm-backports main "$(field "$main" 4)")"
    # Only the new source: the others were refreshed just now.
    apt_update -o Dir::Etc::sourcelist="$file" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0
}

install_incus() {
    id=$(os_release ID) suite=$(os_release VERSION_CODENAME) name=$(os_release PRETTY_NAME)
    case $id in
        debian | ubuntu) ;;
        *) die "${name:-this system} is neither Debian nor Ubuntu. Install Incus 6.0 or later your system's way, then run this again." ;;
    esac
    apt_lists_fresh "$suite" || apt_update
    if ! apt_has incus-base && [ "$suite" = bookworm ]; then
        add_backports
        APT_RELEASE=bookworm-backports
    elif [ "$suite" = bookworm ] && apt-cache madison incus-base | grep -q bookworm-backports/; then
        APT_RELEASE=bookworm-backports
    elif ! apt_has incus-base && ! apt_has incus && is_root; then
        die "$name has no Incus package. Debian 12 or later and Ubuntu 24.04 or later (with 'universe' enabled) have one; enable it or upgrade, then run this again."
    fi
    # Ubuntu 24.04 has the daemon without virtual machines as 'incus', the others as 'incus-base'.
    package=incus-base
    if ! apt_has incus-base && apt_has incus; then package=incus; fi
    # shellcheck disable=SC2086
    apt_install "installing Incus" $package $PACKAGES
}

# Without ranges for root there are no unprivileged containers; the daemon reads them once, at its start.
ensure_subids() {
    for file in "$ROOT/etc/subuid" "$ROOT/etc/subgid"; do
        grep -qs -e '^root:' -e '^0:' "$file" || append_line "user ids for containers" "$file" root:1000000:1000000000
    done
}

lxcfs_mounted() { grep -qs " $ROOT/var/lib/lxcfs " /proc/mounts; }

# detach LOG COMMAND…: starts a daemon that outlives this script and this directory, without its lock.
detach() {
    out=$1
    shift
    setsid env -C / "$@" >>"$out" 2>&1 </dev/null 9>&- &
}

start_without_systemd() {
    daemon=$(find_daemon) || daemon=/usr/libexec/incus/incusd
    # An lxcfs that was killed leaves a mount that answers nothing.
    if lxcfs_mounted && ! ls "$ROOT/var/lib/lxcfs" >/dev/null 2>&1; then
        as_root "removing the mount of an lxcfs that has ended" umount -l "$ROOT/var/lib/lxcfs"
        stale=1
    fi
    as_root "place for logs and lxcfs" mkdir -p "$(dirname "$DAEMON_LOG")" "$ROOT/var/lib/lxcfs"
    if ! is_root; then
        { lxcfs_mounted && [ -z "$stale" ]; } || plan_line "setsid lxcfs /var/lib/lxcfs >>/var/log/incus/lxcfs.log 2>&1 </dev/null &"
        plan_line "setsid $daemon --group incus-admin >>$DAEMON_LOG 2>&1 </dev/null &"
        return 0
    fi
    if ! lxcfs_mounted; then
        say "starting lxcfs (no systemd here): lxcfs $ROOT/var/lib/lxcfs"
        detach "$ROOT/var/log/incus/lxcfs.log" lxcfs "$ROOT/var/lib/lxcfs"
    fi
    say "starting Incus (no systemd here): $daemon --group incus-admin"
    # As in its systemd unit; containers inherit it.
    # shellcheck disable=SC3045 # dash and bash have it, and others go on without
    ulimit -n 1048576 2>/dev/null || :
    detach "$DAEMON_LOG" "$daemon" --group incus-admin
    daemon_pid=$!
}

start_incus() {
    if [ -d "$ROOT/run/systemd/system" ]; then
        as_root "starting lxcfs" systemctl start lxcfs.service || say "lxcfs did not start: containers will see the host's memory and CPUs. Going on."
        as_root "starting Incus" systemctl start incus.socket incus.service || daemon_failed
    else
        start_without_systemd
    fi
    wait_until_ready
}

wait_until_ready() {
    is_root || { plan_line "incus admin waitready --timeout=120"; return 0; }
    say "waiting for Incus: incus admin waitready --timeout=120"
    # In slices, to see at once where the daemon has ended, and to tell that it goes on.
    began=$(date +%s)
    until timeout 15 incus admin waitready --timeout=5 >/dev/null 2>&1 </dev/null; do
        waited=$(($(date +%s) - began))
        [ -z "$daemon_pid" ] || kill -0 "$daemon_pid" 2>/dev/null || daemon_failed
        [ "$waited" -lt 120 ] || daemon_failed
        say "  … waiting for Incus, $waited s"
    done
}

daemon_failed() {
    if [ -d "$ROOT/run/systemd/system" ]; then
        from="journalctl -u incus"
        journalctl -u incus -n 12 --no-pager 2>/dev/null | sed 's/^/    /' >&2 || :
    else
        from=$DAEMON_LOG
        tail -n 12 "$DAEMON_LOG" 2>/dev/null | sed 's/^/    /' >&2 || :
    fi
    die "the Incus daemon did not start. Its last lines are above (all of them: $from); fix that, then run this again."
}

# Half a package installation is worse than a late answer to Ctrl-C.
interrupted() {
    trap '' HUP INT TERM
    [ -z "$child" ] || say "interrupted: waiting for the package manager to finish"
    [ -z "$child" ] || wait "$child" || :
    exit 130
}

main() {
    works=0
    incus_works || works=$?
    if [ "$works" -eq 0 ]; then
        ensure_pool
        return 0
    fi
    case ${INCUS_REMOTE:-local} in
        local) ;;
        *) die "the Incus remote $INCUS_REMOTE does not answer. Check 'incus remote list' and that its host is up; this script only prepares the machine it runs on." ;;
    esac
    # It is installed and was started: nothing here would mend it.
    [ "$works" -ne 124 ] ||
        die "Incus does not answer: 'incus query /1.0' did not end within $INCUS_DEADLINE s. See what it waits for ('journalctl -u incus', $DAEMON_LOG) and restart it ('systemctl restart incus'), then run this again."
    check_permission
    trap interrupted HUP INT TERM
    if is_root; then
        mkdir -p "$ROOT/run/lock"
        exec 9>"$ROOT/run/lock/incus-stt-incus.lock"
        take_lock "another run of this script is going on"
        open_log incus.log
    fi
    incus_works || {
        ensure_subids
        { have incus && find_daemon >/dev/null; } || install_incus
        incus_works || start_incus
    }
    if is_root; then
        incus_works || daemon_failed
        ensure_pool
        say "Incus $(ask_incus query /1.0 | sed -n 's/.*"server_version": *"\([^"]*\)".*/\1/p') is ready"
    else
        plan_line "incus storage list --format csv | grep -q . || incus storage create $(quote "$POOL") dir"
        need_root "${STT_POOL:+STT_POOL=$(quote "$STT_POOL") }sh $(quote "$HERE/incus.sh")"
    fi
}

main "$@"
