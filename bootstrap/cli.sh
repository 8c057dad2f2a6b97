#!/bin/sh
# Makes sure of the Pulumi CLI and its plugins, and prints shell code that puts them on PATH. With a
# stack, selects it too, so that plain `pulumi` works: eval "$(bootstrap/cli.sh STACK)", as `make env`.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=lib/pulumi.sh
. "$HERE/lib/pulumi.sh"
cd "$HERE/.."

find_cli
find_plugins
collect_seldom
if [ $# -gt 0 ]; then
    find_backend
    say "stack $1"
    find_state "$1"
    select_stack "$1" >&2
fi
# shellcheck disable=SC2016 # the reader's PATH
printf 'export PATH=%s"$PATH"%s\n' "${path_first:+$(quote "$path_first:")}" "${path_last:+$(quote ":$path_last")}"
for name in PULUMI_CONFIG_PASSPHRASE_FILE PULUMI_SKIP_UPDATE_CHECK PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION GOGC; do
    eval "value=\${$name:-}"
    # shellcheck disable=SC2154 # eval sets it
    [ -z "$value" ] || printf 'export %s=%s\n' "$name" "$(quote "$value")"
done
