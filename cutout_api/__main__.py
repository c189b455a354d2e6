"""``python -m cutout_api``."""

from .cli import run

run()
