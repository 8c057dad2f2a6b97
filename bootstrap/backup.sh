#!/bin/sh
# Saves a stack as one archive, or restores it. Usage: backup.sh save STACK [OPTION…]
#                                                       backup.sh restore [OPTION…]
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=lib/pulumi.sh
. "$HERE/lib/pulumi.sh"
cd "$HERE/.."

find_cli
find_backend
if [ "$1" = save ]; then
    say "stack $2"
    has_stack "$2" || die "there is no state of a stack $2 here. Name one that was built: make backup STACK=NAME"
    find_state "$2"
else
    make_state
fi
exec .venv/bin/python -m backup "$@"
