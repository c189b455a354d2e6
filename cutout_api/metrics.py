"""Counters and stage timers, right across the processes of one service.

prometheus-client adds the processes up when ``PROMETHEUS_MULTIPROC_DIR`` names a folder they
share; ``gunicorn.conf.py`` sees to that before this module is imported.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

Stage = Literal["look up", "find", "read", "decode", "format"]
STAGES: tuple[Stage, ...] = get_args(Stage)
MEDIA_TYPE = CONTENT_TYPE_LATEST

_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

REQUESTS = Counter("cutout_requests", "Requests answered.", ("route", "format", "status"))
REQUEST_SECONDS = Histogram(
    "cutout_request_seconds", "Time to answer a request.", ("route",), buckets=_BUCKETS
)
STAGE_SECONDS = Histogram(
    "cutout_stage_seconds",
    "Time in one stage of answering: " + ", ".join(STAGES) + ".",
    ("stage",),
    buckets=_BUCKETS,
)
BYTES_READ = Counter("cutout_storage_bytes", "Bytes read from the archive.")
READS = Counter("cutout_storage_reads", "Positioned reads made on the archive.")
ITEMS = Counter("cutout_batch_items", "Ids answered in batches.", ("status",))
READ_BY = Counter("cutout_stamps_read", "Stamps read by block, page or row group.", ("by",))
INDEX_BYTES = Gauge(
    "cutout_index_bytes", "Memory of the file indexes at hand.", multiprocess_mode="livesum"
)
CACHE = Counter("cutout_cache", "Look-ups in a cache.", ("cache", "result"))

# Looking up a labelled metric costs as much as counting with it.
_stage = cache(STAGE_SECONDS.labels)
_cache = cache(CACHE.labels)
_read_by = cache(READ_BY.labels)
_items = cache(ITEMS.labels)
_requests = cache(REQUESTS.labels)
_request_seconds = cache(REQUEST_SECONDS.labels)


class stage:  # noqa: N801
    """Time what is done inside as one of ``STAGES``."""

    __slots__ = ("_name", "_start")

    def __init__(self, name: Stage) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_failure: object) -> None:
        _stage(self._name).observe(time.perf_counter() - self._start)


def count_cache(cache: str, *, hit: bool) -> None:
    """Count one look-up in ``cache``."""
    _cache(cache, "hit" if hit else "miss").inc()


def count_stamp(how: str, count: int = 1) -> None:
    """Count stamps, read by block, page or row group."""
    _read_by(how).inc(count)


def count_item(status: int) -> None:
    """Count one id of a batch."""
    _items(str(status)).inc()


def count_request(route: str, form: str, status: int, seconds: float) -> None:
    """Count one request; each argument but the last is one of few values."""
    _requests(route, form, str(status)).inc()
    _request_seconds(route).observe(seconds)


def exposition() -> bytes:
    """Return the metrics of every process of the service, in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
