"""A real nginx in front of a service, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from urllib3 import Retry

from tests.conftest import IN_CI
from tests.service import ROOT

PATH_CONF = (ROOT / "install/nginx-path.conf").read_text()
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def require_nginx() -> str:
    if NGINX is None:
        (pytest.fail if IN_CI else pytest.skip)("no nginx: run install/test-programs.sh")
    return NGINX


def site_below_a_path(port: int, service: str) -> str:
    """Return a host that serves nothing itself, and the service below /stamps/."""
    inside = PATH_CONF.replace("http://127.0.0.1:24000", service)
    assert inside.count(service) == 2
    return f"server {{ listen 127.0.0.1:{port}; access_log off;\n{inside}\n}}\n"


@contextmanager
def running_nginx(site: str, address: str, folder: Path) -> Iterator[Path]:
    """Run nginx on the http section ``site``, which answers at ``address``; yield its error log."""
    program = require_nginx()
    folder.chmod(0o755)
    temporary = "".join(
        f"{module}_temp_path {folder}/{module}; "
        for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    who = f"user {folder.owner()} {folder.group()};" if os.geteuid() == 0 else ""
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(
        f"{who} pid {folder}/pid; error_log {folder}/error.log warn; daemon off; events {{}}\n"
        f"http {{ {temporary} include {folder}/site.conf; }}\n"
    )
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    subprocess.run([*command, "-t", "-q"], check=True)
    nginx = subprocess.Popen(command)
    try:
        retry = requests.adapters.HTTPAdapter(max_retries=Retry(connect=8, backoff_factor=0.05))
        with requests.Session() as session:
            session.mount("http://", retry)
            session.get(f"{address}/healthz", timeout=5)
        yield folder / "error.log"
    finally:
        nginx.terminate()
        nginx.wait(10)
