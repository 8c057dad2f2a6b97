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
selected=$(pulumi stack --show-name --non-interactive 2>/dev/null) || selected=
printf '%s\n' "${selected:-dev}"
