"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cutout_api.whole_files import ABANDONED_SECONDS, remove_abandoned, write_whole

KILLED_AS_IT_WRITES = """
import resource, signal, sys
from pathlib import Path
from cutout_api.whole_files import write_whole

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_whole(Path(sys.argv[1]), bytes(100_000))
"""


def test_what_a_killed_process_left_is_removed_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", KILLED_AS_IT_WRITES, path])
    assert ended.returncode == -signal.SIGXFSZ
    assert path.read_bytes() == b"old"
    (part,) = set(tmp_path.iterdir()) - {path}
    remove_abandoned(tmp_path)
    assert part.exists()  # it might still be written
    long_ago = time.time() - ABANDONED_SECONDS - 1
    os.utime(part, (long_ago, long_ago))
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("overwrite", [False, True])
def test_who_may_read_a_file_is_said_by_the_umask(tmp_path: Path, overwrite: bool) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"new", overwrite=overwrite)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "a").read_bytes() == b"new"


def test_what_is_there_is_replaced_only_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"new", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"old"
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1
