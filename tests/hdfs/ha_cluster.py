"""A real HDFS of two NameNodes on this machine, of which one is active at a time.

    with HaCluster() as cluster:                 # "nn1" is active, "nn2" in standby
        cluster.put("night.parquet", "/archive/night.parquet")
        cluster.kill("nn1")
        cluster.activate("nn2")

They share their edits in a folder, as others do in a quorum of journals, and nothing but a call
makes one of them active: there is no ZooKeeper. A client finds them by `conf`, a folder as
`HADOOP_CONF_DIR` names one, where the name service is `ns1`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .cluster import DATANODE, NAMENODE, ClusterError, HdfsCluster, _await_log, _kill, _tail

HAADMIN = "org.apache.hadoop.hdfs.tools.DFSHAAdmin"
NAMESERVICE = "ns1"
NAMENODES = ("nn1", "nn2")
VIEW = "view"
"""Name of a mount table: its /archive is that of the name service, and so is its /user."""
PROVIDER = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"


class HaCluster(HdfsCluster):
    """Two NameNodes and a DataNode that knows both."""

    def __init__(self, *, user: str = "fink", timeout: float = 60) -> None:
        super().__init__(user=user, timeout=timeout)
        # Until a server has told its port, nobody listens at the one that stands for it.
        self.ports = dict.fromkeys(NAMENODES, 1)
        self._http_ports = dict.fromkeys(NAMENODES, 0)
        self._namenodes: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = 0
        self._active = ""

    @property
    def uri(self) -> str:
        return f"hdfs://{NAMESERVICE}"

    @property
    def conf(self) -> Path:
        """The Hadoop configuration of a client."""
        return self.folder / "conf"

    @property
    def pids(self) -> list[int]:
        servers = [*self._namenodes.values(), self._datanode]
        return [server.pid for server in servers if server is not None]

    def start(self) -> None:
        """Start both NameNodes, make the first active, start the DataNode."""
        self.folder = Path(tempfile.mkdtemp(prefix="hdfs-ha-cluster-"))
        try:
            self._write_conf()
            log = self.folder / "format.log"
            first, second = NAMENODES
            formatting = self._run(NAMENODE, *_named(first), "-format", "-nonInteractive", log=log)
            if formatting.wait(self.timeout) != 0:
                raise ClusterError(f"formatting failed:\n{_tail(log)}")
            # What `-bootstrapStandby` does, without asking the first, which need not run for it.
            shutil.copytree(self.folder / f"name-{first}", self.folder / f"name-{second}")
            for name in NAMENODES:
                self.start_one(name)
            self.activate(first)
            self._datanode = self._run(DATANODE, log=self.folder / "datanode.log")
            for name in NAMENODES:
                self._await_datanode_of(name)
            self.mkdirs(f"/user/{self.user}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.stop_datanode()
        for name in tuple(self._namenodes):
            self.kill(name)
        if self.folder.name:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start_one(self, name: str) -> None:
        """Start a NameNode, in standby, on the port it had before if it had one."""
        if name in self._namenodes:
            return
        if self.ports[name] == 1:
            self.ports[name] = 0
        self._write_conf()
        self._starts += 1
        log = self.folder / f"{name}-{self._starts}.log"
        server = self._namenodes[name] = self._run(NAMENODE, *_named(name), log=log)
        self._http_ports[name], self.ports[name] = _await_log(
            server, log, self.timeout, r"Jetty bound to port (\d+)\s", r"RPC up at: \S*:(\d+)\s"
        )
        self._write_conf()

    def kill(self, name: str) -> None:
        """Kill a NameNode, as a crash would."""
        _kill(self._namenodes.pop(name, None))
        if self._active == name:
            self._active = ""

    def pause(self, name: str) -> None:
        """Freeze a NameNode: connections are still accepted, nothing is answered."""
        self._namenodes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a frozen NameNode go on."""
        self._namenodes[name].send_signal(signal.SIGCONT)

    def activate(self, name: str) -> None:
        """Make a NameNode the active one; the other must be in standby, or dead."""
        self._haadmin("-transitionToActive", "--forceactive", name)
        self._active = name

    def rest(self, name: str) -> None:
        """Send the active NameNode into standby."""
        self._haadmin("-transitionToStandby", name)
        self._active = ""

    def arrange(self, active: str, other: str = "standby") -> None:
        """Have one active and the other in standby, or dead, whatever a test did to them."""
        (second,) = set(NAMENODES) - {active}
        for name in self._namenodes:
            self.resume(name)
        self.start_one(active)
        if other == "dead":
            self.kill(second)
        elif second not in self._namenodes:
            self.start_one(second)
        elif self._active == second:
            self.rest(second)
        if self._active != active:
            self.activate(active)
        for name in self._namenodes:
            self._await_datanode_of(name)

    def _haadmin(self, *command: str) -> None:
        self._starts += 1
        log = self.folder / f"haadmin-{self._starts}.log"
        if self._run(HAADMIN, *command, log=log).wait(self.timeout) != 0:
            raise ClusterError(f"{' '.join(command)} failed:\n{_tail(log)}")

    def _await_datanode_of(self, name: str) -> None:
        self._http_port = self._http_ports[name]
        self._await_datanode()

    def _client_conf(self) -> dict[str, str]:
        return self._conf()

    def _conf(self) -> dict[str, str]:
        conf = super()._conf()
        del conf["dfs.namenode.rpc-address"], conf["dfs.namenode.http-address"]
        del conf["dfs.namenode.name.dir"]
        own = {
            f"dfs.namenode.{setting}.{NAMESERVICE}.{name}": value
            for name in NAMENODES
            for setting, value in (
                ("rpc-address", f"127.0.0.1:{self.ports[name]}"),
                ("http-address", "127.0.0.1:0"),
                ("name.dir", (self.folder / f"name-{name}").as_uri()),
            )
        }
        return (
            conf
            | own
            | {
                "dfs.nameservices": NAMESERVICE,
                f"dfs.ha.namenodes.{NAMESERVICE}": ",".join(NAMENODES),
                f"dfs.client.failover.proxy.provider.{NAMESERVICE}": PROVIDER,
                "dfs.namenode.shared.edits.dir": (self.folder / "shared").as_uri(),
                "dfs.ha.tail-edits.period": "1",
                "dfs.ha.log-roll.period": "-1",
                "dfs.ha.standby.checkpoints": "false",
                f"fs.viewfs.mounttable.{VIEW}.link./archive": f"{self.uri}/archive",
                f"fs.viewfs.mounttable.{VIEW}.link./user": f"{self.uri}/user",
            }
        )


def _named(name: str) -> tuple[str, str]:
    return "-D", f"dfs.ha.namenode.id={name}"
