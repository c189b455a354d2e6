#!/usr/bin/env bash
# Build the Dockerfile without Docker, in clean Debian roots, then run what came out of it.
#
#   sudo install/check-dockerfile.sh [FOLDER]
#
# Each stage begins as `debootstrap --variant=minbase`, stripped as the slim images are, and gets
# the RUN, COPY, ENV, WORKDIR and USER of the Dockerfile. Then ENTRYPOINT and CMD are started as
# process 1 of a process namespace, as its user, over a simulated archive; HEALTHCHECK must
# succeed, a PNG come back, and SIGTERM end it with status 0. FOLDER keeps the roots: the last
# stage is FOLDER/final. Needs root, debootstrap, unshare, python3 and some 3 GB of disk.
#
# Not seen by this: Docker's own parser and layers, its seccomp profile, its network.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$(mktemp -d)}
[ $# = 1 ] || trap 'rm -rf "$folder"' EXIT
port=${PORT:-24099}

say() { printf 'check-dockerfile: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The instructions that are understood, one a line: continuations joined, comments dropped.
read_dockerfile() {
    sed -e '/^[[:space:]]*#/d' "$repository/Dockerfile" \
        | sed -e ':a' -e '/\\$/N; s/\\\n[[:space:]]*/ /; ta' -e '/^[[:space:]]*$/d'
}

# ["a", "b"] -> a NUL b NUL
words_of() { python3 -c 'import json, sys; print(*json.loads(sys.argv[1]), sep="\0", end="\0")' "$1"; }

# Mounts live in a namespace of their own and go with it, so a root can be removed at any time.
in_root() {  # ROOT USER WORKDIR COMMAND...; the environment is that of the stage
    local root=$1 user=$2 place=$3
    shift 3
    env -i PATH="$default_path" HOME=/root "${carried[@]}" "${environment[@]}" \
        "$unshare" --mount --pid --fork --kill-child /bin/sh -ec '
            root=$1 user=$2 place=$3; shift 3
            /bin/mount -t proc proc "$root/proc"
            /bin/mount --rbind /dev "$root/dev"
            /bin/mount --bind /sys "$root/sys"
            cd /; exec /usr/sbin/chroot "$root" setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs \
                /bin/sh -ec "cd \"\$0\"; exec \"\$@\"" "$place" "$@"' sh "$root" "$user" "$place" "$@"
}

new_root() {
    [ -e "$folder/base/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$folder/base" >&2
    rm -rf "$1"
    cp -a "$folder/base" "$1"
    # As debian:bookworm-slim is made: no documentation, and none to come.
    rm -rf "$1"/usr/share/{doc,man,info,locale,lintian}/* "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*
    printf 'path-exclude %s\n' '/usr/share/'{doc,man,info,locale,lintian}'/*' >"$1/etc/dpkg/dpkg.cfg.d/docker"
}

# What lets this machine reach the network. Before every RUN: packages write some of it anew.
carry() {
    local file
    for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e "$file" ] || install -D -m 644 "$file" "$root$file"
    done
}

copy() {  # SOURCE... TARGET, below $context
    local sources=("${@:1:$#-1}") target=${*: -1} source
    [[ $target = /* ]] || target=$workdir/$target
    for source in "${sources[@]}"; do
        [ -e "$context/$source" ] || die "COPY: there is no $source"
        if [ -d "$context/$source" ]; then
            mkdir -p "$root/$target"
            cp -a "$context/$source/." "$root/$target/"
        else
            [[ $target != */ ]] || mkdir -p "$root/$target"
            install -D -m "$(stat -c %a "$context/$source")" "$context/$source" \
                "$root/$target$([ ! -d "$root/$target" ] || echo "/${source##*/}")"
        fi
    done
}

unshare=$(command -v unshare)
default_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
carried=() stage=final root='' user=0 workdir=/ environment=() entrypoint=() command=() healthcheck=()
while IFS= read -r pair; do carried+=("$pair"); done < <(env | grep -E '^(PIP_|SSL_|REQUESTS_|(https?|no)_proxy)' || true)
last=$(read_dockerfile | grep -c '^FROM ')

while read -r instruction rest; do
    say "$instruction $rest"
    context=$repository
    case $instruction in
    FROM)
        [[ $rest = debian:bookworm-slim* ]] || die "only debian:bookworm-slim is understood"
        last=$((last - 1))
        [ "$last" = 0 ] && stage=final || stage=${rest##* }
        root=$folder/$stage user=0 workdir=/ environment=()
        new_root "$root" ;;
    ENV) eval "environment+=($rest)" ;;
    RUN)
        carry
        in_root "$root" "$user" "$workdir" /bin/sh -c "$rest" </dev/null >&2 ;;
    WORKDIR) workdir=$rest; mkdir -p "$root$workdir" ;;
    USER) user=$rest ;;
    COPY)
        if [[ $rest = --from=* ]]; then
            context=${rest#--from=} context=$folder/${context%% *} rest=${rest#* }
        fi
        read -ra paths <<<"$rest"
        copy "${paths[@]}" ;;
    HEALTHCHECK) mapfile -d '' healthcheck < <(words_of "${rest#*CMD }") ;;
    ENTRYPOINT) mapfile -d '' entrypoint < <(words_of "$rest") ;;
    CMD) mapfile -d '' command < <(words_of "$rest") ;;
    EXPOSE) ;;
    *) die "$instruction is not understood" ;;
    esac
done < <(read_dockerfile)

carried=() # an image has nothing of this machine's
rm -f "$root"/etc/{resolv,pip}.conf "$root/etc/ssl/certs/ca-certificates.crt"
say "the final root is $(du -sm "$root" | cut -f1) MB, $(du -sm "$root/opt" | cut -f1) of them in /opt"
[ "$user" != 0 ] || die "the service would run as root"
[ ! -e "$root/root/.cache" ] || die "a cache is left in /root"

run() { in_root "$root" "$user" "$workdir" "$@"; }
environment+=(CUTOUT_API_ARCHIVE_URI=/tmp/archive CUTOUT_API_SERVER_PORT="$port")
run "${entrypoint[@]}" cutout_api demo /tmp/archive >&2
run "${entrypoint[@]}" "${command[@]}" &
service=$!
trap 'kill -KILL $service 2>/dev/null || true; [ $# = 1 ] || rm -rf "$folder"' EXIT
for attempt in {1..60}; do
    if run "${healthcheck[@]}" 2>/dev/null; then break; fi
    [ "$attempt" != 60 ] && kill -0 $service || die "HEALTHCHECK does not succeed"
    sleep 0.5
done
say "HEALTHCHECK succeeds"
run python - "$port" <<'PY'
import sys
from pathlib import Path
from urllib.request import urlopen

import pyarrow.parquet as pq

for file in sorted(Path("/tmp/archive").rglob("*.parquet")):
    names = pq.ParquetFile(file).schema_arrow.names
    key = "objectId" if "objectId" in names else "diaSourceId"
    value = pq.read_table(file, columns=[key])[key][0].as_py()
    path = file.relative_to("/tmp/archive")
    url = f"http://127.0.0.1:{sys.argv[1]}/api/v1/cutouts?hdfsPath={path}&{key}={value}&kind=Science&return_type=PNG"
    assert urlopen(url).read().startswith(b"\x89PNG"), url
    print(f"a PNG by {key} from {path}", file=sys.stderr)
PY
# Process 1 is two below: the subshell's unshare, which keeps SIGTERM to itself, and its child.
pkill -TERM -P "$(pgrep -P $service)"
wait $service || die "SIGTERM: ended with status $?"
say "SIGTERM ends it with status 0"
