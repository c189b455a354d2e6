"""Asking a running service: retries, the cache on disk, and its errors as exceptions.

ServiceError            any answer that is an error
  BadRequest            400, 405, 413, 414, 415: what was asked cannot be answered
    AmbiguousId         a number that is an alert of both surveys
  Forbidden             403
  NotFound              404
  Unavailable           429, 503, 504: worth another try, later
    Unreachable         there was no answer at all
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import requests
from cachecontrol import CacheControlAdapter
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import InvalidHeader, MaxRetryError, ResponseError
from urllib3.util import Retry

from . import __version__
from .http_cache import FolderCache

Params = Mapping[str, str]

LONGEST_WAIT = 120.0
"""Seconds: whoever is told to wait longer is told so at once."""
BACKOFF_SECONDS = 0.2
"""Doubled with each try, where the service does not say how long to wait."""
WORTH_ANOTHER_TRY = (429, 503, 504)
LONGEST_QUERY = 6000
"""A longer one is sent as the body of a POST."""


class ServiceError(Exception):
    """An error that the service answered: the members of its ``application/problem+json``."""

    def __init__(self, status: int, members: Mapping[str, Any]) -> None:
        self.status = status
        """Of HTTP; 0 where there was no answer."""
        self.code = str(members.get("code") or f"http_{status}")
        self.detail = str(members.get("detail") or f"the service answered {status}")
        self.suggestion: str | None = members.get("suggestion")
        self.parameter: str | None = members.get("parameter")
        self.allowed: list[str] | None = members.get("allowed")
        super().__init__(f"{self.detail} ({self.code})")


class BadRequest(ServiceError):
    """What was asked cannot be answered as it was asked."""


class AmbiguousId(BadRequest):
    """A number that is an alert of both surveys; say which by ``candid=`` or ``diaSourceId=``."""


class Forbidden(ServiceError):
    """The path is not one that the service may read."""


class NotFound(ServiceError):
    """No such alert, stamp, plane, file or address."""


class Unavailable(ServiceError):
    """The service is busy or cannot reach its archive, however often it was asked again."""


class Unreachable(Unavailable):
    """There was no answer."""


_CLASSES: Mapping[int, type[ServiceError]] = {
    **dict.fromkeys((400, 405, 413, 414, 415), BadRequest),
    403: Forbidden,
    404: NotFound,
    **dict.fromkeys(WORTH_ANOTHER_TRY, Unavailable),
}


@dataclass(frozen=True)
class Answer:
    """What the service answered."""

    content: bytes
    headers: Mapping[str, str]
    from_cache: bool
    """Whether the body came from disk, after asking whether it still holds or without."""


class PatientRetry(Retry):
    """Waits as ``Retry-After`` says, unless that is longer than anyone would."""

    RETRY_AFTER_STATUS_CODES = frozenset({429, 503})

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        try:
            return super().get_retry_after(response)
        except InvalidHeader:
            return None

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if response is not None and (self.get_retry_after(response) or 0) > LONGEST_WAIT:
            # With raise_on_status=False the response is then answered as it is.
            raise MaxRetryError(_pool, url, ResponseError("asks for too long a wait"))  # type: ignore[arg-type]
        return super().increment(method, url, response, error, _pool, _stacktrace)


class Session:
    """A connection to one service, kept open; threads may share it."""

    def __init__(
        self, address: str, *, cache: Path | None, cache_bytes: int, timeout: float, retries: int
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(
                f"{address!r} is not the address of a service, such as http://127.0.0.1:24000"
            )
        if retries < 0 or timeout <= 0:
            raise ValueError("retries must be 0 or more, and timeout above 0 seconds")
        self.address = address.rstrip("/")
        self._timeout = timeout
        self._retries = retries
        patience = PatientRetry(
            total=retries,
            backoff_factor=BACKOFF_SECONDS,
            status_forcelist=WORTH_ANOTHER_TRY,
            allowed_methods=("GET", "POST"),  # a POST changes nothing here
            raise_on_status=False,
        )
        self._session = requests.Session()
        self._session.headers["User-Agent"] = (
            f"cutout_api/{__version__} {requests.utils.default_user_agent()}"
        )
        adapter = (
            HTTPAdapter(max_retries=patience)
            if cache is None
            else CacheControlAdapter(FolderCache(cache, cache_bytes), max_retries=patience)
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def close(self) -> None:
        self._session.close()

    def get(self, path: str, params: Params) -> Answer:
        """Return the answer to GET, or to POST where the query would be too long.

        Raises ServiceError.
        """
        if len(urlencode(params)) > LONGEST_QUERY:
            return self._ask("POST", path, json=dict(params))
        return self._ask("GET", path, params=dict(params))

    def _ask(self, method: str, path: str, **content: Any) -> Answer:
        for left in range(self._retries, -1, -1):
            try:
                response = self._send(method, path, **content)
                return Answer(
                    response.content, response.headers, getattr(response, "from_cache", False)
                )
            except requests.exceptions.ChunkedEncodingError as error:
                # It broke off in the middle, which urllib3 leaves to its callers.
                if not left:
                    raise self._unreachable(error) from error
            except requests.RequestException as error:
                raise self._unreachable(error) from error
        raise AssertionError

    def stream(self, path: str, content: Any) -> Iterator[bytes]:
        """Yield the lines of the answer to POST as they arrive.

        Raises ServiceError, also where the answer breaks off.
        """
        try:
            with self._send("POST", path, json=content, stream=True) as response:
                yield from response.iter_lines(chunk_size=1 << 16)
        except requests.RequestException as error:
            raise self._unreachable(error) from error

    def _send(self, method: str, path: str, **content: Any) -> requests.Response:
        for _ in range(2):
            response = self._session.request(
                method, self.address + path, timeout=self._timeout, **content
            )
            # 304: what was kept holds, but was dropped meanwhile; asked again, it is sent whole.
            if response.status_code != HTTPStatus.NOT_MODIFIED:
                break
        if response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            raise problem(response.status_code, response.content)
        return response

    def _unreachable(self, error: requests.RequestException) -> Unreachable:
        reason = {
            requests.exceptions.ChunkedEncodingError: "broke off in the middle of its answer",
            requests.exceptions.ReadTimeout: f"did not answer within {self._timeout:g} s",
            requests.exceptions.ConnectTimeout: f"did not answer within {self._timeout:g} s",
            requests.exceptions.SSLError: "has a certificate that is not trusted",
            requests.exceptions.InvalidURL: "is not an address",
        }.get(type(error), "cannot be reached: is it running, and is that its address?")
        return Unreachable(0, {"code": "unreachable", "detail": f"{self.address} {reason}"})


def problem(status: int, body: bytes) -> ServiceError:
    """Return the exception for an error that was answered, by the service or by a proxy."""
    try:
        members = json.loads(body)
    except ValueError:
        members = None
    return service_error(status, members if isinstance(members, dict) else {})


def service_error(status: int, members: Mapping[str, Any]) -> ServiceError:
    """Return the exception for the members of an error."""
    return _CLASSES.get(status, ServiceError)(status, members)
