# shellcheck shell=sh
# took STEP BEGAN: milliseconds since then, for the outputs.
took() { say "took: $1=$((($(date +%s%N) - $2) / 1000000))"; }
say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# lock SERVICE: what an `up` that was cut off has started in this machine may still be at work.
lock() {
  exec 9>"/run/lock/incus-stt-$1"
  flock -n 9 || {
    say "waiting for what an earlier up began in this machine"
    flock -w 1800 9 || fail "an earlier script of $1 has not ended in 30 minutes. Look at it (ps aux), or restart the machine."
  }
}

# put PATH MODE OWNER TEXT: writes beside, then renames.
put() {
  mkdir -p "$(dirname "$1")"
  (umask 077; printf '%s' "$4" >"$1.incus-stt")
  chown "$3" "$1.incus-stt"
  chmod "$2" "$1.incus-stt"
  mv -f "$1.incus-stt" "$1"
}

{% include "seal.sh" %}

# aside DIR: makes room for a new DIR; a complete old one comes back where the script fails.
aside() {
  if [ -e "$1/.seal" ]; then
    rm -rf "$1.before"
    mv "$1" "$1.before"
    before=$1
    trap '[ $? -eq 0 ] || { rm -rf "$before" && mv "$before.before" "$before"; }; rm -rf "$before.before"' EXIT
  fi
  rm -rf "$1"
}

# user NAME UID HOME: the uid is fixed, for files on a volume outlive the machine.
user() {
  getent passwd "$1" >/dev/null ||
    useradd --system --user-group --uid "$2" --home-dir "$3" --shell /usr/sbin/nologin "$1"
  install -d -o "$1" -g "$1" -m 0750 "$3"
}

# packages NAME…: installs what is missing.
packages() {
  dpkg-query -W -f '${db:Status-Status} ' "$@" 2>/dev/null | grep -q . &&
    [ "$(dpkg-query -W -f '${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed)" = $# ] &&
    return 0
  export DEBIAN_FRONTEND=noninteractive
  set -- -q -y --no-install-recommends -o DPkg::Lock::Timeout=600 install "$@"
  log=$(mktemp)
  { apt-get -q -o DPkg::Lock::Timeout=600 update && apt-get "$@"; } >"$log" 2>&1 || {
    tail -n 5 "$log" >&2
    fail "apt-get could not install packages. Check the machine's network (Docker on the host cuts containers off: it sets FORWARD to DROP) and its disk, then run up again."
  }
  rm -f "$log"
}

# The machine's own bundle, also for programs that bring another one (uv, pip, requests, curl).
CA=/etc/ssl/certs/ca-certificates.crt
export SSL_CERT_FILE=$CA REQUESTS_CA_BUNDLE=$CA CURL_CA_BUNDLE=$CA PIP_CERT=$CA
export UV_CACHE_DIR=/var/cache/incus-stt/uv UV_LINK_MODE=hardlink UV_NO_PROGRESS=1 UV_PYTHON_INSTALL_DIR=/opt/incus-stt/python
UV=/opt/incus-stt/uv/bin/uv
