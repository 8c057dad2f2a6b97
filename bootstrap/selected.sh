#!/bin/sh
# Prints the stack that is selected here, as `pulumi stack select` and every `make … STACK=` leave it; dev where none is.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=lib/pulumi.sh
. "$HERE/lib/pulumi.sh"
cd "$HERE/.."
have pulumi || PATH=$CLI:$PATH
have pulumi || { echo dev; exit; }
if ! selected=$(pulumi stack --show-name --non-interactive 2>/dev/null); then
    # None is selected, or Pulumi cannot say: then `dev` would be a guess.
    find_backend
    [ -z "$shared" ] || pulumi whoami --non-interactive >/dev/null || exit 1
fi
printf '%s\n' "${selected:-dev}"
