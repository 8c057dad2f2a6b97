#!/bin/sh
# Runs Pulumi on a stack: the CLI on PATH, else the pinned one from Pulumi's own site, else the
# runner of this project. Usage: pulumi.sh STACK up|preview|drift|destroy|outputs [ARGUMENT…]
# drift prints where the host differs from the stack; exit status 2 where it does.
# RUNNER=1 takes the runner in any case.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
cd "$HERE/.."

PULUMI_VERSION=3.259.0
COMMAND_VERSION=1.2.1
stack=$1 verb=$2
shift 2

# Pulumi's file backend does not make its directory.
mkdir -p state
# A passphrase for the secrets in the state, made once, where the operator has set none.
if [ -z "${PULUMI_CONFIG_PASSPHRASE+set}" ] && [ -z "${PULUMI_CONFIG_PASSPHRASE_FILE:-}" ]; then
    PULUMI_CONFIG_PASSPHRASE_FILE=$PWD/state/passphrase
    export PULUMI_CONFIG_PASSPHRASE_FILE
    if [ ! -s "$PULUMI_CONFIG_PASSPHRASE_FILE" ]; then
        (umask 077; head -c 32 /dev/urandom | base64 >"$PULUMI_CONFIG_PASSPHRASE_FILE")
        say "made a passphrase for the secrets in the state: state/passphrase. Keep a copy."
    fi
fi
export PULUMI_SKIP_UPDATE_CHECK=true

use_tools() { PATH=$PWD/.tools/pulumi:$PATH; export PATH; }

# Pulumi's site may be out of reach; it is asked once an hour.
download_cli() {
    case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) return 1 ;; esac
    missed=.tools/pulumi-not-reached
    [ -z "$(find "$missed" -mmin -60 2>/dev/null)" ] || return 1
    mkdir -p .tools
    work=$(mktemp -d -p .tools)
    trap 'rm -rf "$work"' EXIT
    file=pulumi-v$PULUMI_VERSION-linux-$arch.tar.gz
    from=https://github.com/pulumi/pulumi/releases/download/v$PULUMI_VERSION
    say "fetching the Pulumi CLI $PULUMI_VERSION into .tools"
    if curl --fail --silent --location --connect-timeout 10 -o "$work/sums" "$from/pulumi-$PULUMI_VERSION-checksums.txt" &&
        curl --fail --silent --location --retry 2 --connect-timeout 10 -o "$work/$file" "$from/$file" &&
        (cd "$work" && grep " $file\$" sums | sha256sum --check --status) &&
        tar -C "$work" -xzf "$work/$file"; then
        rm -rf .tools/pulumi
        mv "$work/pulumi" .tools/pulumi
    else
        touch "$missed"
        return 1
    fi
}

# The second does nothing where that version is installed.
have_plugin() {
    have pulumi-resource-command ||
        pulumi plugin install resource command "$COMMAND_VERSION" >/dev/null 2>&1
}

# Whether a tool's state has anything in it; each tool goes on with what it made.
made_by() {
    case $1 in
        runner) grep -qs '"inputs"' "state/runner/$stack.json" ;;
        cli) grep -qs '"urn"' "state/.pulumi/stacks/stt/$stack.json" ;;
    esac
}

choose() {
    if made_by runner; then
        say "the stack $stack was made by the runner, which goes on with it"
        return 1
    fi
    if [ -n "${RUNNER:-}" ]; then
        ! made_by cli || die "RUNNER=1: the stack $stack was made by the Pulumi CLI. Leave RUNNER out, or destroy the stack first."
        return 1
    fi
    [ ! -x .tools/pulumi/pulumi ] || use_tools
    if have pulumi || { download_cli && use_tools; }; then
        if have_plugin; then return 0; fi
        why="Pulumi's plugin command $COMMAND_VERSION is not installed and cannot be downloaded"
    else
        why="the Pulumi CLI is not installed and cannot be downloaded"
    fi
    ! made_by cli || die "$why, and the stack $stack was made by the CLI. Install Pulumi $PULUMI_VERSION, then run this again."
    say "$why"
    return 1
}

# Pulumi's own lock outlives a run that was killed; one of a process that is over holds nobody off.
remove_stale_locks() {
    for lock in state/.pulumi/locks/organization/stt/"$stack"/*.json; do
        [ -e "$lock" ] || continue
        pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$lock")
        if grep -q "\"hostname\": *\"$(hostname)\"" "$lock" && [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then
            say "removing the lock of a run that was cut off (process $pid)"
            rm -f "$lock"
        fi
    done
}

if [ "$verb" = drift ]; then
    work=$(mktemp -d -p state)
    trap 'rm -rf "$work"' EXIT
    if ! STT_DRIFT_REPORT=$PWD/$work/drift "$0" "$stack" preview >"$work/said" 2>&1 || [ ! -e "$work/drift" ]; then
        cat "$work/said" >&2
        exit 1
    fi
    cat "$work/drift"
    [ ! -s "$work/drift" ] || exit 2
    exit 0
fi

if choose; then
    remove_stale_locks
    if [ "$verb" = outputs ]; then
        exec pulumi stack output --json --stack "$stack" "$@"
    fi
    pulumi stack select "$stack" 2>/dev/null || pulumi stack init "$stack" ||
        die "Pulumi has no stack $stack and cannot make it (above: why)."
    case $verb in up) set -- --yes --skip-preview "$@" ;; destroy) set -- --yes --skip-preview "$@" ;; esac
    exec pulumi "$verb" --stack "$stack" --suppress-progress "$@"
fi
exec .venv/bin/python -m runner --stack "$stack" "$verb" "$@"
