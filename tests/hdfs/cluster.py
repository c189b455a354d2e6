"""A real HDFS on this machine: one NameNode and one DataNode, on loopback, in a temporary folder.

    with HdfsCluster() as cluster:
        cluster.put("night.parquet", "/archive/night.parquet")
        read_from(cluster.uri + "/archive", user=cluster.user)

The servers are Hadoop 2.7.3, put in place by `install/hdfs-server.sh`. They listen on ports that
the kernel gives them (they bind port 0 and log what they got), so clusters never collide. They
die with the process that started them, even when that is killed.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from xml.sax.saxutils import escape

import hdfs_native

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER_FOLDER = REPOSITORY / ".cache" / "hdfs-server"
CLIENT_FOLDER = REPOSITORY / ".cache" / "hdfs"

NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"

# Hadoop of that age reaches into the JDK. 1 GB of files was written and read within this heap.
JVM_OPTIONS = (
    "-Xmx96m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in ("java.lang", "java.util", "java.nio", "sun.nio.ch")
    ),
)

# Runs in the child: asks the kernel to kill it when its parent dies (prctl(2), where 1 is
# PR_SET_PDEATHSIG), then becomes the server. A parent that died before it could ask is noticed.
LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(9))
if os.getppid() != int(sys.argv[1]): sys.exit("the process that wanted this server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

# hdfs-native would try for three minutes to reach a NameNode that is not there.
HASTE = {"dfs.client.failover.max.attempts": "3"}

LOG4J = """
log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


class ClusterError(RuntimeError):
    """A server did not start; the message ends with what it logged last."""


def read_env(file: Path) -> dict[str, str]:
    """Read the KEY=VALUE lines that `install/hdfs-client.sh` leaves."""
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)


def find_java() -> str | None:
    """Find `java`: the one the HDFS client uses, else $JAVA_HOME, else the one on the PATH."""
    homes = [os.environ.get("JAVA_HOME")]
    if (CLIENT_FOLDER / "env").exists():
        homes.insert(0, read_env(CLIENT_FOLDER / "env").get("JAVA_HOME"))
    programs = [Path(home, "bin", "java") for home in homes if home]
    return next((str(java) for java in programs if java.exists()), shutil.which("java"))


def missing_pieces() -> str | None:
    """Name what a cluster cannot start without, or None when all is there."""
    if not (SERVER_FOLDER / "jars" / "SHA256SUMS").exists():
        return f"no HDFS server in {SERVER_FOLDER.relative_to(REPOSITORY)}"
    return None if find_java() else "no java"


class HdfsCluster:
    """One NameNode and one DataNode; a context manager, or `start()` and `stop()`.

    `user` is the superuser, owns what is put, and has a home folder; everybody else meets
    ordinary permissions. Start it from a thread that lives as long as the cluster (the main
    one): to the kernel, the parent of a process is a thread.
    """

    def __init__(
        self,
        *,
        user: str = "fink",
        server_folder: Path = SERVER_FOLDER,
        settings: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> None:
        self.user = user
        self.server_folder = server_folder
        self.settings = settings or {}
        self.timeout = timeout
        self.port = 0
        self.folder = Path()
        self._http_port = 0
        self._namenode: subprocess.Popen[bytes] | None = None
        self._datanode: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """`hdfs://127.0.0.1:PORT`, the same for the life of the cluster."""
        return f"hdfs://127.0.0.1:{self.port}"

    @property
    def pids(self) -> list[int]:
        """The process ids of the servers that run."""
        return [server.pid for server in (self._namenode, self._datanode) if server is not None]

    def __enter__(self) -> HdfsCluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Format a new file system and start both servers; returns when files can be written."""
        atexit.register(self.stop)
        self.folder = Path(tempfile.mkdtemp(prefix="hdfs-cluster-"))
        try:
            self._write_conf()
            format_log = self.folder / "format.log"
            formatting = self._run(NAMENODE, "-format", "-nonInteractive", log=format_log)
            if formatting.wait(self.timeout) != 0:
                raise ClusterError(f"formatting failed:\n{_tail(format_log)}")
            self.start_namenode()
            self.start_datanode()
            self.mkdirs(f"/user/{self.user}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill both servers and remove their files; harmless when already stopped."""
        atexit.unregister(self.stop)
        self.stop_datanode()
        self.stop_namenode()
        if self.folder.name:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Servers

    def start_namenode(self) -> None:
        """Start the NameNode, on the port it had before if it had one."""
        if self._namenode is not None:
            return
        self._write_conf()
        log = self.folder / "namenode.log"
        self._namenode = self._run(NAMENODE, log=log)
        ports = _await_log(
            self._namenode,
            log,
            self.timeout,
            r"Jetty bound to port (\d+)\s",
            r"RPC up at: \S*:(\d+)\s",
        )
        self._http_port, self.port = ports
        self._write_conf()
        if self._datanode is not None:
            self._await_datanode()

    def stop_namenode(self) -> None:
        """Kill the NameNode, as a crash would."""
        _kill(self._namenode)
        self._namenode = None

    def start_datanode(self) -> None:
        """Start the DataNode with the blocks it had; returns when the NameNode knows them."""
        if self._datanode is not None:
            return
        log = self.folder / "datanode.log"
        self._datanode = self._run(DATANODE, log=log)
        _await_log(self._datanode, log, self.timeout, r"(\d+)[^\n]*Successfully sent block report")
        self._await_datanode()

    def stop_datanode(self) -> None:
        """Kill the DataNode, as a crash would; the NameNode goes on naming it to clients."""
        _kill(self._datanode)
        self._datanode = None

    def pause_datanode(self) -> None:
        """Freeze the DataNode: connections are still accepted, nothing is answered."""
        assert self._datanode is not None, "the DataNode does not run"
        self._datanode.send_signal(signal.SIGSTOP)

    def resume_datanode(self) -> None:
        """Let a frozen DataNode go on."""
        assert self._datanode is not None, "the DataNode does not run"
        self._datanode.send_signal(signal.SIGCONT)

    def pause_namenode(self) -> None:
        """Freeze the NameNode: connections are still accepted, nothing is answered."""
        assert self._namenode is not None, "the NameNode does not run"
        self._namenode.send_signal(signal.SIGSTOP)

    def resume_namenode(self) -> None:
        """Let a frozen NameNode go on."""
        assert self._namenode is not None, "the NameNode does not run"
        self._namenode.send_signal(signal.SIGCONT)

    # Files

    @property
    def client(self) -> hdfs_native.Client:
        """A new connection as `user`, without Java."""
        # hdfs-native takes the user from the environment whenever it connects, so a connection
        # that is kept would come back from a restart of the NameNode as somebody else.
        before = os.environ.get("HADOOP_USER_NAME")
        os.environ["HADOOP_USER_NAME"] = self.user
        try:
            client = hdfs_native.Client(self.uri, HASTE | self._client_conf())
            client.get_file_info("/")  # connects, which the line above does not
        finally:
            if before is None:
                del os.environ["HADOOP_USER_NAME"]
            else:
                os.environ["HADOOP_USER_NAME"] = before
        return client

    def put(self, local_path: str | Path, hdfs_path: str) -> None:
        """Copy a local file into HDFS, over what may be there; missing folders are made."""
        with open(local_path, "rb") as source, self._create(hdfs_path) as target:
            while block := source.read(8 << 20):
                target.write(block)

    def put_bytes(self, content: bytes, hdfs_path: str) -> None:
        """Write bytes as a file in HDFS, over what may be there; missing folders are made."""
        with self._create(hdfs_path) as target:
            target.write(content)

    def mkdirs(self, hdfs_path: str, permission: int = 0o755) -> None:
        """Make a folder and those above it."""
        self.client.mkdirs(hdfs_path, permission, create_parent=True)

    def delete(self, hdfs_path: str, recursive: bool = True) -> bool:
        """Delete a file or a folder; False when there was none."""
        return self.client.delete(hdfs_path, recursive)

    def _create(self, hdfs_path: str) -> hdfs_native.FileWriter:
        options = hdfs_native.WriteOptions(overwrite=True, create_parent=True)
        return self.client.create(hdfs_path, options)

    # How they are run

    def _run(self, main: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        java = find_java()
        if java is None:
            raise ClusterError("no java; install/hdfs-client.sh installs one")
        # One by one and in order: conf first, so that its log4j.properties is the one.
        jars = sorted((self.server_folder / "jars").glob("*.jar"))
        classpath = [self.folder / "conf", self.server_folder, *jars]
        command = [java, *JVM_OPTIONS, "-cp", os.pathsep.join(map(str, classpath)), main]
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())]
        # The servers' own user, hence the superuser, is named as any client's is.
        environment = {**os.environ, "HADOOP_USER_NAME": self.user}
        for name in ("CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"):
            environment.pop(name, None)
        with open(log, "wb") as output:
            return subprocess.Popen(
                [*launcher, *command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the tests, whose fixtures then stop us
            )

    def _conf(self) -> dict[str, str]:
        return {
            "fs.defaultFS": self.uri,
            "dfs.namenode.rpc-address": f"127.0.0.1:{self.port}",
            "dfs.namenode.http-address": "127.0.0.1:0",
            "dfs.namenode.name.dir": (self.folder / "name").as_uri(),
            "dfs.namenode.safemode.extension": "0",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.namenode.fs-limits.min-block-size": "0",
            "dfs.namenode.handler.count": "4",
            "dfs.datanode.address": "127.0.0.1:0",
            "dfs.datanode.http.address": "127.0.0.1:0",
            "dfs.datanode.ipc.address": "127.0.0.1:0",
            "dfs.datanode.data.dir": (self.folder / "data").as_uri(),
            "dfs.datanode.scan.period.hours": "-1",
            "dfs.replication": "1",
            "dfs.webhdfs.enabled": "false",
            # Seconds after a NameNode's restart its DataNode is back; nobody waits for more.
            "dfs.heartbeat.interval": "1",
            "ipc.client.connect.max.retries": "1",
            "hadoop.tmp.dir": str(self.folder / "tmp"),
            # Users need not exist on this machine: no `id -Gn` for each of them.
            "hadoop.user.group.static.mapping.overrides": f"{self.user}=supergroup;dr.who=;",
            **self.settings,
        }

    def _client_conf(self) -> dict[str, str]:
        return {}

    def _write_conf(self) -> None:
        conf = self.folder / "conf"
        conf.mkdir(exist_ok=True)
        properties = "".join(
            f"<property><name>{name}</name><value>{escape(value)}</value></property>\n"
            for name, value in self._conf().items()
        )
        for name in ("core-site.xml", "hdfs-site.xml"):
            (conf / name).write_text(f"<configuration>\n{properties}</configuration>\n")
        (conf / "log4j.properties").write_text(LOG4J)

    def _await_datanode(self) -> None:
        def ready() -> bool:
            try:
                info = self._jmx("NameNodeInfo")
            except (OSError, http.client.HTTPException, ValueError, IndexError):
                return False  # it is not as far
            return not info["Safemode"] and bool(json.loads(str(info["LiveNodes"])))

        _await(ready, self.timeout, "a live DataNode outside of safe mode")

    def _jmx(self, bean: str) -> dict[str, object]:
        """Ask the NameNode about itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=5)
        try:
            connection.request("GET", f"/jmx?qry=Hadoop:service=NameNode,name={bean}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        found: dict[str, object] = answer["beans"][0]
        return found


def _kill(server: subprocess.Popen[bytes] | None) -> None:
    if server is not None:
        server.kill()
        server.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _await(ready: Callable[[], bool], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"no {what} within {timeout:g} s")
        time.sleep(0.05)


def _await_log(
    server: subprocess.Popen[bytes], log: Path, timeout: float, *patterns: str
) -> list[int]:
    """Wait until a server has logged every pattern; returns the number each has captured."""
    found: list[re.Match[str] | None] = []

    def ready() -> bool:
        nonlocal found
        text = log.read_text(errors="replace")
        if server.poll() is not None:
            raise ClusterError(f"a server ended with code {server.returncode}:\n{_tail(log)}")
        found = [re.search(pattern, text) for pattern in patterns]
        return all(found)

    try:
        _await(ready, timeout, f"{patterns} in {log.name}")
    except ClusterError as error:
        raise ClusterError(f"{error}\n{_tail(log)}") from None
    return [int(match[1]) for match in found if match]
