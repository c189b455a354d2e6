"""The benchmark of the catalog, on a small one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import catalog as bench


@pytest.mark.timeout(240)
def test_it_measures_a_catalog_as_it_grows_and_writes_a_table(
    tmp_path: Path, catalog_url: str
) -> None:
    document = tmp_path / "operations.md"
    document.write_text(f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n")
    options = ["--alerts", "5000", "10000", "--megabytes", "2", "--watch", "0.2"]
    assert bench.main([*options, "--url", catalog_url, "--document", str(document)]) == 0
    text = document.read_text()
    assert text.startswith(f"before\n{bench.BEGIN}\nMeasured with ")
    assert text.endswith(f"\n{bench.END}\nafter\n")
    assert "old" not in text
    assert re.search(r"^\| 5,000 \| [\d,]+ \| \d+ \| \d+ \| [\d.]+ / [\d.]+ \|", text, re.M)
    assert re.search(r"^\| lsst \| \d+ \| \d+ \|$", text, re.M)
    assert "With `--watch 0.2` a new file is found" in text


def test_simulated_files_differ_and_ids_rise() -> None:
    last = 0
    for number in range(200):
        _, columns = bench.simulate(number, 1000)
        ids = [alert_id or 0 for alert_id in columns.alert_ids]
        assert min(ids) > last
        assert len(set(ids)) == bench.FILE_ROWS
        last = max(ids)


def test_the_document_has_the_marks() -> None:
    text = bench.DOCUMENT.read_text()
    assert text.index(bench.BEGIN) < text.index(bench.END)
