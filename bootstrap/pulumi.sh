#!/bin/sh
# Runs Pulumi on a stack. Usage: pulumi.sh STACK up|preview|review|drift|destroy|outputs|whole|set [ARGUMENT…]
# whole prints what Pulumi has cut off at the end of an `up` with the same arguments. set KEY VALUE writes a setting into the stack's file.
# drift prints where the host differs from the stack; exit status 2 where it does. review writes a
# comment on what changes from one commit to another. preview, review and drift change nothing.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=lib/pulumi.sh
. "$HERE/lib/pulumi.sh"
cd "$HERE/.."

stack=$1 verb=$2
shift 2

# Whether a process works: one that has ended and was not fetched by its parent yet does not.
runs() { kill -0 "$1" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

# Pulumi's own lock outlives a run that was killed; one of a process that has ended must not block the next run.
# A shared backend's locks are Pulumi's and their owners' matter: the run may be anywhere.
remove_stale_locks() {
    [ -z "$shared" ] || return 0
    for lock in state/.pulumi/locks/organization/stt/"$stack"/*.json; do
        [ -e "$lock" ] || continue
        pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$lock")
        if grep -q "\"hostname\": *\"$(hostname)\"" "$lock" && [ -n "$pid" ] && ! runs "$pid"; then
            say "removing the lock of a run that was cut off (process $pid)"
            rm -f "$lock"
        fi
    done
}

# Asks where somebody is there to answer, and goes on where not.
confirm() {
    [ -t 0 ] || return 0
    printf '%s [y/N] ' "$1" >&2
    read -r answer
    case $answer in [yY] | [yY][eE][sS]) ;; *) die "nothing was changed" ;; esac
}

# A directory that goes with this script.
make_work() {
    work=$(mktemp -d)
    clean_up_at_end
}

# A stack that was never built is previewed in a copy of the project: Pulumi needs a state for it.
enter_copy() {
    make_work
    for entry in * .venv; do
        case $entry in
            state) ;;
            stacks | Pulumi.yaml) cp -R "$entry" "$work" ;;
            *) ln -s "$PWD/$entry" "$work" ;;
        esac
    done
    mkdir "$work/state"
    if ! has_passphrase; then
        if [ -s state/passphrase ]; then
            export PULUMI_CONFIG_PASSPHRASE_FILE="$PWD/state/passphrase"
        else
            export PULUMI_CONFIG_PASSPHRASE=preview
        fi
    fi
    cd "$work"
    plugins=${PULUMI_HOME:-$HOME/.pulumi}/plugins
    mkdir "$work/home"
    [ ! -d "$plugins" ] || ln -s "$plugins" "$work/home"
    export PULUMI_HOME="$work/home" PULUMI_BACKEND_URL="file://$work/state"
    pulumi stack init --no-select "$stack" >/dev/null
}

find_backend
[ "$verb" = whole ] || say "stack $stack${shared:+, whose state others share (its locks: docs/team.md): $backend}"
if [ "$verb" = drift ]; then
    make_work
    if ! STT_DRIFT_REPORT=$work/drift "$0" "$stack" preview >"$work/said" 2>&1 || [ ! -e "$work/drift" ]; then
        cat "$work/said" >&2
        exit 1
    fi
    cat "$work/drift"
    [ ! -s "$work/drift" ] || exit 2
    say "no drift"
    exit 0
fi

case $verb in preview | review) READ_ONLY=yes ;; esac
find_cli
find_plugins
collect_seldom
if [ "$verb" = preview ]; then
    if has_stack "$stack"; then find_state "$stack"; else enter_copy; fi
    pulumi preview --stack "$stack" --suppress-progress "$@"
    exit
fi
if [ "$verb" = review ]; then
    if [ -n "${SANDBOX:-}" ]; then
        set -- --sandbox "$@"
    elif [ -z "${OFFLINE:-}" ] && has_stack "$stack"; then
        find_state "$stack"
        # The previews run in other directories, and a commit may name another backend.
        case $backend in file://./*) backend=file://$PWD/${backend#file://./} ;; esac
        export PULUMI_BACKEND_URL="$backend"
        [ -z "${PULUMI_CONFIG_PASSPHRASE_FILE:-}" ] ||
            PULUMI_CONFIG_PASSPHRASE_FILE=$(realpath "$PULUMI_CONFIG_PASSPHRASE_FILE")
        set -- --deployed "$@"
    fi
    exec .venv/bin/python -m review "$stack" "$@"
fi
find_state "$stack"
remove_stale_locks
if [ "$verb" = outputs ]; then
    exec pulumi stack output --json --stack "$stack" "$@"
fi
if [ "$verb" = whole ]; then
    case "$*" in *--preview-only* | *--suppress-outputs*) exit ;; esac
    line=$(pulumi stack output stt_curl --stack "$stack" 2>/dev/null) || exit 0 # there is no STT service
    # Pulumi shows 150 characters of an output, and half a line cannot be pasted.
    [ ${#line} -le 150 ] || printf 'incus-stt: the whole stt_curl:\n%s\n' "$line" >&2
    exit
fi
select_stack "$stack"
if [ "$verb" = set ]; then
    exec pulumi config set --stack "$stack" -- "$@"
fi
case "$verb $*" in
    *--preview-only*) ;;
    destroy*)
        [ -z "${UNNAMED:-}" ] || [ -t 0 ] || die "name the stack to destroy: make destroy STACK=$stack"
        case " $* " in
            *' --target'*) ;; # not all of it
            *)
                pulumi stack export --stack "$stack" | .venv/bin/python -m operations removal --stack "$stack" >&2 ||
                    say "what will be removed cannot be listed"
                ;;
        esac
        case " $* " in *' --yes '* | *' -y '*) ;; *) confirm "Destroy stack $stack?" ;; esac
        set -- --yes --skip-preview "$@"
        ;;
    up*) set -- --yes --skip-preview "$@" ;;
esac
exec pulumi "$verb" --stack "$stack" --suppress-progress "$@"
