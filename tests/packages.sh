#!/usr/bin/env bash
# Installs the Debian packages that the tests run against: real servers, not imitations. Does nothing if they are there.
set -euo pipefail
packages=(nginx-light openssl)
# What was removed is known to dpkg too, so each must say that it is installed.
states=$(dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | sort -u) && [ "$states" = installed ] && exit 0
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
# A daemon that a package would start by itself is of no use here: each test starts its own.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
"${as_root[@]}" apt-get update --quiet=2
"${as_root[@]}" apt-get install --quiet=2 --no-install-recommends "${packages[@]}"
