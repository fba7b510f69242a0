#!/bin/sh
# Installs what building needs and a bare Debian with Go lacks: a C compiler, the C library's headers and
# libpcap's. Each argument, COMMAND:PACKAGE, adds a package that is wanted where the command is missing.
# Nothing is done, and nothing said, where all is there. Says what it installs, and with what; where it can't,
# says what to install and fails.
set -eu

if ! command -v go >/dev/null 2>&1; then
	echo "gopassivedns: go is not in PATH; install Go 1.26 or later first" >&2
	exit 1
fi

cc=$(go env CC)
links() { # program text on stdin, linker flags as arguments
	printf '%s\n' "$program" | $cc -x c -o /dev/null - "$@" >/dev/null 2>&1
}

missing=
command -v "${cc%% *}" >/dev/null 2>&1 || missing="$missing gcc"
program='#include <stdlib.h>
int main(void) { return abs(0); }'
links || missing="$missing libc6-dev"
program='#include <pcap.h>
int main(void) { return pcap_lib_version() == 0; }'
links -lpcap || missing="$missing libpcap-dev"
for want in "$@"; do
	command -v "${want%%:*}" >/dev/null 2>&1 || missing="$missing ${want##*:}"
done
if [ -z "$missing" ]; then
	exit 0
fi

give_up() {
	echo "gopassivedns: $1; these Debian packages are missing:$missing" >&2
	echo "hint: apt-get install$missing" >&2
	exit 1
}

command -v apt-get >/dev/null 2>&1 || give_up "no apt-get here"
as_root=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null 2>&1 || give_up "neither root nor sudo"
	as_root=sudo
fi
echo "gopassivedns: installing$missing with ${as_root:+sudo }apt-get" >&2
apt() {
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >&2
}
apt update || echo "gopassivedns: apt-get update failed; trying with the package lists that are here" >&2
# shellcheck disable=SC2086 # a list of names
apt install -y --no-install-recommends $missing || give_up "apt-get install failed"
