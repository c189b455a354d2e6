"""The cluster that the tests on HDFS rely on is a real one, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hdfs_native
import pyarrow.fs
import pytest

from tests.hdfs.cluster import REPOSITORY, HdfsCluster

# Seconds instead of minutes where a server does not answer.
IMPATIENT = {
    "ipc.client.connect.max.retries": "1",
    "dfs.client.socket-timeout": "2000",
    "dfs.client.retry.window.base": "100",
    "dfs.client.max.block.acquire.failures": "1",
}


@pytest.fixture(scope="module")
def libhdfs(hdfs_cluster: HdfsCluster) -> pyarrow.fs.HadoopFileSystem:
    return pyarrow.fs.HadoopFileSystem(
        "127.0.0.1", hdfs_cluster.port, user=hdfs_cluster.user, extra_conf=IMPATIENT
    )


@pytest.fixture
def healthy_afterwards(hdfs_cluster: HdfsCluster) -> Iterator[HdfsCluster]:
    """The shared cluster, for tests that harm it: whatever they stopped runs again."""
    yield hdfs_cluster
    hdfs_cluster.start_namenode()
    hdfs_cluster.start_datanode()
    hdfs_cluster.resume_datanode()


def test_what_is_put_is_read_back_by_libhdfs(
    hdfs_cluster: HdfsCluster, libhdfs: pyarrow.fs.HadoopFileSystem, tmp_path: Path
) -> None:
    content = os.urandom(20_000_003)
    local = tmp_path / "night.parquet"
    local.write_bytes(content)
    hdfs_cluster.put(local, "/cluster/night.parquet")
    with libhdfs.open_input_file("/cluster/night.parquet") as file:
        assert file.read_at(1000, 9_999_999) == content[9_999_999:10_000_999]
        assert file.read() == content


def test_both_drivers_agree_on_size_and_time(
    hdfs_cluster: HdfsCluster, libhdfs: pyarrow.fs.HadoopFileSystem
) -> None:
    before = time.time()
    hdfs_cluster.put_bytes(b"x" * 12345, "/cluster/sized")
    info = libhdfs.get_file_info("/cluster/sized")
    status = hdfs_cluster.client.get_file_info("/cluster/sized")
    assert info.size == status.length == 12345
    # libhdfs knows whole seconds, hdfs-native milliseconds.
    assert info.mtime.timestamp() == status.modification_time // 1000
    assert before - 1 <= status.modification_time / 1000 <= time.time() + 1


def test_putting_again_replaces_and_delete_removes(hdfs_cluster: HdfsCluster) -> None:
    hdfs_cluster.put_bytes(b"old and longer", "/cluster/twice")
    hdfs_cluster.put_bytes(b"new", "/cluster/twice")
    assert hdfs_cluster.client.read("/cluster/twice").read() == b"new"
    assert hdfs_cluster.delete("/cluster/twice")
    assert not hdfs_cluster.delete("/cluster/twice")


def test_the_user_has_a_home_and_a_stranger_is_refused(
    hdfs_cluster: HdfsCluster, libhdfs: pyarrow.fs.HadoopFileSystem
) -> None:
    hdfs_cluster.put_bytes(b"mine", f"/user/{hdfs_cluster.user}/relative")
    with libhdfs.open_input_file("relative") as file:
        assert file.read() == b"mine"

    hdfs_cluster.put_bytes(b"secret", "/cluster/secret")
    hdfs_cluster.client.set_permission("/cluster/secret", 0o600)
    stranger = pyarrow.fs.HadoopFileSystem("127.0.0.1", hdfs_cluster.port, user="stranger")
    with pytest.raises(PermissionError):
        stranger.open_input_file("/cluster/secret")


def test_a_killed_datanode_is_an_error_until_it_is_back(
    healthy_afterwards: HdfsCluster, libhdfs: pyarrow.fs.HadoopFileSystem
) -> None:
    cluster = healthy_afterwards
    content = os.urandom(1_000_000)
    cluster.put_bytes(content, "/cluster/killed")
    with libhdfs.open_input_file("/cluster/killed") as file:
        assert file.read_at(100, 0) == content[:100]
        cluster.stop_datanode()
        with pytest.raises(OSError, match="HDFS read failed"):
            file.read_at(100_000, 500_000)
        cluster.start_datanode()
        assert read_in_the_end(file, 100_000, 500_000) == content[500_000:600_000]


def read_in_the_end(file: pyarrow.NativeFile, size: int, offset: int) -> bytes:
    """Read from a server that is back, but may be slow yet for a client so impatient."""
    end = time.monotonic() + 60
    while True:
        try:
            return bytes(file.read_at(size, offset))
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_a_paused_datanode_answers_nothing_until_it_is_resumed(
    healthy_afterwards: HdfsCluster, libhdfs: pyarrow.fs.HadoopFileSystem
) -> None:
    cluster = healthy_afterwards
    cluster.put_bytes(b"x" * 1_000_000, "/cluster/paused")
    cluster.pause_datanode()
    with libhdfs.open_input_file("/cluster/paused") as file:
        with pytest.raises(OSError, match="HDFS read failed"):
            file.read_at(1000, 0)
        cluster.resume_datanode()
        assert read_in_the_end(file, 1000, 0) == b"x" * 1000


def test_a_restarted_namenode_keeps_its_port_and_its_files(
    healthy_afterwards: HdfsCluster, libhdfs: pyarrow.fs.HadoopFileSystem
) -> None:
    cluster = healthy_afterwards
    cluster.put_bytes(b"kept", "/cluster/kept")
    port = cluster.port
    cluster.stop_namenode()
    with pytest.raises(OSError, match="Opening HDFS file"):
        libhdfs.open_input_file("/cluster/kept")
    cluster.start_namenode()
    assert cluster.port == port
    with libhdfs.open_input_file("/cluster/kept") as file:
        assert file.read() == b"kept"
    assert hdfs_native.Client(cluster.uri).read("/cluster/kept").read() == b"kept"


@pytest.mark.parametrize(
    "ending", [signal.SIGKILL, signal.SIGTERM, None], ids=["killed", "terminated", "at its end"]
)
def test_no_server_outlives_the_process_that_started_it(
    hdfs_cluster: HdfsCluster, ending: signal.Signals | None
) -> None:
    script = """
        import sys
        from tests.hdfs.cluster import HdfsCluster
        cluster = HdfsCluster()
        cluster.start()
        print(*cluster.pids, cluster.folder, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(line.strip() for line in script.splitlines())],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        *pids, folder = process.stdout.readline().split()
        assert len(pids) == 2
        assert all(Path("/proc", pid).exists() for pid in pids)
        if ending is None:
            process.stdin.close()
        else:
            process.send_signal(ending)
        process.wait(30)
        deadline = time.monotonic() + 60
        while any(is_running(pid) for pid in pids):
            assert time.monotonic() < deadline, "a server is still there"
            time.sleep(0.05)
    # A process that ends by itself cleans up; a killed one leaves its files.
    if ending is None:
        assert not Path(folder).exists()
    else:
        shutil.rmtree(folder, ignore_errors=True)  # a thread of a server may be at its last file


def is_running(pid: str) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
