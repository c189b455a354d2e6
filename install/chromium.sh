#!/usr/bin/env bash
# Put Chromium and its driver where tests/browser looks for them. Nothing is done when both are there.
#
#   install/chromium.sh
#
# As root on Debian the two packages are installed; elsewhere the one command is said instead.
set -euo pipefail

say() { printf 'chromium: %s\n' "$*" >&2; }

if [ -x /usr/bin/chromium ] && [ -x /usr/bin/chromedriver ]; then
    exit 0
fi

packages=(chromium chromium-driver fonts-dejavu-core)
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${packages[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
else
    say "missing. Install with: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
    exit 1
fi
