"""Where the files are, and the processes that measure: children of one run that die with it."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from .datasets import File

ROOT = Path(__file__).parents[1]
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Place:
    """The files on local disk, and, where ``uri`` is of HDFS, the same files there."""

    uri: str
    folder: str
    """Of ``uri``, absolute."""
    local: str
    scratch: str
    user: str = "fink"

    @property
    def on_hdfs(self) -> bool:
        return self.uri.startswith("hdfs:")

    @property
    def drivers(self) -> tuple[str, ...]:
        return ("libhdfs", "native") if self.on_hdfs else ("local",)

    def path(self, file: File | str) -> str:
        """Return the absolute path of a file where it is measured."""
        return f"{self.folder}/{file if isinstance(file, str) else file.name}"

    def local_path(self, file: File) -> str:
        return f"{self.local}/{file.name}"

    def connect(self) -> fs.FileSystem:
        """Return a new connection, as pyarrow makes it."""
        if not self.on_hdfs:
            return fs.LocalFileSystem()
        host, _, port = self.uri.removeprefix("hdfs://").partition("/")[0].partition(":")
        return fs.HadoopFileSystem(host, int(port), user=self.user)


def die_with_parent() -> None:
    """Run in a child: be killed when the parent is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class ChildFailed(RuntimeError):
    """A process that measures ended without a result; what it wrote stands above."""


def call_in_child(
    function: str, arguments: dict[str, Any], *, environment: dict[str, str], seconds: float
) -> Any:
    """Call ``module:function`` of this package in a process of its own; return its result.

    Arguments and result travel as JSON. Each part has its own JVM and memory this way, and one
    that crashes takes no other with it.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"{__package__}.places", function],
            cwd=ROOT,
            env=os.environ | environment,
            input=json.dumps(arguments),
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
            preexec_fn=die_with_parent,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ChildFailed(f"{function} took more than {seconds:.0f} s") from error
    if done.returncode != 0:
        raise ChildFailed(f"{function} ended with {done.returncode}")
    return json.loads(done.stdout)


def main() -> None:
    """Be the child: the function is named on the command line."""
    # What a library or a JVM prints must not mix with the result.
    result_to = os.dup(1)
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    arguments = json.loads(sys.stdin.read())
    if "place" in arguments:
        arguments["place"] = Place(**arguments["place"])
    function = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    with os.fdopen(result_to, "w") as output:
        json.dump(function(**arguments), output)
        output.flush()
        # A JVM that is told to end may take seconds over it.
        sys.stderr.flush()
        os._exit(0)


def as_argument(place: Place) -> dict[str, Any]:
    return asdict(place)


# --- What the machine and its processes say ---------------------------------------------------


def describe_machine() -> dict[str, Any]:
    """Return what figures depend on; no names of hosts or users."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    total = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    versions = {}
    for name in ("pyarrow", "hdfs_native", "numpy", "duckdb", "polars", "datafusion"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        versions[name] = str(getattr(module, "__version__", "")) or _installed(name)
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(total / 2**20),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _installed(name: str) -> str:
    from importlib.metadata import version

    return version(name.replace("_", "-"))


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:  # ended meanwhile
            continue
        if f"\nPPid:\t{pid}\n" in text:
            found.append(int(status.parent.name))
    return found


def resident_mb(pid: int | str = "self", field: str = "VmRSS") -> float:
    """Return the resident memory of a process now, or with ``VmHWM`` the most it has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


if __name__ == "__main__":
    main()
