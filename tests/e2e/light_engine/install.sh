# shellcheck shell=sh
test -d "$STT_FILES"
echo 'light is installed'
