"""A real HDFS that asks who its users are: a KDC of MIT Kerberos, and SASL on every connection.

    with SecureCluster() as cluster:
        cluster.put("night.parquet", "/archive/night.parquet")
        cluster.kinit(cluster.folder / "tickets")
        read_from(cluster.uri, environment=cluster.environment)

All is on loopback, in a temporary folder, and dies with the process that started it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..service import free_port
from .cluster import LAUNCHER, ClusterError, HdfsCluster, _await, _kill

REALM = "EXAMPLE.ORG"
PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"))


def missing_programs() -> str | None:
    """Name what a KDC cannot start without, or None when all is there."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    return f"no {', '.join(missing)}" if missing else None


class SecureCluster(HdfsCluster):
    """A KDC, and an HDFS that knows its users by their tickets."""

    def __init__(self, *, user: str = "fink", timeout: float = 60) -> None:
        super().__init__(user=user, timeout=timeout)
        self._kdc: subprocess.Popen[bytes] | None = None
        self._kdc_port = free_port()

    @property
    def environment(self) -> dict[str, str]:
        """What leads MIT Kerberos, and a client of HDFS, here."""
        return {
            "KRB5_CONFIG": str(self.folder / "krb5.conf"),
            "HADOOP_CONF_DIR": str(self.folder / "conf"),
        }

    @property
    def java_option(self) -> str:
        """What leads a JVM to the KDC."""
        return f"-Djava.security.krb5.conf={self.folder / 'krb5.conf'}"

    @property
    def keytab(self) -> Path:
        return self.folder / f"{self.user}.keytab"

    def kinit(self, cache: Path, lifetime: str = "1h") -> None:
        """Get a ticket of the user into a cache, in place of what is there."""
        aside = cache.with_name(cache.name + ".new")
        command = ("kinit", "-l", lifetime, "-c", f"FILE:{aside}", "-k", "-t", str(self.keytab))
        self._call(*command, self.user)
        aside.replace(cache)

    def stop(self) -> None:
        _kill(self._kdc)
        self._kdc = None
        super().stop()

    def await_expiry(self, cache: Path) -> None:
        """Wait until the tickets of a cache are no longer valid."""
        command = ("klist", "-s", "-c", f"FILE:{cache}")

        def expired() -> bool:
            ended = subprocess.run(command, env=self._kerberos_environment(), check=False)
            return ended.returncode != 0

        _await(expired, self.timeout, "expiry of the tickets")

    def _prepare(self) -> None:
        self._write_kerberos()
        self._call("kdb5_util", "create", "-s", "-r", REALM, "-P", "of-a-test")
        self._start_kdc()
        for name, keytab in (
            ("hdfs/localhost", "hdfs"),
            ("HTTP/localhost", "hdfs"),
            (self.user, self.user),
        ):
            file = self.folder / f"{keytab}.keytab"
            self._call("kadmin.local", "-r", REALM, "-q", f"addprinc -randkey {name}")
            self._call("kadmin.local", "-r", REALM, "-q", f"ktadd -k {file} {name}")
        self.kinit(self.folder / "own-tickets")

    def _start_kdc(self) -> None:
        log = self.folder / "kdc.log"
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())]
        program = shutil.which("krb5kdc", path=_PATH)
        assert program is not None
        with log.open("ab") as output:
            self._kdc = subprocess.Popen(
                [*launcher, program, "-n"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._kerberos_environment(),
                start_new_session=True,
            )

    def _kerberos_environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": _PATH,
            "KRB5_CONFIG": str(self.folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
        }

    def _call(self, *command: str) -> None:
        ended = subprocess.run(
            command, env=self._kerberos_environment(), capture_output=True, text=True, timeout=60
        )
        if ended.returncode != 0:
            raise ClusterError(f"{command[0]} failed: {ended.stderr}{ended.stdout}")

    def _write_kerberos(self) -> None:
        (self.folder / "krb5.conf").write_text(f"""[libdefaults]
 default_realm = {REALM}
 dns_lookup_realm = false
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
[realms]
 {REALM} = {{
  kdc = 127.0.0.1:{self._kdc_port}
 }}
[logging]
 kdc = FILE:{self.folder / "krb5kdc.log"}
""")
        (self.folder / "kdc.conf").write_text(f"""[kdcdefaults]
 kdc_listen = 127.0.0.1:{self._kdc_port}
 kdc_tcp_listen = 127.0.0.1:{self._kdc_port}
[realms]
 {REALM} = {{
  database_name = {self.folder / "principal"}
  key_stash_file = {self.folder / "stash"}
  acl_file = {self.folder / "acl"}
  max_life = 1d
 }}
""")

    @property
    def _java_options(self) -> tuple[str, ...]:
        packages = ("java.security.jgss/sun.security.krb5",)
        opened = (f"--add-opens={package}=ALL-UNNAMED" for package in packages)
        return (self.java_option, *opened)

    def _client_environment(self) -> dict[str, str]:
        return {
            "KRB5_CONFIG": self.environment["KRB5_CONFIG"],
            "KRB5CCNAME": f"FILE:{self.folder / 'own-tickets'}",
        }

    def _client_conf(self) -> dict[str, str]:
        return self._conf()

    def _conf(self) -> dict[str, str]:
        keytab, server = str(self.folder / "hdfs.keytab"), f"hdfs/localhost@{REALM}"
        return super()._conf() | {
            "hadoop.security.authentication": "kerberos",
            # Of Java, which else keeps for a minute what it knows of an expired ticket.
            "hadoop.kerberos.min.seconds.before.relogin": "1",
            "dfs.block.access.token.enable": "true",
            "dfs.data.transfer.protection": "authentication",
            "ignore.secure.ports.for.testing": "true",
            "dfs.namenode.kerberos.principal": server,
            "dfs.namenode.keytab.file": keytab,
            "dfs.datanode.kerberos.principal": server,
            "dfs.datanode.keytab.file": keytab,
            "dfs.web.authentication.kerberos.principal": f"HTTP/localhost@{REALM}",
            "dfs.web.authentication.kerberos.keytab": keytab,
            "dfs.namenode.kerberos.internal.spnego.principal": f"HTTP/localhost@{REALM}",
        }
