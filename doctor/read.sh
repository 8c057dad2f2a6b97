#!/bin/sh
# Reads what `make doctor` judges, where incus runs. It changes nothing and needs no room on a disk.
# Usage: read.sh TOKEN KIND POOL FIELDS PLACE…   KIND: local, ssh or incus (of a remote, only its API is read); FIELDS: of
# nvidia-smi; PLACE: a directory.
# Each answer is a line "TOKEN NAME STATUS" and what the program said.
set -u
token=$1 kind=$2 pool=$3 fields=$4
shift 4
# Without a login, tools of root are not on PATH.
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C GOMAXPROCS=1

# look NAME COMMAND…
look() {
    name=$1
    shift
    status=0
    said=$(timeout 15 "$@" 2>&1 </dev/null) || status=$?
    printf '%s %s %s\n%s\n' "$token" "$name" "$status" "$said"
    return "$status"
}

# The vendor, class and address of every PCI device that is a display or a 3D controller.
cards() {
    for each in /sys/bus/pci/devices/*; do
        case $(cat "$each/class" 2>/dev/null) in 0x03*) echo "$(cat "$each/vendor") ${each##*/}" ;; esac
    done
}

look client incus --version
# Of a daemon that hangs, one question is enough.
if look server incus query /1.0; then
    look resources incus query /1.0/resources
    look networks incus query '/1.0/networks?recursion=1'
    look pools incus query '/1.0/storage-pools?recursion=1'
    look pool incus query "/1.0/storage-pools/$pool/resources"
    look instances incus query '/1.0/instances?recursion=1&all-projects=true'
    look members incus query '/1.0/cluster/members?recursion=1'
fi
[ "$kind" != incus ] || exit 0

look system cat /etc/os-release
look kernel uname -r
look user id -u
look groups id -nG
look cards echo "$(cards)"
look nvidia_smi nvidia-smi "--query-gpu=$fields" --format=csv,noheader,nounits
look toolkit nvidia-container-cli --version
# Of every interface, also of one without an IPv4 address.
look addresses ip -json address
look routes ip -json -4 route
look ip_forward cat /proc/sys/net/ipv4/ip_forward
look inotify cat /proc/sys/fs/inotify/max_user_instances
look bridge_filter cat /proc/sys/net/bridge/bridge-nf-call-iptables
look nft nft --json list ruleset
look conntrack conntrack --version
if [ "$(id -u)" = 0 ]; then
    look tables nft list tables
else
    look sudo sudo -n true
    look tables sudo -n nft list tables
fi
look iptables iptables -S
look synchronized timedatectl show --property=NTPSynchronized --value
look disks df -Pk / "$@"
look inodes df -Pi / "$@"
# The last one, for what comes after it is this computer's clock.
look clock date +%s
exit 0
