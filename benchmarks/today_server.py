"""gunicorn's settings for today's algorithm: those of ``cutout_api.server``."""

import os

from cutout_api.settings import load_settings

_server = load_settings(os.devnull).server

wsgi_app = "benchmarks.today:create_app()"
bind = f"127.0.0.1:{_server.port}"
workers = _server.workers
threads = _server.threads
worker_class = "gthread"
loglevel = "warning"
timeout = 60
keepalive = 5
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
