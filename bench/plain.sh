#!/bin/sh
# The steps of the stack `dev`, as somebody would write them down who never wants to change anything.
# Usage: plain.sh up|down. Needs Incus and the image that `make up` makes.
set -eu
cd "$(dirname "$0")/.."
PROJECT=stt-bench BRIDGE=net-stt-bench SUBNET=10.213.77
IMAGE=incus-stt/images/debian/12
# Packages over a slow line take minutes; what takes longer hangs.
incus() { timeout 1800 incus "$@"; }
in_project() { incus --project "$PROJECT" "$@"; }
inside() { in_project exec gpu-server -- "$@"; }

# wait_for WHAT COMMAND…: until it succeeds, for two minutes.
wait_for() {
    what=$1 end=$(($(date +%s) + 120))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || { echo "plain.sh: $what: not within 120 s" >&2; exit 1; }
        sleep 0.2
    done
}
is_up() { inside systemctl is-system-running </dev/null 2>/dev/null | grep -qE 'running|degraded'; }
has_network() { inside getent hosts gpu-server </dev/null >/dev/null && inside ip -4 route show default </dev/null | grep -q .; }
is_healthy() { inside curl --silent --fail http://127.0.0.1:8000/health </dev/null >/dev/null; }

down() {
    in_project delete --force gpu-server </dev/null 2>/dev/null || :
    in_project storage volume delete default models </dev/null 2>/dev/null || :
    printf 'config: {}\ndevices: {}\n' | in_project profile edit default 2>/dev/null || :
    incus network delete "$BRIDGE" </dev/null 2>/dev/null || :
    incus project delete "$PROJECT" </dev/null 2>/dev/null || :
}

up() {
    incus project create "$PROJECT" -c features.images=false -c features.networks=false </dev/null
    incus network create "$BRIDGE" ipv4.address="$SUBNET.254/24" ipv4.nat=true ipv6.address=none </dev/null
    in_project profile edit default <<YAML
devices:
  eth0: {type: nic, network: $BRIDGE, name: eth0}
  root: {type: disk, pool: default, path: /}
YAML
    in_project storage volume create default models </dev/null
    in_project create "$IMAGE" gpu-server </dev/null
    in_project config device override gpu-server eth0 ipv4.address="$SUBNET.1" </dev/null
    in_project config device add gpu-server models disk pool=default source=models path=/srv/models </dev/null
    in_project start gpu-server </dev/null
    wait_for "the machine is up" is_up
    wait_for "the machine has a network" has_network

    inside useradd --system --user-group --uid 901 --home-dir /var/lib/stt --create-home stt </dev/null
    inside mkdir -p /opt/stt /srv/models/stt /etc/stt </dev/null
    tar -cf - stt_server | inside tar -C /opt/stt --no-same-owner -xf -
    tar -C models -cf - tiny-digits | inside tar -C /srv/models/stt --no-same-owner -xf -
    inside tee /opt/stt/recording.wav <recordings/one_two_three.wav >/dev/null
    inside dpkg-query -W ca-certificates curl python3 python3-venv xz-utils zstd </dev/null >/dev/null
    inside python3 -m venv /opt/uv </dev/null
    inside /opt/uv/bin/pip install --quiet --disable-pip-version-check uv==0.8.22 </dev/null
    inside /opt/uv/bin/uv venv --quiet --python '>=3.11,<3.14' /opt/stt/venv </dev/null
    inside env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt /opt/uv/bin/uv pip install --quiet --compile-bytecode \
        --require-hashes --python /opt/stt/venv/bin/python -r /opt/stt/stt_server/locks/requirements.txt </dev/null
    head -c 32 /dev/urandom | base64 -w 0 | tr '+/' '-_' | tr -d '=' | inside sh -c 'umask 077; cat >/etc/stt/key; chown stt /etc/stt/key'
    inside tee /etc/stt/stt.env >/dev/null <<'ENVIRONMENT'
STT_ENGINE=whisper
STT_HOST=0.0.0.0
STT_PORT=8000
STT_MODEL_DIR=/srv/models/stt/tiny-digits
STT_MODEL_NAME=tiny-digits
STT_DEVICE=cpu
STT_COMPUTE_TYPE=int8
STT_KEEP_ALIVE=300
STT_API_KEY_FILE=/etc/stt/key
HF_HUB_OFFLINE=1
ORT_DISABLE_TELEMETRY=1
PYTHONPATH=/opt/stt
ENVIRONMENT
    inside env HF_HUB_OFFLINE=1 PYTHONPATH=/opt/stt STT_ENGINE=whisper STT_DEVICE=cpu STT_COMPUTE_TYPE=int8 \
        STT_MODEL_DIR=/srv/models/stt/tiny-digits STT_MODEL_NAME=tiny-digits \
        /opt/stt/venv/bin/python -m stt_server.check_model </dev/null
    inside tee /etc/systemd/system/stt.service >/dev/null <<'UNIT'
[Service]
Type=notify
User=stt
EnvironmentFile=/etc/stt/stt.env
ExecStart=/opt/stt/venv/bin/python -m stt_server
Restart=on-failure
[Install]
WantedBy=multi-user.target
UNIT
    inside systemctl daemon-reload </dev/null
    inside systemctl enable --quiet --now stt </dev/null
    wait_for "the service answers" is_healthy
    # shellcheck disable=SC2016 # the key is read in the machine
    inside sh -c '{ printf "Authorization: Bearer "; cat /etc/stt/key; } | curl --silent --fail -H @- -F file=@/opt/stt/recording.wav -F model=tiny-digits http://127.0.0.1:8000/v1/audio/transcriptions' </dev/null
    echo
}

case ${1:-} in
    up | down) "$1" ;;
    *) echo "usage: plain.sh up|down" >&2; exit 2 ;;
esac
