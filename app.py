"""The service: ``python app.py`` runs it, ``gunicorn app:app`` finds it."""

if __name__ == "__main__":
    import sys

    from cutout_api.cli import main

    sys.exit(main(["serve"]))

from cutout_api.server import make_application

app = application = make_application()
