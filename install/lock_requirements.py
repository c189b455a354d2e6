"""Write requirements.lock: what the image installs, to the version, with the hash of each file.

    python install/lock_requirements.py        (`make lock`)

pip resolves requirements.txt for each machine that an image is built for, as Debian 12 has it
(Python 3.11, glibc 2.36), from the package index that it is configured for. Nothing is installed.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
MACHINES = ("x86_64", "aarch64")
PYTHON, GLIBC = "3.11", 36
BUILDS_WITH = "setuptools>=69,<81"  # pyproject.toml; `install/hdfs-client.sh` takes no later one

HEADER = """\
# What the Dockerfile installs: requirements.txt to the version, with a hash of each file for
# {machines}. Written by `make lock`; not to be edited.
"""


def resolve(machine: str, folder: Path) -> list[dict]:
    """Return what pip would install on a machine, as its report lists it."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 4, -1)]
    platforms += [f"{old}_{machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1")]
    report = folder / f"{machine}.json"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    command += ["--target", str(folder), "--report", str(report)]
    command += [f"--platform={platform}" for platform in platforms]
    command += ["--requirement", str(ROOT / "requirements.txt"), BUILDS_WITH]
    subprocess.run(command, check=True)  # noqa: S603
    return json.loads(report.read_text())["install"]


def main() -> None:
    hashes = defaultdict(set)
    with tempfile.TemporaryDirectory() as folder:
        for machine in MACHINES:
            for item in resolve(machine, Path(folder)):
                name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
                pin = f"{name}=={item['metadata']['version']}"
                hashes[pin].add(item["download_info"]["archive_info"]["hashes"]["sha256"])
    lines = [HEADER.format(machines=" and ".join(MACHINES))]
    for pin, found in sorted(hashes.items()):
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{each}" for each in sorted(found))]))
    (ROOT / "requirements.lock").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
