#!/bin/sh
# image.sh IMAGE: makes sure that IMAGE (images:ubuntu/24.04, or a local alias) can be used, and prints
# the name to use. Where the image server cannot be reached, builds a stand-in from this host's own
# package sources, under the local alias incus-stt/<remote>/<image>.
# Exits 0 done, 1 failed, 2 wrong usage, 3 root has to do something.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=lib/apt.sh
. "$HERE/lib/apt.sh"
# shellcheck source=lib/progress.sh
. "$HERE/lib/progress.sh"

IMAGE=${1:-}
if [ $# -ne 1 ] || [ -z "$IMAGE" ]; then
    echo "usage: image.sh IMAGE   (such as images:ubuntu/24.04)" >&2
    exit 2
fi
case $IMAGE in
    *:*) remote=${IMAGE%%:*} alias=${IMAGE#*:} ;;
    *) remote=local alias=$IMAGE ;;
esac
STANDIN=incus-stt/$remote/$alias
TMP=${TMPDIR:-/var/tmp}
LOCK=$ROOT/run/lock/incus-stt-image.lock
work=

# Images live in the default project, whatever project the caller's shell is in.
images() {
    verb=$1
    shift
    ask_incus --project default image "$verb" "$@"
}

usable() { images info "$1" >/dev/null 2>&1; }

use() {
    printf '%s\n' "$1"
    exit 0
}

# Whose name is not its own says so each time.
use_standin() {
    described=$(ask_incus query "/1.0/images/aliases/$(printf '%s' "$STANDIN" | sed 's|/|%2F|g')?project=default" 2>/dev/null |
        sed -n 's/.*"description": "\([^"]*\) in place of .*/\1/p')
    case $(printf '%s' "$described" | tr 'A-Z ' 'a-z/') in
        '' | "$alias") ;;
        *) say "$described, which was built on this host, stands in for $IMAGE. When the server answers again: incus image alias delete $STANDIN" ;;
    esac
    use "$STANDIN"
}

check_local() {
    ! usable "$IMAGE" || use "$IMAGE"
    die "there is no local image $alias. Set stt:image to one of 'incus image list', or to a server's image such as images:ubuntu/24.04, then run this again."
}

# Returns 0 usable, 1 not reachable; any other trouble is for the user to fix, and ends the script.
ask_server() {
    rc=0
    answer=$(timeout 20 incus image info "$IMAGE" 2>&1 </dev/null) || rc=$?
    case $rc:$answer in
        0:*) return 0 ;;
        *"remote \"$remote\" doesn't exist"*)
            die "stt:image names the remote $remote, which this Incus client does not know. Add it ('incus remote add $remote URL') or set stt:image to another image, then run this again." ;;
        *"Failed parsing "* | *"Get \""* | 124:*) ;;
        *"not found"* | *"doesn't exist"* | *"couldn't be found"*)
            die "the server $remote answers, but has no image $alias. Set stt:image to one of 'incus image list $remote:', then run this again." ;;
    esac
    say "WARNING: the image server '$remote' cannot be reached: $(printf '%s\n' "${answer:-no answer in 20 s}" | tail -n 1)"
    return 1
}

# A name that no server has shall not get a stand-in, but be said.
check_name() {
    case $alias in
        debian/1[2-9]* | ubuntu/2[2-9].*) ;;
        *) die "no stand-in is made for $IMAGE: one can replace only images such as images:debian/12 and images:ubuntu/24.04. Check stt:image, or set it to a local image ('incus image list'), then run this again." ;;
    esac
}

check_host() {
    case $(os_release ID) in
        debian | ubuntu) ;;
        *) die "a stand-in can be built on Debian and Ubuntu only, and this is $(os_release PRETTY_NAME). Set stt:image to a local image ('incus image list'), then run this again." ;;
    esac
    [ -n "$(apt_source "$(os_release VERSION_CODENAME)")" ] ||
        die "this host has no package source for $(os_release VERSION_CODENAME), from which to build a stand-in. Add one under /etc/apt, or set stt:image to a local image, then run this again."
}

need_tools() {
    set --
    have debootstrap || set -- "$@" debootstrap
    have mksquashfs || set -- "$@" squashfs-tools
    have gpgv || set -- "$@" gpgv
    have xz || set -- "$@" xz-utils
    [ $# -eq 0 ] || apt_install "installing tools" "$@"
}

# shellcheck disable=SC2317,SC2329 # the traps call it
clean_up() {
    stop_child KILL
    [ -z "$work" ] || rm -rf --one-file-system "$work"
    work=
}

# One build at a time. What lies about once the lock is ours is from a build that was killed.
only_one() {
    mkdir -p "$ROOT/run/lock"
    exec 9>"$LOCK"
    take_lock "another build is running"
    rm -rf --one-file-system "$TMP"/incus-stt-image.??????
}

# A stand-in for another name is the same image: give it this name too.
adopt() {
    fingerprint=$(images list --format csv --columns F "variant=incus-stt" "release=$(os_release VERSION_CODENAME)" "architecture=$(uname -m)" | head -n 1)
    [ -n "$fingerprint" ] || return 1
    # The API, since the client of Incus 6.0.0 takes no description.
    ask_incus query -X POST "/1.0/images/aliases?project=default" >/dev/null --data \
        "{\"name\": \"$STANDIN\", \"target\": \"$fingerprint\", \"description\": \"$(os_name) in place of $IMAGE, built on this host\"}" ||
        usable "$STANDIN" || return 1
}

# shellcheck disable=SC2317,SC2329 # `long` calls it
far() {
    [ -n "$work" ] || return 0
    # It came at some time since the last line.
    [ -e "$work/fetched" ] || ! image_fetched "$LOG" || echo $(($1 - EVERY / 10)) >"$work/fetched"
    told=$(image_progress "$LOG" "$1" "$(cat "$work/fetched" 2>/dev/null || :)")
    printf '%s' "${told:+: $told}"
}

build() {
    free=$(df -Pk "$TMP" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge 2048 ] || die "building needs 2048 MiB in $TMP and $free MiB are free. Free some, or set TMPDIR to another directory, then run this again."
    clean_up_at_end
    work=$(mktemp -d "$TMP/incus-stt-image.XXXXXX")
    chmod 755 "$work"
    proxy=$(apt-config dump --format '%v' Acquire::http::Proxy 2>/dev/null || :)
    [ -z "$proxy" ] || export http_proxy="${http_proxy:-$proxy}"
    # Nothing of the build outlives this script, not even where it is killed: its mounts and processes
    # are in namespaces of their own, which end with it.
    as_root_long "building the image" setpriv --pdeathsig KILL \
        unshare --mount --propagation private --pid --fork --kill-child sh "$HERE/lib/rootfs.sh" "$work" ||
        failed_step "the stand-in for $IMAGE could not be built" "See that 'apt-get update' works on this host, or set stt:image to a local image, then run this again."
    long "importing the image" incus --project default image import "$work/metadata.tar.xz" "$work/rootfs.squashfs" ||
        failed_step "Incus did not accept the image" "Fix what the lines above report, then run this again."
}

main() {
    { have incus && ask_incus query /1.0 >/dev/null 2>&1; } ||
        die "Incus does not answer. Run 'sh $HERE/incus.sh' first."
    [ "$remote" != local ] || check_local
    ! usable "$STANDIN" || use_standin
    ! ask_server || use "$IMAGE"
    check_name
    check_host
    ! adopt || use_standin
    say "WARNING: building $(os_name) from this host's own package sources, to stand in for $IMAGE"
    if ! is_root; then
        say "debootstrap needs root. Run:  sudo sh $(quote "$HERE/image.sh" "$IMAGE")"
        say "or set stt:image to a local image ('incus image list')."
        exit 3
    fi
    only_one
    ! usable "$STANDIN" || use_standin
    ! adopt || use_standin
    open_log image.log
    need_tools
    build
    adopt || die "Incus took the image but does not list it. Look at 'incus image list', then run this again."
    use_standin
}

main
