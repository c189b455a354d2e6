#!/bin/sh
# Run a command with the environment of the HDFS client, which is written when the image is built.
#
# What `docker run --env` says wins: LIBHDFS_OPTS replaces the JVM's options, and HADOOP_CONF_DIR
# names a folder with the core-site.xml and hdfs-site.xml of a cluster with several NameNodes.
set -eu

options=${LIBHDFS_OPTS:-}
. "$(dirname "$0")/hdfs/env.sh"
if [ -n "$options" ]; then
    export LIBHDFS_OPTS="$options"
fi
if [ -n "${HADOOP_CONF_DIR:-}" ]; then
    export CLASSPATH="$HADOOP_CONF_DIR:$CLASSPATH"
fi
# The command takes this process's place, and with it the SIGTERM of `docker stop`.
exec "$@"
