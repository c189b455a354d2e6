"""What is believed of a request that came through a proxy, and below which path it was sent.

``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``-Prefix`` are believed where the peer of the
connection is a trusted proxy, and are taken out of every other request. werkzeug's ``ProxyFix``
then applies them; it counts proxies and looks at no address, so it must see what is left here
alone. (gunicorn's ``forwarded_allow_ips`` looks at addresses, but knows scheme and SCRIPT_NAME
only, and trusts each peer of a unix socket; it is off.)

``Forwarded`` (RFC 7239) is not read: it has no prefix, and a proxy that sets one family of headers
passes the other on as its client sent it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

log = logging.getLogger("cutout_api")

UNIX = "unix"
"""In a list of trusted proxies: whoever connects through a unix socket, which has no address."""
PROXIED = "cutout_api.proxied"
"""Set in the environ of a request that has such a header, believed or not."""
LONGEST_PREFIX, LONGEST_HOST = 200, 255
FOR = "HTTP_X_FORWARDED_FOR"
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_HOST = re.compile(r"(\w[\w.-]*|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", re.ASCII)
_HOP = re.compile(r"\[(?P<v6>[^\]]+)\](:\d{1,5})?|(?P<v4>[\d.]+):\d{1,5}", re.ASCII)

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


def is_prefix(text: str) -> bool:
    """Tell whether a text is a path such as ``/stamps``, which can be put before any other.

    Its segments hold nothing that any reader of an address could take for something else, and
    none begins with a dot; it ends without a slash.
    """
    return len(text) <= LONGEST_PREFIX and _PREFIX.fullmatch(text) is not None


def _clean_prefix(text: str) -> str | None:
    path = text.removesuffix("/")
    return path if not path or is_prefix(path) else None


def _clean_scheme(text: str) -> str | None:
    scheme = text.lower()
    return scheme if scheme in ("http", "https") else None


def _clean_host(text: str) -> str | None:
    return text if len(text) <= LONGEST_HOST and _HOST.fullmatch(text) else None


CLEANERS: Mapping[str, Callable[[str], str | None]] = {
    "HTTP_X_FORWARDED_PREFIX": _clean_prefix,
    "HTTP_X_FORWARDED_PROTO": _clean_scheme,
    "HTTP_X_FORWARDED_HOST": _clean_host,
}
HEADERS = (FOR, *CLEANERS, "HTTP_FORWARDED")
_HEADERS = frozenset(HEADERS)


def parse_proxy(text: str) -> Callable[[IPv4Address | IPv6Address], bool]:
    """Return whether an address belongs to ``10.0.0.0/8`` or is ``10.0.0.1``.

    Raises ValueError saying what is wrong.
    """
    return ip_network(text).__contains__


def parse_hop(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address of ``1.2.3.4``, ``1.2.3.4:567``, ``2001:db8::1``, ``[2001:db8::1]:567``.

    An IPv4 address that IPv6 carries is itself; None is returned for what is no address.
    """
    match = _HOP.fullmatch(text)
    bare = (match["v6"] or match["v4"]) if match else text
    try:
        address = ip_address(bare.partition("%")[0])  # the zone means something to its host alone
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Front:
    """WSGI middleware before ``ProxyFix``: leaves of each header the one value to believe.

    ``behind`` is the application within ``ProxyFix``, for requests with any such header.

    ``prefix`` is the path that the service lies below; a request may have it in its path, as a
    proxy that passes paths on leaves it there, or not.
    """

    def __init__(
        self, application: Application, behind: Application, prefix: str, trusted: Sequence[str]
    ) -> None:
        self._application, self._behind = application, behind
        self._prefix = prefix
        self._trusts_unix = UNIX in trusted
        self._trusted = [parse_proxy(each) for each in trusted if each != UNIX]
        self._trusts = lru_cache(maxsize=1024)(self._is_trusted)
        self._said: set[str] = set()

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if self._prefix:
            self._take_prefix(environ)
        if _HEADERS.isdisjoint(environ):
            return self._application(environ, start_response)
        environ[PROXIED] = True
        self._sift(environ)
        return self._behind(environ, start_response)

    def _take_prefix(self, environ: Environ) -> None:
        before, found, path = environ["PATH_INFO"].partition(self._prefix)
        if found and not before and path[:1] in ("", "/"):
            environ["PATH_INFO"] = path
        environ["SCRIPT_NAME"] = self._prefix

    def _sift(self, environ: Environ) -> None:
        given = {name: environ.pop(name, "") for name in HEADERS}
        peer = environ.get("REMOTE_ADDR", "")
        if not self._trusts(peer):
            return
        for name, clean in CLEANERS.items():
            # Of a list the last, which the peer itself has written; those before it may be the
            # client's.
            if text := given[name].rpartition(",")[2].strip():
                value = clean(text)
                if value is None:
                    self._complain(name, text)
                elif value:
                    environ[name] = value
        if client := self._find_client(given[FOR], peer):
            environ[FOR] = client

    def _find_client(self, hops: str, peer: str) -> str:
        """Return the last address that is no trusted proxy's: each was noted by the one after it.

        Where one of them noted what is no address, that proxy is the last that is known.
        """
        client = peer
        for hop in reversed(hops.split(",")):
            if text := hop.strip():
                address = parse_hop(text) if self._trusts(client) else None
                if address is None:
                    break
                client = str(address)
        return client

    def _is_trusted(self, peer: str) -> bool:
        address = parse_hop(peer)
        if address is None:
            return self._trusts_unix
        return any(holds(address) for holds in self._trusted)

    def _complain(self, name: str, text: str) -> None:
        if name not in self._said:  # once, not for each request
            self._said.add(name)
            header = name.removeprefix("HTTP_").replace("_", "-").title()
            log.warning("%s: %.80r, from a trusted proxy, is passed over", header, text)
