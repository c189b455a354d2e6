"""hdfs-native on several name nodes: one that hangs is given up, and the next one asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from .hadoop_conf import MOUNTS, NAME_NODES

T = TypeVar("T")
NAME_NODE_SECONDS = 3.0
"""How long a name node may take to answer. libhdfs waits as long."""
CALLS = 64
"""Under way at a time; what is asked for is bounded by ``limits.concurrent_reads``."""
NO_FALLBACK = "/.no-such-folder-of-the-mount-table"


class PatientClient:
    """What is used of ``hdfs_native.Client``, in time.

    hdfs-native turns to the next name node where one refuses a connection, breaks it, or says that
    it is in standby. It waits for one that says nothing without end, and for one whose machine is
    off until the kernel gives up, minutes later. Then we leave it waiting, in a thread that
    ends when it does, and go on with another client, for which the next name node is the first.
    """

    def __init__(self, connect: Callable[[int], Any]) -> None:
        self._connect = connect
        """Makes a client that begins with the name node of this number."""
        self._lock = threading.Lock()
        self._turn = 0
        self._client, self._calls = self._begin()

    def get_file_info(self, path: str) -> Any:
        return self._call(lambda client: client.get_file_info(path))

    def list_status(self, path: str) -> list[Any]:
        # A long listing is asked for in parts, as it is gone through.
        return self._call(lambda client: list(client.list_status(path)))

    def read(self, path: str) -> Any:
        return self._call(lambda client: client.read(path))

    def _begin(self) -> tuple[Any, ThreadPoolExecutor]:
        return self._connect(self._turn), ThreadPoolExecutor(CALLS, "name node")

    def _call(self, ask: Callable[[Any], T]) -> T:
        for _ in range(2):
            with self._lock:
                client, calls = self._client, self._calls
                call = calls.submit(ask, client)
            try:
                return call.result(NAME_NODE_SECONDS)
            except FutureTimeoutError:
                if call.done():  # an answer of its own, or one in this very moment
                    return call.result()
                self._leave(client)
        raise OSError("no name node answers")

    def _leave(self, client: Any) -> None:
        with self._lock:
            if self._client is client:  # nobody else has left it yet
                self._calls.shutdown(wait=False, cancel_futures=True)
                self._turn += 1
                self._client, self._calls = self._begin()


def client_conf(conf: Mapping[str, str], turn: int = 0) -> dict[str, str]:
    """Return a site's settings as hdfs-native can use them, the name nodes turned by ``turn``.

    Without a fallback it refuses a mount table: a folder that is not there stands for one.
    """
    found = dict(conf)
    tables: dict[str, str] = {}
    for name, value in conf.items():
        if name.startswith(NAME_NODES):
            nodes = value.split(",")
            first = turn % len(nodes)
            found[name] = ",".join(nodes[first:] + nodes[:first])
        elif name.startswith(MOUNTS) and ".link." in name:
            table = name.removeprefix(MOUNTS).split(".link.")[0]
            service = "/".join(value.split("/")[:3])
            tables.setdefault(f"{MOUNTS}{table}.linkFallback", service + NO_FALLBACK)
    return tables | found
