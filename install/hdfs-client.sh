#!/usr/bin/env bash
# Put a working HDFS client for pyarrow (libhdfs, its jars, an environment file) into a folder.
#
#   install/hdfs-client.sh [FOLDER]        FOLDER: default .cache/hdfs in this repository
#
# A Hadoop distribution is used where there is one ($HADOOP_HOME with lib/native/libhdfs.so).
# Otherwise the client jars come out of pyspark (the installed one, else one from the configured
# package index) and libhdfs.so is compiled from the C sources in pydoop's sdist.
#
# Nothing is unpacked, run or compiled whose SHA-256 is not one of those below: a package index,
# or an installed pyspark, is not trusted. To use another version, change it and its sums.
#
# Environment: PYTHON (default python3; needs pip), JAVA_HOME, HADOOP_HOME, LIBHDFS_OPTS, and
# HADOOP_CONF_DIR for a cluster that is described by a core-site.xml and an hdfs-site.xml.
# Leaves in FOLDER: env (KEY=VALUE, for systemd and Python), env.sh (to be sourced) and lib/.
# Safe to run again, also after a kill: what is there and intact is kept.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=${1:-$repository/.cache/hdfs}
python=${PYTHON:-python3}

# Small reads need little heap. -Xrs leaves SIGTERM to the Python process. The last two keep
# logging off stderr: the first for the jars from pyspark, the second for a Hadoop distribution.
default_opts="-Xmx256m -Xrs -XX:+UseSerialGC -XX:-UsePerfData -Dslf4j.internal.verbosity=ERROR -Dhadoop.root.logger=ERROR,console"

pydoop=pydoop==2.0.0
pydoop_sha256=c7eb2ad8c36d2a75dc1c6cee701928334614f2e862a70798b0cb278e3102f77d
pyspark=pyspark==4.3.0
pyspark_sha256=e8c517948eff7088a7aa07449aa8eafa4a15a8d50319de2525a6fd26622476c6
# The last that reads the metadata of old sdists, which want pkg_resources.
setuptools=setuptools==80.10.2
setuptools_sha256=95b30ddfb717250edb492926c92b5221f7ef3fbcc2b07579bcd4a27da21d0173
jars_sha256="\
cc59446ec9ebaceae56fdb8d8c21477766dc5d426325642151c796bec5c4e6b7  hadoop-client-api-3.5.0.jar
b7db3e60c5df1cd37c2995b3e0142e57487260706834e5325bbe0a5e683eedf1  hadoop-client-runtime-3.5.0.jar
7b751d952061954d5abfed7181c1f645d336091b679891591d63329c622eb832  slf4j-api-2.0.17.jar
50f11b09f877c294d56f24463f47d28f929cf5044f648661c0f0cfbae9a2f49c  commons-lang-2.6.jar"

say() { printf 'hdfs-client: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Debian packages: installed where we may, named in one command where we may not.
need_packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $*"
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
    else
        die "missing $*. Install with: sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
    fi
}

libjvm_folder() {  # JAVA_HOME -> the folder of its libjvm.so; Java 8 keeps it below jre/
    local found
    for found in "$1"/lib/server "$1"/jre/lib/*/server; do
        if [ -e "$found/libjvm.so" ]; then echo "$found"; return; fi
    done
    return 1
}

find_java() {  # $1 = jdk: must have jni.h as well
    local candidate program
    for candidate in "${JAVA_HOME:-}" \
        $(for program in javac java; do p=$(command -v $program) && readlink -f "$p" | sed "s,/bin/$program\$,,;s,/jre\$,,"; done) \
        /usr/lib/jvm/*; do
        if [ -n "$candidate" ] && libjvm_folder "$candidate" >/dev/null; then
            if [ "$1" != jdk ] || [ -e "$candidate/include/jni.h" ]; then echo "$candidate"; return; fi
        fi
    done
    return 1
}

# pip checks the sum before it runs anything of what it fetched.
pinned() {  # REQUIREMENT SHA256 PIP_ARGUMENT...
    "$python" -m pip --version >/dev/null 2>&1 || die "$python has no pip. Install python3-pip, or set PYTHON to one that has it."
    "$python" -m pip "${@:3}" --quiet --disable-pip-version-check --no-deps --require-hashes \
        --requirement <(echo "$1 --hash=sha256:$2") >&2
}

# An sdist from the package index that pip is configured for, its metadata read by our setuptools.
fetch_sdist() {  # REQUIREMENT SHA256 FOLDER
    pinned "$setuptools" "$setuptools_sha256" install --root-user-action=ignore --target "$3/setuptools"
    PYTHONPATH="$3/setuptools" pinned "$1" "$2" download --no-binary :all: --no-build-isolation --dest "$3"
}

# hadoop-client-* leaves slf4j to its user; libhdfs asks commons-lang 2 for stack traces.
extract_jars() {  # [SDIST] FOLDER: from the sdist, else from the installed pyspark
    cut -d ' ' -f 3 <<<"$jars_sha256" | "$python" -c '
import importlib.util, shutil, sys, tarfile
from pathlib import Path

*sdist, folder = sys.argv[1:]
wanted = set(sys.stdin.read().split())
if sdist:
    with tarfile.open(sdist[0]) as archive:
        for member in archive:
            name = Path(member.name).name
            if "/jars/" in member.name and name in wanted:
                with archive.extractfile(member) as source, open(Path(folder, name), "wb") as target:
                    shutil.copyfileobj(source, target)
else:
    spec = importlib.util.find_spec("pyspark")
    for base in spec.submodule_search_locations or () if spec else ():
        for name in wanted:
            shutil.copyfile(Path(base, "jars", name), Path(folder, name))
' "$@" && (cd "${*: -1}" && sha256sum --check --quiet --strict <<<"$jars_sha256" >&2)
}

build() {  # fills FOLDER/lib; everything happens in .part, which a killed run leaves and we remove
    local part=$prefix/.part sources
    rm -rf "$part"
    mkdir -p "$part/lib" "$part/pydoop" "$part/pyspark"

    if extract_jars "$part/lib" 2>/dev/null; then
        say "client jars: from the installed pyspark"
    else
        say "client jars: fetching pyspark (some 450 MB, of which 50 are kept)"
        rm -f "$part"/lib/*
        fetch_sdist "$pyspark" "$pyspark_sha256" "$part/pyspark"
        extract_jars "$part/pyspark/${pyspark/==/-}.tar.gz" "$part/lib" || die "the jars of $pyspark are not those that were expected"
    fi

    say "libhdfs: compiling"
    fetch_sdist "$pydoop" "$pydoop_sha256" "$part/pydoop"
    tar -xzf "$part/pydoop/${pydoop/==/-}.tar.gz" -C "$part/pydoop"
    sources=$part/pydoop/${pydoop/==/-}/src/libhdfs
    # The run path spares LD_LIBRARY_PATH; libjvm of another JAVA_HOME loaded before wins over it.
    gcc -shared -fPIC -O2 -w -D_GNU_SOURCE -o "$part/lib/libhdfs.so" \
        -I"$JAVA_HOME/include" -I"$JAVA_HOME/include/linux" \
        -I"$sources" -I"$sources/include" -I"$sources/include/hdfs" -I"$sources/common" -I"$sources/os" -I"$sources/os/posix" \
        "$sources"/*.c "$sources"/common/*.c "$sources"/os/posix/*.c \
        -L"$(libjvm_folder "$JAVA_HOME")" -Wl,-rpath,"$(libjvm_folder "$JAVA_HOME")" -ljvm -lpthread

    (cd "$part/lib" && sha256sum -- * >SHA256SUMS)
    rm -rf "$prefix/lib"
    mv "$part/lib" "$prefix/lib"
    rm -rf "$part"
}

intact() { [ -e "$prefix/lib/SHA256SUMS" ] && (cd "$prefix/lib" && sha256sum --check --quiet --strict SHA256SUMS >/dev/null 2>&1); }

write_env() {  # CLASSPATH LIBHDFS_FOLDER
    local key value
    {
        printf 'JAVA_HOME=%s\n' "$JAVA_HOME"
        printf 'ARROW_LIBHDFS_DIR=%s\n' "$2"
        printf 'LD_LIBRARY_PATH=%s:%s\n' "$(libjvm_folder "$JAVA_HOME")" "$2"
        printf 'LIBHDFS_OPTS=%s\n' "${LIBHDFS_OPTS:-$default_opts}"
        if [ -n "${HADOOP_CONF_DIR:-}" ]; then
            # hdfs-native reads the folder by this name, libhdfs where the classes are.
            printf 'HADOOP_CONF_DIR=%s\n' "$HADOOP_CONF_DIR"
            printf 'CLASSPATH=%s:%s\n' "$HADOOP_CONF_DIR" "$1"
        else
            printf 'CLASSPATH=%s\n' "$1"
        fi
    } >"$prefix/env.new"
    while IFS='=' read -r key value; do
        printf "export %s='%s'\n" "$key" "${value//\'/\'\\\'\'}"
    done <"$prefix/env.new" >"$prefix/env.sh.new"
    mv "$prefix/env.sh.new" "$prefix/env.sh"
    mv "$prefix/env.new" "$prefix/env"
}

# Starts a JVM through libhdfs and asks it for the local root folder: no server is needed.
check_it_works() {
    (. "$prefix/env.sh" && exec "$python" - <<'PY'
import ctypes, os, sys

hdfs = ctypes.CDLL(os.path.join(os.environ["ARROW_LIBHDFS_DIR"], "libhdfs.so"))
hdfs.hdfsNewBuilder.restype = hdfs.hdfsBuilderConnect.restype = ctypes.c_void_p
hdfs.hdfsBuilderSetNameNode.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
hdfs.hdfsBuilderConnect.argtypes = (ctypes.c_void_p,)
hdfs.hdfsExists.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
builder = hdfs.hdfsNewBuilder()
hdfs.hdfsBuilderSetNameNode(builder, b"file:///")
connection = hdfs.hdfsBuilderConnect(builder)
sys.exit(not connection or hdfs.hdfsExists(connection, b"/") != 0)
PY
    ) || die "libhdfs does not work (see above); remove $prefix and run this again"
}

mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
exec 9>"$prefix/.lock"
flock 9
trap 'rm -rf "$prefix/.part"' EXIT

if [ -n "${HADOOP_HOME:-}" ] && [ -e "$HADOOP_HOME/lib/native/libhdfs.so" ] \
    && classpath=$("$HADOOP_HOME/bin/hadoop" classpath --glob 2>/dev/null) && [ -n "$classpath" ]; then
    JAVA_HOME=$(find_java jre) || { need_packages default-jre-headless; JAVA_HOME=$(find_java jre); }
    write_env "$classpath" "$HADOOP_HOME/lib/native"
    origin="the Hadoop distribution $HADOOP_HOME"
else
    packages=()
    find_java jdk >/dev/null || packages+=(default-jdk-headless)
    # libc6-dev: Debian's gcc alone has no C headers.
    { command -v gcc >/dev/null && [ -e /usr/include/stdio.h ]; } || packages+=(gcc libc6-dev)
    if ! intact; then
        [ ${#packages[@]} = 0 ] || need_packages "${packages[@]}"
        JAVA_HOME=$(find_java jdk) || die "no JDK found; set JAVA_HOME"
        build
    fi
    JAVA_HOME=$(find_java jre) || { need_packages default-jre-headless; JAVA_HOME=$(find_java jre); }
    # One by one: libhdfs hands CLASSPATH to the JVM as it is, and a JVM started so expands no wildcard.
    classpath=$(printf '%s:' "$prefix"/lib/*.jar)
    write_env "${classpath%:}" "$prefix/lib"
    origin="$(cd "$prefix/lib" && echo hadoop-client-api-*.jar)"
fi
check_it_works
say "ready in $prefix ($origin, $JAVA_HOME)"
