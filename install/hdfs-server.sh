#!/usr/bin/env bash
# Put the jars of an HDFS server (Hadoop 2.7.3: NameNode and DataNode) into a folder.
#
#   install/hdfs-server.sh [FOLDER]        FOLDER: default .cache/hdfs-server in this repository
#
# For tests and benchmarks only: they start a small real cluster on loopback. It is years old
# and has no security; never run it for anything else. The service itself does not need it.
#
# Environment: PYTHON (default python3; needs pip). The jars are those that a NameNode and a
# DataNode load, out of pyspark's last sdist with a whole Hadoop in it. Safe to run again.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=${1:-$repository/.cache/hdfs-server}
python=${PYTHON:-python3}

pyspark=pyspark==2.4.8
pyspark_sha256=3a19b71b8dc8dd91ebc943604a05e1ab01bce052456d42937035632d852d78dc
setuptools=setuptools==80.10.2
setuptools_sha256=95b30ddfb717250edb492926c92b5221f7ef3fbcc2b07579bcd4a27da21d0173

jars=(
    commons-cli-1.2 commons-codec-1.10 commons-collections-3.2.2 commons-configuration-1.6
    commons-io-2.4 commons-lang-2.6 commons-logging-1.1.3 guava-14.0.1
    hadoop-auth-2.7.3 hadoop-common-2.7.3 hadoop-hdfs-2.7.3 htrace-core-3.1.0-incubating
    jackson-core-asl-1.9.13 jackson-mapper-asl-1.9.13 javax.servlet-api-3.1.0 javax.ws.rs-api-2.0.1
    jetty-6.1.26 jetty-util-6.1.26 log4j-1.2.17 netty-all-4.1.47.Final protobuf-java-2.5.0
    slf4j-api-1.7.16 slf4j-log4j12-1.7.16
)

say() { printf 'hdfs-server: %s\n' "$*" >&2; }

# pip checks the sum before it runs anything of what it fetched.
pinned() {  # REQUIREMENT SHA256 PIP_ARGUMENT...
    "$python" -m pip "${@:3}" --quiet --disable-pip-version-check --no-deps --require-hashes \
        --requirement <(echo "$1 --hash=sha256:$2") >&2
}

mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
exec 9>"$prefix/.lock"
flock 9

if [ -e "$prefix/jars/SHA256SUMS" ] && (cd "$prefix/jars" && sha256sum --check --quiet --strict SHA256SUMS >/dev/null 2>&1) \
    && [ "$(ls "$prefix/jars" | wc -l)" = $((${#jars[@]} + 1)) ]; then
    say "ready in $prefix"
    exit
fi

part=$prefix/.part
trap 'rm -rf "$part"' EXIT
rm -rf "$part"
mkdir -p "$part/jars"

say "fetching $pyspark (some 220 MB, of which 25 are kept)"
"$python" -m pip --version >/dev/null 2>&1 || { say "$python has no pip. Install python3-pip, or set PYTHON to one that has it."; exit 1; }
# An older setuptools beside pip, and no build isolation: this setup.py fails under current ones.
pinned "$setuptools" "$setuptools_sha256" install --root-user-action=ignore --target "$part/setuptools"
PYTHONPATH="$part/setuptools" pinned "$pyspark" "$pyspark_sha256" download \
    --no-binary :all: --no-build-isolation --dest "$part"
members=("${jars[@]/#/${pyspark/==/-}/deps/jars/}")
tar -xzf "$part/${pyspark/==/-}.tar.gz" -C "$part/jars" --strip-components=3 "${members[@]/%/.jar}"

# The servers insist on web applications of these names; empty ones do.
for application in hdfs datanode; do
    mkdir -p "$prefix/webapps/$application/WEB-INF"
    echo '<web-app/>' >"$prefix/webapps/$application/WEB-INF/web.xml"
done

(cd "$part/jars" && sha256sum -- *.jar >SHA256SUMS)
rm -rf "$prefix/jars"
mv "$part/jars" "$prefix/jars"
rm -rf "$part"
say "ready in $prefix"
