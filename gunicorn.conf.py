"""gunicorn finds this file by itself when it is started in this folder."""

from cutout_api.server import *  # noqa: F403
