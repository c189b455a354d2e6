"""Catalog a backlog of years with Spark: the same rows in the same catalog, on many machines.

    spark-submit --py-files cutout_api.zip install/spark_index.py [PATH...]

Settings come from config.yml and the environment, as for `cutout_api index`, and travel with the
tasks. The driver lists the archive and leaves out what the catalog has; each task takes some
files, reads them as `cutout_api index` does, and writes each in a transaction of its own. A task
that Spark repeats, and a job that is started anew, go on where the last one stopped.

On a cluster `catalog.url` must be PostgreSQL, and each Python of the executors needs what
requirements.txt lists (`spark.pyspark.python`). `archive.driver: native` spares them a second JVM.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator

from pyspark.sql import SparkSession

from cutout_api.catalog import GONE
from cutout_api.errors import CutoutError, SettingsError
from cutout_api.indexing import Outcome, Plan, open_indexer
from cutout_api.plain_text import say
from cutout_api.settings import Settings, load_settings
from cutout_api.storage import FileId


def index_files(settings: Settings) -> Callable[[Iterable[FileId]], Iterator[Outcome]]:
    """Return what a task does with its files; it yields what came of each."""

    def work(files: Iterable[FileId]) -> Iterator[Outcome]:
        with open_indexer(settings, blocks=False, jobs=2) as indexer:
            yield from indexer.execute(Plan(todo=list(files)))

    return work


def main() -> int:
    parser = argparse.ArgumentParser(description="Catalog the alerts of the archive with Spark.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="default: all that is served")
    parser.add_argument("--files-per-task", type=int, default=50, metavar="N")
    options = parser.parse_args()
    settings = load_settings()
    # Listing first: nothing of Spark is needed to find that there is nothing to do.
    with open_indexer(settings, blocks=False, jobs=1) as indexer:
        plan = indexer.plan(options.paths)
        for outcome in indexer.execute(Plan(gone=plan.gone)):
            say(f"{outcome.path}: {GONE}", file=sys.stderr)
    files = [*plan.todo, *plan.late]
    failed = alerts = 0
    if files:
        spark = SparkSession.builder.appName("cutout_api index").getOrCreate()
        tasks = -(-len(files) // max(1, options.files_per_task))
        try:
            shared = spark.sparkContext.parallelize(files, tasks)
            # As they are done: the outcomes of years do not fit into the driver at once.
            for outcome in shared.mapPartitions(index_files(settings)).toLocalIterator(True):
                alerts += outcome.alerts
                failed += outcome.failed
                if outcome.failed:
                    say(f"{outcome.path}: {outcome.message}", file=sys.stderr)
        finally:
            spark.stop()
    if not options.paths:
        with open_indexer(settings, blocks=False, jobs=1) as indexer:
            indexer.note_walk()
    say(f"{plan.listed} files, {len(files)} of them new with {alerts} alerts, {failed} unread")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (CutoutError, SettingsError) as error:
        sys.exit(f"spark_index: {error}")
