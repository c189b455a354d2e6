"""The command ``cutout_api``: serve, check, index, get, demo."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

from . import __version__
from .errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, CutoutError, SettingsError
from .plain_text import say
from .settings import Settings, load_settings
from .surveys import SURVEYS

EXAMPLE_KEYS = {survey.name: survey.object_key.name for survey in SURVEYS}


def run() -> None:
    """Run the command that this process was started for, and end the process with its status.

    The interpreter would first wait for reads that were given up, which on a storage that
    hangs may never end.
    """
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # as of ``| head``
        say("cutout_api: nobody reads what is printed", file=sys.stderr)
        status = EXIT_FAILED
    os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _build_parser(arguments)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except SettingsError as error:
        say(f"cutout_api: {error}", file=sys.stderr)
        return EXIT_USAGE
    except CutoutError as error:
        say(f"cutout_api: {error.detail}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        say("cutout_api: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return status


def _build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cutout_api", description="Hands out the stamps of astronomical alerts."
    )
    parser.add_argument("--version", action="version", version=f"cutout_api {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="answer requests, as config.yml says")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="check the settings and that the archive answers")
    check.set_defaults(run=_check)

    index = commands.add_parser("index", help="catalog the alerts of the archive")
    index.add_argument("paths", nargs="*", metavar="PATH", help="default: all that is served")
    index.add_argument(
        "--blocks",
        action="store_true",
        help="and where each stamp is: reads each file once, answers fastest",
    )
    index.add_argument(
        "--pages", action="store_true", help="also note where the pages of stamps are"
    )
    index.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=5.0,
        metavar="SECONDS",
        help="go on for ever, and look for new files that often (default 5)",
    )
    index.add_argument("--status", action="store_true", help="say what the catalog holds")
    index.add_argument("--json", action="store_true", help="say it as JSON")
    index.add_argument(
        "--jobs", type=int, choices=range(1, 65), metavar="N", help="files read at a time"
    )
    index.set_defaults(run=_index)

    get = commands.add_parser("get", help="write the stamps of alerts to files")
    get.set_defaults(run=_get)
    if "get" in arguments[:1]:  # its options are the parameters of requests: half a second
        from .get import add_arguments

        add_arguments(get)

    demo = commands.add_parser("demo", help="make a simulated archive on local disk")
    demo.add_argument("folder", type=Path, nargs="?", default=Path("demo-archive"))
    demo.add_argument("--nights", type=int, default=3, help="nights to simulate (default 3)")
    demo.add_argument("--seed", type=int, default=1, help="another seed, another sky")
    demo.add_argument("--overwrite", action="store_true", help="replace what is there")
    demo.set_defaults(run=_demo)
    return parser


def _serve(_options: argparse.Namespace) -> int:
    load_settings()  # refuse bad settings before the server starts
    from gunicorn.app.wsgiapp import WSGIApplication

    sys.argv = ["cutout_api", "--config", "python:cutout_api.server"]
    WSGIApplication("%(prog)s", prog="cutout_api").run()
    return 0


def _check(_options: argparse.Namespace) -> int:
    from .reader import Reader

    settings = load_settings()
    reader = Reader(settings)
    try:
        reader.check()
        say(f"serves {reader.archive}")
    finally:
        reader.close()
    return 0


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be 0.1 to 3600")
    return seconds


def _index(options: argparse.Namespace) -> int:
    from . import indexing

    settings = load_settings()
    if options.json and not options.status:
        raise SettingsError("--json says what --status would: give both")
    if options.status:
        return indexing.print_status(settings, as_json=options.json)
    if options.watch and options.paths:
        raise SettingsError("--watch looks at the whole archive: give no PATH")
    if (options.blocks or options.pages) and not settings.index.folder:
        raise SettingsError("index.folder is not set: there is nowhere to keep what is learnt")
    with indexing.open_indexer(
        settings, blocks=options.blocks, jobs=options.jobs, pages=options.pages
    ) as indexer:
        if options.watch:
            return indexing.watch(indexer, options.watch)
        return EXIT_FAILED if indexing.index(indexer, options.paths) else 0


def _get(options: argparse.Namespace) -> int:
    from .get import run

    return run(options)


def _demo(options: argparse.Namespace) -> int:
    from .demo import make_archive

    summary = make_archive(
        options.folder,
        nights=options.nights,
        seed=options.seed,
        overwrite=options.overwrite,
        progress=lambda line: say(line, file=sys.stderr),
    )
    print(summary)
    settings = load_settings()
    catalogued = _catalog_demo(settings, options.folder)
    server = settings.server
    host = "127.0.0.1" if server.host == "0.0.0.0" else server.host  # noqa: S104
    print("\nOnce the service runs, try:")
    for archive in summary.archives:
        asked = {EXAMPLE_KEYS[archive.survey]: archive.example_object, "kind": "All"}
        if not catalogued:
            asked |= {"hdfsPath": archive.example_path, "output-format": "PNG"}
        query = urlencode(asked, safe="/=")
        print(
            f"  curl -o {archive.survey}.png 'http://{host}:{server.port}/api/v1/cutouts?{query}'"
        )
    return 0


def _catalog_demo(settings: Settings, folder: Path) -> bool:
    """Catalog the demo archive, so that it answers without paths; say so where that fails."""
    from . import indexing

    archive = replace(settings.archive, uri=str(folder.absolute()), roots=())
    try:
        with indexing.open_indexer(
            replace(settings, archive=archive), blocks=False, jobs=None
        ) as indexer:
            indexer.run(indexer.plan())
            indexer.note_walk()
    except CutoutError as error:
        say(f"not catalogued: {error.detail}", file=sys.stderr)
        return False
    return True
