"""The service: ``python app.py`` runs it, ``gunicorn app:app`` finds it."""

import sys

from cutout_api.cli import main
from cutout_api.errors import SettingsError
from cutout_api.settings import load_settings

if __name__ == "__main__":
    sys.exit(main(["serve"]))

from cutout_api.web import create_app

try:
    app = application = create_app(load_settings())
except SettingsError as error:
    sys.exit(f"cutout_api: {error}")
