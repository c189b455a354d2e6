"""Succeed when the service on this machine answers /healthz, on the port its settings name."""

import sys
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from cutout_api.settings import load_settings

url = f"http://127.0.0.1:{load_settings().server.port}/healthz"
# No proxy, whatever http_proxy says: this request stays on the machine.
opener = build_opener(ProxyHandler({}))
try:
    opener.open(url, timeout=4).close()
except (URLError, OSError) as error:
    sys.exit(f"{url}: {error}")
