"""A catalog of an archive, made as `cutout_api index` makes it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace

from cutout_api.indexing import open_indexer
from cutout_api.settings import Catalog, Settings


def catalogued(settings: Settings, *folders: str) -> Settings:
    """Catalog the archive of ``settings``, or folders of it; return settings that name the catalog.

    Damaged files are passed over, as they are in an archive.
    """
    home = tempfile.mkdtemp(prefix="cutout-api-catalog-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    made = replace(settings, catalog=Catalog(f"sqlite:///{home}/catalog.sqlite"))
    with open_indexer(made, blocks=False, jobs=2) as indexer:
        indexer.run(indexer.plan(folders))
    return made
