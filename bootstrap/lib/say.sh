# shellcheck shell=sh
# Messages, errors, and doing things as root: shared by the scripts of bootstrap/.
# STT_ROOT is a prefix for the host's own files; only the tests set it.

ROOT=${STT_ROOT:-}
LOG_DIR=${STT_LOG_DIR:-$ROOT/var/log/incus-stt}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL

plan=
child=
# Between two lines of a long command, in fifths of a second.
EVERY=${STT_EVERY:-75}
# Seconds to wait for another process that downloads, installs or builds.
LOCK_DEADLINE=${STT_LOCK_DEADLINE:-7200}
# Seconds that a long command may take: a build, or packages over a slow line.
LONG_DEADLINE=${STT_LONG_DEADLINE:-7200}
# Seconds that Incus may take to answer what takes it no time.
INCUS_DEADLINE=${STT_INCUS_DEADLINE:-60}

say() { printf 'incus-stt: %s\n' "$*" >&2; }

die() {
    printf 'incus-stt: error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" = 0 ]; }

# ask_incus WORDS…: the client, for what takes no time. 124: it hung, and was ended.
ask_incus() {
    answered=0
    timeout "$INCUS_DEADLINE" incus "$@" </dev/null || answered=$?
    [ "$answered" -ne 124 ] || say "'incus $*' did not end within $INCUS_DEADLINE s"
    return "$answered"
}

# The words as a line that can be pasted into a shell.
quote() {
    line=
    for word in "$@"; do
        case $word in
            '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'" ;;
        esac
        line="$line${line:+ }$word"
    done
    printf '%s\n' "$line"
}

plan_line() { plan="$plan    $1
"; }

# as_root WHY COMMAND…: says what it does, then does it; without root it only notes the command.
as_root() {
    why=$1
    shift
    if is_root; then
        say "$why: $(quote "$@")"
        "$@"
    else
        plan_line "$(quote "$@")"
    fi
}

# The same for long commands: the output goes to LOG, and a progress line is printed now and then.
as_root_long() {
    why=$1
    shift
    if is_root; then
        say "$why: $(quote "$@")"
        long "$why" "$@"
    else
        plan_line "$(quote "$@")"
    fi
}

# far SECONDS: how far a long command is, with a colon before it; a script that knows defines its own.
far() { :; }

long() {
    what=$1
    shift
    # A process group of its own, so that an interrupt can end all of it.
    setsid "$@" >>"$LOG" 2>&1 </dev/null &
    child=$!
    ticks=0
    while kill -0 "$child" 2>/dev/null; do
        sleep 0.2
        ticks=$((ticks + 1))
        [ $((ticks % EVERY)) -ne 0 ] || say "  … $what, $((ticks / 5)) s$(far $((ticks / 5)))"
        [ "$ticks" -lt $((LONG_DEADLINE * 5)) ] || {
            say "  … $what: stopped after $LONG_DEADLINE s"
            stop_child KILL
            return 124
        }
    done
    rc=0
    wait "$child" || rc=$?
    child=
    return "$rc"
}

# Ends the long command that runs and all that it started; SIGKILL if nothing needs to clean up.
stop_child() {
    [ -n "$child" ] || return 0
    # In this form only: dash does not understand -TERM together with --.
    kill -s "${1:-TERM}" -- "-$child" 2>/dev/null || :
    wait "$child" 2>/dev/null || :
    child=
}

# Has the script's clean_up run when it ends, however it ends.
clean_up_at_end() {
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# write_file WHY FILE TEXT
write_file() {
    if is_root; then
        say "$1: writing $2"
        mkdir -p "$(dirname "$2")"
        printf '%s\n' "$3" >"$2.new"
        mv "$2.new" "$2"
    else
        plan_line "cat > $2 <<'EOF'
$3
EOF"
    fi
}

# take_lock WHO: locks the open file 9; if it is locked, it waits for WHO.
take_lock() {
    flock -n 9 && return 0
    say "$1, waiting for it"
    flock -w "$LOCK_DEADLINE" 9 ||
        die "$1, and did not finish within $LOCK_DEADLINE s. See what it does ('ps aux'), end it if it hangs, then run this again."
}

# append_line WHY FILE LINE
append_line() {
    if is_root; then
        say "$1: adding $3 to $2"
        # A last line without an end would swallow ours.
        [ ! -s "$2" ] || [ -z "$(tail -c 1 "$2")" ] || echo >>"$2"
        printf '%s\n' "$3" >>"$2"
    else
        plan_line "echo $3 >> $2"
    fi
}

open_log() {
    is_root || return 0
    LOG=$LOG_DIR/$1
    mkdir -p "$LOG_DIR"
    : >"$LOG"
}

# failed_step WHAT NEXT: the reason from the log if it is a known one, else its last lines.
failed_step() {
    if grep -qi 'no space left' "$LOG"; then
        die "$1: the disk is full. Free some space ($(df -hP "$ROOT/var" | awk 'NR == 2 { print $4 " free on " $6 }')) and run this again. Log: $LOG"
    fi
    if grep -q 'Could not get lock' "$LOG"; then
        die "$1: another package manager is running. Run this again when it has finished. Log: $LOG"
    fi
    if grep -q 'dpkg was interrupted' "$LOG"; then
        die "$1: an earlier installation was cut off. Run 'sudo dpkg --configure -a', then run this again. Log: $LOG"
    fi
    grep -v '^[[:space:]]*$' "$LOG" | tail -n 8 | sed 's/^/    /' >&2 || :
    die "$1. $2 Log: $LOG"
}

# need_root COMMAND: ends the script if something was left for root.
need_root() {
    [ -n "$plan" ] || return 0
    say "this needs root. Either run:  sudo $1"
    say "or let root run these commands:"
    printf '%s' "$plan" >&2
    exit 3
}
