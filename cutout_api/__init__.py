"""Stamps of astronomical alerts, served from a parquet archive."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cutout-api")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0.1.0"
