#!/usr/bin/env bash
# Put the programs that the tests run where they look for them. Nothing is done when all are there.
#
#   install/test-programs.sh
#
# As root on Debian their packages are installed; elsewhere the one command is said instead.
set -euo pipefail

say() { printf 'test-programs: %s\n' "$*" >&2; }

# Program, package that brings it.
needed=(
    /usr/bin/chromium chromium
    /usr/bin/chromedriver chromium-driver
    /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf fonts-dejavu-core
    /usr/sbin/nginx nginx-light
    /usr/bin/curl curl
    /usr/bin/wget wget
    /usr/bin/ps procps
    /usr/sbin/krb5kdc krb5-kdc
    /usr/sbin/kadmin.local krb5-admin-server
    /usr/bin/kinit krb5-user
)
missing=()
# Debian keeps each version's server in a folder of its own.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
for ((i = 0; i < ${#needed[@]}; i += 2)); do
    [ -e "${needed[i]}" ] || missing+=("${needed[i + 1]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${missing[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
else
    say "missing. Install with: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
    exit 1
fi
