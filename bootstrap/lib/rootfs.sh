#!/bin/sh
# rootfs.sh DIR: builds the stand-in image's two parts, DIR/metadata.tar.xz and DIR/rootfs.squashfs,
# from the host's own package sources. Run by image.sh as root in a mount namespace of its own, so
# that nothing which is mounted here outlives it.
set -eu
HERE=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=say.sh
. "$HERE/lib/say.sh"
# shellcheck source=apt.sh
. "$HERE/lib/apt.sh"

WORK=$1
TREE=$WORK/rootfs
SUITE=$(os_release VERSION_CODENAME)
INCLUDE=systemd,systemd-sysv,systemd-resolved,libnss-resolve,udev,dbus,iproute2,netbase,procps
INCLUDE=$INCLUDE,ca-certificates,curl,python3,python3-venv,tar,xz-utils,zstd
export DEBIAN_FRONTEND=noninteractive
# The tree is thrown away where the build fails: no need to sync every file.
export DPKG_FORCE=unsafe-io

bootstrap_tree() {
    main=$(apt_source "$SUITE")
    uri=$(plain_uri "$(field "$main" 1)")
    key=$(field "$main" 4)
    case $(os_release ID) in ubuntu) components=main,universe ;; *) components=main ;; esac
    set -- --variant=minbase --components="$components" --include="$INCLUDE" --merged-usr
    case $key in /*) set -- "$@" --force-check-gpg --keyring="$ROOT$key" ;; esac
    debootstrap "$@" "$SUITE" "$TREE" "$uri"
}

# The suite, its updates and its security fixes, as the host has them; with their keys.
write_sources() {
    rm -f "$TREE"/etc/apt/sources.list "$TREE"/etc/apt/sources.list.d/*
    tab=$(printf '\t')
    apt_sources | awk -F '\t' -v s="$SUITE" '$2 == s || $2 == s "-updates" || $2 == s "-security"' |
        while IFS=$tab read -r uri suite components key; do
            case $key in
                /*) [ -e "$TREE$key" ] || install -D -m 644 "$ROOT$key" "$TREE$key" ;;
            esac
            apt_stanza "$(plain_uri "$uri")" "$suite" "$components" "$key"
            echo
        done >"$TREE/etc/apt/sources.list.d/incus-stt.sources"
    # A mirror that stalls for the host does so for its containers.
    for option in Acquire::Check-Valid-Until Acquire::Check-Date; do
        case $(apt-config dump --format '%v' "$option" 2>/dev/null) in
            false | no | 0) echo "$option \"false\";" ;;
        esac
    done >"$TREE/etc/apt/apt.conf.d/90incus-stt-host"
}

copy_certificates() {
    into=$TREE/usr/local/share/ca-certificates
    mkdir -p "$into"
    bundle=${SSL_CERT_FILE:-$ROOT/etc/ssl/certs/ca-certificates.crt}
    [ -r "$bundle" ] || bundle=/dev/null
    stock=$TREE/etc/ssl/certs/ca-certificates.crt
    find "$ROOT/usr/share/ca-certificates" -name '*.crt' >"$WORK/stock" 2>/dev/null || :
    find "$ROOT/usr/local/share/ca-certificates" -name '*.crt' >"$WORK/local" 2>/dev/null || :
    # shellcheck disable=SC2046 # the names of certificate files have no spaces (ca-certificates has the same rule)
    awk -v dir="$into" -f "$HERE/lib/certs.awk" stock=1 "$stock" $(cat "$WORK/stock") stock=0 "$bundle" $(cat "$WORK/local")
    chroot "$TREE" update-ca-certificates
}

# debootstrap knows one suite; the fixes since its release come from the others.
install_updates() {
    mount -t proc proc "$TREE/proc"
    rm -f "$TREE/etc/resolv.conf"
    cat "$ROOT/etc/resolv.conf" >"$TREE/etc/resolv.conf"
    printf '#!/bin/sh\nexit 101\n' >"$TREE/usr/sbin/policy-rc.d"
    chmod +x "$TREE/usr/sbin/policy-rc.d"
    chroot "$TREE" apt-get -q -o Acquire::Languages=none update
    chroot "$TREE" apt-get -y -q --no-install-recommends dist-upgrade
    chroot "$TREE" apt-get clean
    rm -f "$TREE/usr/sbin/policy-rc.d"
    umount "$TREE/proc"
}

set_up_network() {
    mkdir -p "$TREE/etc/systemd/network" "$TREE/etc/systemd/system/systemd-networkd-wait-online.service.d"
    # The MAC address as client id: copies of the image have no id of their own yet.
    cat >"$TREE/etc/systemd/network/eth0.network" <<'END'
[Match]
Name=eth0

[Link]
RequiredForOnline=yes
RequiredFamilyForOnline=ipv4

[Network]
DHCP=yes
LinkLocalAddressing=ipv6

[DHCPv4]
ClientIdentifier=mac
UseDomains=true

[DHCPv6]
UseDomains=true
END
    # Boot goes on after 10 s where no address comes.
    cat >"$TREE/etc/systemd/system/systemd-networkd-wait-online.service.d/short.conf" <<'END'
[Service]
ExecStart=
ExecStart=-/lib/systemd/systemd-networkd-wait-online --interface=eth0 --timeout=10
END
    chroot "$TREE" systemctl enable systemd-networkd systemd-networkd-wait-online systemd-resolved
    ln -sf ../run/systemd/resolve/stub-resolv.conf "$TREE/etc/resolv.conf"
}

clean_tree() {
    : >"$TREE/etc/machine-id"
    rm -rf "$TREE"/var/lib/apt/lists/* "$TREE"/var/cache/apt/* "$TREE"/var/log/*.log "$TREE"/var/log/apt \
        "$TREE"/tmp/* "$TREE"/var/lib/dbus/machine-id "$TREE"/etc/hostname "$TREE"/var/cache/debconf/*-old
    find "$TREE/dev" -mindepth 1 -delete
}

pack() {
    name=$(os_name)
    mkdir -p "$WORK/templates"
    echo '{{ instance.name }}' >"$WORK/templates/hostname.tpl"
    printf '127.0.0.1\tlocalhost\n127.0.1.1\t{{ instance.name }}\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$WORK/templates/hosts.tpl"
    cat >"$WORK/metadata.yaml" <<END
architecture: $(uname -m)
creation_date: $(date +%s)
properties:
  os: $(os_release ID)
  release: $SUITE
  architecture: $(dpkg --print-architecture)
  variant: incus-stt
  serial: "$(date -u +%Y%m%d_%H:%M)"
  description: "$name, built on this host by incus-stt in place of an image from a server that did not answer"
templates:
  /etc/hostname: {when: [create, copy], template: hostname.tpl}
  /etc/hosts: {when: [create, copy], template: hosts.tpl}
END
    tar -C "$WORK" -cJf "$WORK/metadata.tar.xz" metadata.yaml templates
    mksquashfs "$TREE" "$WORK/rootfs.squashfs" -noappend -no-progress -quiet -comp zstd -Xcompression-level 3
}

bootstrap_tree
write_sources
copy_certificates
install_updates
set_up_network
clean_tree
pack
