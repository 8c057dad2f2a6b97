# shellcheck shell=sh
# What the host says about its own distribution and package sources.

os_release() {
    # shellcheck disable=SC1090,SC1091
    (. "$ROOT/etc/os-release" && eval "printf '%s\n' \"\${$1:-}\"")
}

# Debian 12, Ubuntu 24.04
os_name() { echo "$(os_release NAME | sed 's| GNU/Linux||') $(os_release VERSION_ID)"; }

# uri, suite, components, signed-by (tabs between) of everything that is configured.
apt_sources() {
    set --
    for file in "$ROOT"/etc/apt/sources.list "$ROOT"/etc/apt/sources.list.d/*.list "$ROOT"/etc/apt/sources.list.d/*.sources; do
        [ ! -r "$file" ] || set -- "$@" "$file"
    done
    [ $# -eq 0 ] || awk -f "$HERE/lib/sources.awk" "$@"
}

# The first source of SUITE that has the component main.
apt_source() { apt_sources | awk -F '\t' -v suite="$1" '$2 == suite && (" " $3 " ") ~ / main / { print; exit }'; }

field() { printf '%s\n' "$1" | cut -f "$2"; }

# apt_stanza URI SUITE COMPONENTS SIGNED-BY, in deb822.
apt_stanza() {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n' "$1" "$2" "$3"
    [ -z "$4" ] || printf 'Signed-By:%b\n' "$(case $4 in '\n'*) ;; *) printf ' ' ;; esac)$4"
}

# Cloud images name a list of mirrors instead of a mirror; debootstrap wants one.
plain_uri() {
    case $1 in
        mirror+file:*)
            list=$ROOT$(printf '%s\n' "$1" | sed 's|^mirror+file:/*|/|')
            awk '/^[^#[:space:]]/ { print $1; exit }' "$list" ;;
        *) printf '%s\n' "$1" ;;
    esac
}

apt_lists_fresh() { [ -n "$(find "$ROOT/var/lib/apt/lists" -maxdepth 1 -name "*dists_${1}_*Release" -mtime -1 2>/dev/null | head -n 1)" ]; }

apt_has() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

# apt_get WHY ARGUMENTS…
apt_get() {
    why=$1
    shift
    as_root_long "$why" env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=120 "$@"
}

# apt_install WHY PACKAGES…; APT_RELEASE is apt's -t.
apt_install() {
    why=$1
    shift
    apt_get "$why" install --no-install-recommends ${APT_RELEASE:+-t "$APT_RELEASE"} "$@" ||
        failed_step "apt could not install $*" "See that 'apt-get update' works and this host's sources are complete, then run this again."
}

apt_update() {
    apt_get "refreshing the package lists" update "$@" ||
        failed_step "apt could not refresh its lists" "Check this host's package sources and network, then run this again."
}
