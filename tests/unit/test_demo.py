"""The simulated archive has the real alerts' schemas, headers and layout, and is consistent."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from cutout_api import demo, sky
from cutout_api.surveys import KINDS

SURVEYS = ("ztf", "lsst")


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return {"ztf": demo.simulate_ztf(objects=48), "lsst": demo.simulate_lsst(objects=48)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> demo.Summary:
    return demo.make_archive(tmp_path_factory.mktemp("demo"), objects=24)


def stamp_of(row: dict[str, Any], kind: str) -> bytes:
    """Return the FITS file of one kind, inflated."""
    cell = row[f"cutout{kind}"]
    return gzip.decompress(cell["stampData"]) if isinstance(cell, dict) else cell


def open_stamp(data: bytes) -> fits.HDUList:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ZTF's first card is out of place
        hdus = fits.open(io.BytesIO(data), ignore_missing_simple=True)
        assert all(hdu.data is not None for hdu in hdus)
    return hdus


def pixels_of(row: dict[str, Any], kind: str) -> np.ndarray:
    return open_stamp(stamp_of(row, kind))[0].data.astype(np.float64)


def cards_of(data: bytes) -> list[list[str]]:
    """Return the cards of each HDU, with what differs from stamp to stamp blanked out."""
    headers, offset = [], 0
    while offset < len(data):
        cards = []
        while not cards or not cards[-1].startswith("END"):
            cards.append(data[offset : offset + 80].decode("ascii"))
            offset += 80
        values = {card[:8].strip(): card[10:30].strip() for card in cards}
        size = abs(int(values["BITPIX"])) // 8 * int(values["NAXIS1"]) * int(values["NAXIS2"])
        offset = -(-(-(-offset // 2880) * 2880 + size) // 2880) * 2880
        headers.append([re.sub(VARYING, blank, card) for card in cards])
    return headers


VARYING = (
    r"(?<=^(?:NAXIS1  |NAXIS2  |CUTMINX |CUTMINY |ROTPA   |CRPIX\d  |PC\d_\d   |CRVAL\d  )=).{21}"
)


def blank(value: re.Match[str]) -> str:
    """Right-justified numbers of up to 14 digits are alike."""
    assert re.fullmatch(r" +-?[0-9]+(\.[0-9]+)?(E-\d\d)?", value[0]), value[0]
    return "#"


def light_within(image: np.ndarray, centre: tuple[float, float], radius: float) -> float:
    rows, columns = np.indices(image.shape)
    inside = np.hypot(columns - centre[0], rows - centre[1]) < radius
    outside = np.hypot(columns - centre[0], rows - centre[1]) > radius + 3
    return float((image[inside] - np.median(image[outside])).sum())


def walk_pages(path: Path, column: str) -> list[tuple[str, int]]:
    """Return (kind, number of values) of each page of a column, read from its page headers."""
    metadata = pq.read_metadata(path)
    data, pages = path.read_bytes(), []
    for group in (metadata.row_group(n) for n in range(metadata.num_row_groups)):
        chunk = next(
            chunk
            for chunk in (group.column(n) for n in range(group.num_columns))
            if chunk.path_in_schema == column
        )
        at = chunk.dictionary_page_offset or chunk.data_page_offset
        values = 0
        while values < chunk.num_values:
            header, at = read_struct(data, at)
            kind = "dictionary" if 7 in header else "data"
            pages.append((kind, header[7 if kind == "dictionary" else 5][1]))
            values += pages[-1][1] if kind == "data" else 0
            at += header[3]
    return pages


def read_struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Read one struct of Thrift's compact protocol: field id -> value."""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    fields, number = {}, 0
    while (head := data[at]) != 0:
        at += 1
        number, kind = number + (head >> 4), head & 15
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            value = varint()
            fields[number] = value >> 1 ^ -(value & 1)
        elif kind == 8:
            length = varint()
            fields[number] = data[at : at + length]
            at += length
        else:
            assert kind == 12
            fields[number], at = read_struct(data, at)
    return fields, at + 1


# --- As the real ones -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ztf", "ztf_spark_1.10.parquet"),
        ("lsst_v7", "lsst_spark_1.12_offsetindex.parquet"),
        ("lsst_v10", "lsst_empty_schema_v10.parquet"),
    ],
)
def test_schemas_are_those_of_real_files(name: str, file: str, real_data: Path) -> None:
    assert demo.read_schema(name).equals(pq.read_schema(real_data / file).remove_metadata())


def test_a_file_written_as_spark_does_has_the_real_files_parquet_schema(
    tmp_path: Path, tables: dict[str, pa.Table], real_data: Path
) -> None:
    demo.write_file(tmp_path / "a.parquet", tables["ztf"].slice(0, 2))
    ours = pq.ParquetFile(tmp_path / "a.parquet").schema
    real = pq.ParquetFile(real_data / "ztf_spark_1.10.parquet").schema
    for n in range(len(real)):
        ours_leaf, real_leaf = ours.column(n), real.column(n)
        assert ours_leaf.path == real_leaf.path
        assert ours_leaf.physical_type == real_leaf.physical_type
        assert ours_leaf.max_definition_level == real_leaf.max_definition_level
    assert len(ours) == len(real)


def test_ztf_cards_and_gzip_headers_are_the_real_ones(
    tables: dict[str, pa.Table], real_data: Path
) -> None:
    real = pq.read_table(real_data / "ztf_spark_1.10.parquet").to_pylist()[0]
    for row in tables["ztf"].slice(0, 20).to_pylist():
        for kind in KINDS:
            assert cards_of(stamp_of(row, kind)) == cards_of(stamp_of(real, kind))
            packed, theirs = row[f"cutout{kind}"]["stampData"], real[f"cutout{kind}"]["stampData"]
            assert packed[:4] + packed[8:10] == theirs[:4] + theirs[8:10]  # all but the time


def test_lsst_cards_are_the_real_ones(real_data: Path) -> None:
    path = real_data / "lsst_spark_1.12_offsetindex.parquet"
    real = pq.read_table(path).slice(0, 1).to_pylist()[0]
    for row in demo.simulate_lsst(objects=4, schema="lsst_v7").to_pylist():
        for kind in KINDS:
            assert cards_of(stamp_of(row, kind)) == cards_of(stamp_of(real, kind))


def test_the_newer_lsst_header_has_rotpa_besides(tables: dict[str, pa.Table]) -> None:
    older = demo.simulate_lsst(objects=1, schema="lsst_v7").to_pylist()[0]
    newer = tables["lsst"].to_pylist()[0]
    (ours, *_), (theirs, *_) = (cards_of(stamp_of(row, "Science")) for row in (newer, older))
    assert [card for card in ours if card not in theirs] == ["ROTPA   =#".ljust(60)]
    assert [card for card in theirs if card not in ours] == []


@pytest.mark.parametrize(
    ("survey", "file"),
    [("ztf", "ztf_spark_1.10.parquet"), ("lsst", "lsst_spark_1.12_offsetindex.parquet")],
)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_and_sizes_are_near_the_real_ones(
    survey: str, file: str, kind: str, tables: dict[str, pa.Table], real_data: Path
) -> None:
    def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
        images = [pixels_of(row, kind) for row in rows]
        cells = (row[f"cutout{kind}"] for row in rows)
        sizes = [len(cell["stampData"]) if isinstance(cell, dict) else len(cell) for cell in cells]
        spreads = [np.nanmedian(abs(image - np.nanmedian(image))) for image in images]
        return {"bytes": float(np.median(sizes)), "spread": float(np.median(spreads))}

    columns = [f"cutout{kind}"]
    ours = summarise(tables[survey].select(columns).slice(0, 60).to_pylist())
    real = summarise(pq.read_table(real_data / file, columns=columns).to_pylist())
    assert ours["bytes"] == pytest.approx(real["bytes"], rel=0.1)
    # The field of the real LSST alerts lies in a bright stretch of sky.
    factor = 2.2 if survey == "lsst" else 1.4
    assert real["spread"] / factor < ours["spread"] < real["spread"] * factor


# --- Consistent -------------------------------------------------------------------------------


@pytest.mark.parametrize("survey", SURVEYS)
def test_astropy_opens_every_stamp(survey: str, tables: dict[str, pa.Table]) -> None:
    shapes = Counter()
    for row in tables[survey].to_pylist():
        opened = [open_stamp(stamp_of(row, kind)) for kind in KINDS]
        assert len({hdus[0].data.shape for hdus in opened}) == 1
        shapes[opened[0][0].data.shape] += 1
        for hdus in opened if survey == "lsst" else []:
            assert [hdu.name for hdu in hdus] == ["PRIMARY", "UNCERT", "PSFIMAGE"]
            assert hdus["UNCERT"].data.shape == hdus[0].data.shape
            assert (hdus["UNCERT"].data > 0).all()
            assert hdus["PSFIMAGE"].data.dtype == ">f8"
            assert hdus["PSFIMAGE"].data.sum() == pytest.approx(1)
            assert "CTYPE1" not in hdus[0].header
    usual, count = shapes.most_common(1)[0]
    assert usual == ((63, 63) if survey == "ztf" else (30, 30))
    assert count < sum(shapes.values()) * 0.995, "some are of another shape"


def test_a_tenth_to_a_fifth_of_ztf_stamps_hold_nan() -> None:
    rows = demo.simulate_ztf(objects=90, nights=2).to_pylist()
    masked = [np.isnan(pixels_of(row, "Science")).mean() for row in rows]
    assert 0.08 < np.mean([share > 0 for share in masked]) < 0.22
    assert max(masked) < 0.5
    for row, share in zip(rows, masked, strict=True):
        assert np.isnan(pixels_of(row, "Difference")).mean() == share


def test_ztf_magnitudes_are_those_of_the_drawn_difference(tables: dict[str, pa.Table]) -> None:
    signs, ratios = Counter(), []
    for row in tables["ztf"].to_pylist():
        candidate, image = row["candidate"], pixels_of(row, "Difference")
        if candidate["sigmapsf"] > 0.04 or candidate["rb"] < 0.6 or np.isnan(image).any():
            continue
        # Science minus template where it is positive, template minus science where not.
        drawn = light_within(image, (31, (image.shape[0] - 1) / 2), 6)
        told = 10 ** (-0.4 * (candidate["magpsf"] - candidate["magzpsci"]))
        assert drawn == pytest.approx(told, rel=0.2)
        ratios.append(drawn / told)
        sign = "scimref" if candidate["isdiffpos"] == "t" else "refmsci"
        assert row["cutoutDifference"]["fileName"].endswith(f"_{sign}.fits.gz")
        signs[candidate["isdiffpos"]] += 1
    assert min(signs["t"], signs["f"]) >= 5
    assert np.median(ratios) == pytest.approx(1, abs=0.05)  # the circle misses the halo


def test_lsst_fluxes_are_those_of_the_drawn_difference(tables: dict[str, pa.Table]) -> None:
    signs, ratios = Counter(), []
    for row in tables["lsst"].to_pylist():
        source = row["diaSource"]
        if source["snr"] < 30 or source["isDipole"]:
            continue
        hdu = open_stamp(stamp_of(row, "Difference"))[0]
        centre = (hdu.header["CRPIX1"] - 1, hdu.header["CRPIX2"] - 1)
        drawn = light_within(hdu.data.astype(float), centre, 9)
        assert drawn == pytest.approx(source["psfFlux"], rel=0.22)
        ratios.append(drawn / source["psfFlux"])
        assert source["isNegative"] == (source["psfFlux"] < 0)
        signs[source["isNegative"]] += 1
    assert min(signs.values()) >= 5
    assert np.median(ratios) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("survey", SURVEYS)
def test_science_is_template_plus_difference(survey: str, tables: dict[str, pa.Table]) -> None:
    left = []
    for row in tables[survey].to_pylist():
        science, template, difference = (pixels_of(row, kind) for kind in KINDS)
        if np.isnan(science).any() or (survey == "lsst" and row["diaSource"]["snr"] < 30):
            continue
        if survey == "ztf":
            difference *= 1 if row["candidate"]["isdiffpos"] == "t" else -1
        # All the light of the stamp: the template has a seeing of its own.
        light = abs(template - np.median(template)).sum()
        left.append(abs(np.sum(science - template - difference)) / light)
    assert len(left) > 20
    assert np.median(left) < 0.01
    assert np.percentile(left, 90) < 0.05


def test_lsst_images_turn_from_one_visit_to_the_next_and_keep_the_skys_parity(
    tables: dict[str, pa.Table],
) -> None:
    angles = defaultdict(set)
    for row in tables["lsst"].to_pylist():
        header = open_stamp(stamp_of(row, "Science"))[0].header
        matrix = np.array([[header[f"PC{i}_{j}"] for j in (1, 2)] for i in (1, 2)])
        assert np.linalg.det(matrix) == pytest.approx(-((0.2 / 3600) ** 2))
        angle = np.degrees(np.arctan2(header["PC2_1"], header["PC2_2"]))
        assert abs((angle - header["ROTPA"] + 180) % 360 - 180) < 2
        angles[row["diaSource"]["visit"]].add(round(float(angle), 6))
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
        sky = WCS(header, naxis=2).pixel_to_world(header["CRPIX1"] - 1, header["CRPIX2"] - 1)
        assert sky.ra.deg == pytest.approx(row["diaSource"]["ra"])
    assert all(len(turned) == 1 for turned in angles.values())
    assert len(set.union(*angles.values())) == len(angles)


def test_ztf_ids_are_built_from_the_time_and_unique(tables: dict[str, pa.Table]) -> None:
    rows = tables["ztf"].to_pylist()
    assert len({row["candid"] for row in rows}) == len(rows)
    for row in rows:
        candidate = row["candidate"]
        assert row["candid"] == candidate["candid"] > 2**53
        assert row["candid"] // 10**6 == candidate["pid"]
        days = candidate["jd"] - 2457754.5
        assert candidate["pid"] // 10**4 == pytest.approx(days * 1e5, abs=1)
        assert re.fullmatch(r"ZTF\d\d[a-z]{7}", row["objectId"])
        assert candidate["ssnamenr"] == "null" or candidate["ndethist"] == 1


def test_lsst_ids_are_64_bit_and_unique(tables: dict[str, pa.Table]) -> None:
    rows = tables["lsst"].to_pylist()
    assert len({row["diaSourceId"] for row in rows}) == len(rows)
    assert all(2**53 < row["diaSourceId"] < 2**63 for row in rows)
    assert all(row["diaSourceId"] == row["diaSource"]["diaSourceId"] for row in rows)
    for row in rows:
        moving = row["diaObject"] is None
        assert moving == (row["ssSource"] is not None)
        assert moving == (row["diaSource"]["diaObjectId"] is None)
        if not moving:
            assert row["diaObject"]["diaObjectId"] == row["diaSource"]["diaObjectId"] > 2**53
    assert 0 < sum(row["diaObject"] is None for row in rows) < len(rows) / 5


@pytest.mark.parametrize("survey", SURVEYS)
def test_objects_have_several_epochs_at_one_place(survey: str, tables: dict[str, pa.Table]) -> None:
    seen: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in tables[survey].to_pylist():
        source = row["candidate"] if survey == "ztf" else row["diaSource"]
        name = row["objectId"] if survey == "ztf" else source["diaObjectId"]
        if name is not None:
            seen[name].append(source)
    assert np.mean([len(epochs) > 2 for epochs in seen.values()]) > 0.6
    for epochs in seen.values():
        assert np.ptp([epoch["dec"] for epoch in epochs]) < 1 / 3600


def test_ztf_history_has_detections_doubtful_ones_and_limits(tables: dict[str, pa.Table]) -> None:
    tags = Counter()
    for row in tables["ztf"].to_pylist():
        for past in row["prv_candidates"] or []:
            assert past["jd"] < row["candidate"]["jd"] < past["jd"] + 31
            assert past["diffmaglim"] is not None
            if past["magpsf"] is None:
                assert past["candid"] is None
                tags["limit"] += 1
            else:
                good = past["rb"] >= 0.55 and past["nbad"] == 0
                tags["valid" if good else "doubtful"] += 1
    assert min(tags[tag] for tag in ("valid", "doubtful", "limit")) >= 20


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_example_brightens_or_fades_by_more_than_a_factor_two(
    survey: str, made: demo.Summary
) -> None:
    archive = made.archives[SURVEYS.index(survey)]
    assert archive.example_path in archive.files
    fluxes = []
    for file in archive.files:
        for row in pq.ParquetFile(made.folder / file).read().to_pylist():
            if survey == "ztf" and row["objectId"] == archive.example_object:
                fluxes.append(10 ** (-0.4 * row["candidate"]["magpsf"]))
            elif (
                survey == "lsst" and str(row["diaSource"]["diaObjectId"]) == archive.example_object
            ):
                fluxes.append(row["diaSource"]["psfFlux"])
    assert len(fluxes) > 3
    assert max(fluxes) > 2 * min(fluxes) > 0


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_seed_settles_everything(survey: str) -> None:
    first, again, other = (demo.SIMULATE[survey](objects=5, seed=seed) for seed in (3, 3, 4))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize("survey", SURVEYS)
def test_null_stamps_are_made_on_demand_only(survey: str, tables: dict[str, pa.Table]) -> None:
    def nulls(table: pa.Table) -> Counter[str]:
        found: Counter[str] = Counter()
        for kind in KINDS:
            for cell in table[f"cutout{kind}"].to_pylist():
                found["whole"] += cell is None
                found["member"] += isinstance(cell, dict) and cell["stampData"] is None
        return found

    assert nulls(tables[survey]).total() == 0
    asked = nulls(demo.SIMULATE[survey](objects=12, null_stamps=0.5))
    assert asked["whole"] > 2
    assert (asked["member"] > 2) == (survey == "ztf")


# --- Copies, for benchmarks -------------------------------------------------------------------


@pytest.mark.parametrize("survey", SURVEYS)
def test_copies_have_ids_and_bytes_of_their_own_and_open(survey: str) -> None:
    drawn = demo.SIMULATE[survey](objects=6)
    table = demo.multiply_alerts(drawn, 20 * drawn.num_rows + 3)
    assert table.num_rows == 20 * drawn.num_rows + 3
    assert table.slice(0, drawn.num_rows).equals(drawn)
    ids = table["candid" if survey == "ztf" else "diaSourceId"].to_pylist()
    source = table["candidate" if survey == "ztf" else "diaSource"]
    assert len(set(ids)) == len(ids)
    assert (
        pc.struct_field(source, "candid" if survey == "ztf" else "diaSourceId").to_pylist() == ids
    )
    last = table.slice(table.num_rows - 1).to_pylist()[0]
    original = drawn.slice(2, 1).to_pylist()[0]
    for kind in KINDS:
        assert last[f"cutout{kind}"] != original[f"cutout{kind}"]
        np.testing.assert_allclose(pixels_of(last, kind), pixels_of(original, kind), rtol=1e-4)
    if survey == "ztf":
        names = Counter(table["objectId"].to_pylist())
        assert len(names) >= 20 * len(set(drawn["objectId"].to_pylist()))
        assert all(re.fullmatch(r"ZTF\d\d[a-z]{7}", name) for name in names)


# --- Files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("survey", SURVEYS)
def test_spark_pages_hold_100_stamps_without_dictionary(survey: str, tmp_path: Path) -> None:
    table = demo.SIMULATE[survey](objects=6, rows=250)
    demo.write_file(tmp_path / "spark.parquet", table, "spark")
    demo.write_file(tmp_path / "pyarrow.parquet", table, "pyarrow")
    column = "cutoutScience.stampData" if survey == "ztf" else "cutoutScience"
    pages = [("data", 100), ("data", 100), ("data", 50)]
    assert walk_pages(tmp_path / "spark.parquet", column) == pages
    assert walk_pages(tmp_path / "pyarrow.parquet", column) == [("dictionary", 250), ("data", 250)]
    for name in ("spark", "pyarrow"):
        assert pq.ParquetFile(tmp_path / f"{name}.parquet").read().equals(table)


@pytest.mark.parametrize(
    ("writer", "indexed"), [("spark", False), ("spark-indexed", True), ("pyarrow", False)]
)
def test_only_the_later_spark_leaves_an_offset_index(
    writer: str, indexed: bool, tmp_path: Path, tables: dict[str, pa.Table]
) -> None:
    path = tmp_path / "a.parquet"
    demo.write_file(path, tables["ztf"].slice(0, 3), writer)
    metadata = pq.read_metadata(path)
    group = metadata.row_group(0)
    stamps = next(
        group.column(n)
        for n in range(group.num_columns)
        if group.column(n).path_in_schema == "cutoutScience.stampData"
    )
    assert stamps.has_offset_index == indexed
    assert stamps.compression == "SNAPPY"
    assert (b"ARROW:schema" in metadata.metadata) == (writer == "pyarrow")
    if writer != "pyarrow":
        spark = json.loads(metadata.metadata[b"org.apache.spark.sql.parquet.row.metadata"])
        assert [column["name"] for column in spark["fields"]] == tables["ztf"].column_names


def test_overrides_reach_the_writer(tmp_path: Path, tables: dict[str, pa.Table]) -> None:
    path = tmp_path / "a.parquet"
    rows = tables["ztf"].slice(0, 9)
    demo.write_file(path, rows, "spark", compression="zstd", row_group_size=4)
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups == 3
    assert metadata.row_group(0).column(0).compression == "ZSTD"


# --- The archive ------------------------------------------------------------------------------


def test_the_archive_is_laid_out_by_night(made: demo.Summary) -> None:
    for archive in made.archives:
        home = rf"{archive.survey}/archive/science/year=2026/month=09/day=(11|12|13)"
        spark = r"part-00000-[0-9a-f-]{36}-c000\.snappy\.parquet"
        nights = [re.fullmatch(rf"{home}/({spark}|part-0\.parquet)", f) for f in archive.files]
        assert [night[1] for night in nights if night] == ["11", "12", "13"]
        rows = 0
        for file, night in zip(archive.files, nights, strict=True):
            table = pq.ParquetFile(made.folder / file).read()
            column = table["candidate" if archive.survey == "ztf" else "diaSource"]
            for source in column.to_pylist():
                mjd = source.get("midpointMjdTai") or source["jd"] - 2400000.5
                assert str(sky.day_of(mjd)) == f"2026-09-{night[1]}"
            rows += table.num_rows
        assert rows == archive.alerts
    found = {str(path.relative_to(made.folder)) for path in made.folder.rglob("*.parquet")}
    assert found == {file for archive in made.archives for file in archive.files}


def test_the_summary_names_an_alert_to_try(made: demo.Summary) -> None:
    for archive, line in zip(made.archives, str(made).splitlines(), strict=True):
        table = pq.ParquetFile(made.folder / archive.example_path).read()
        ids = table["candid" if archive.survey == "ztf" else "diaSourceId"].to_pylist()
        assert int(archive.example_alert) in ids
        assert archive.example_alert in line
        assert archive.example_path in line


def test_a_finished_archive_is_left_alone(made: demo.Summary) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    lines: list[str] = []
    again = demo.make_archive(made.folder, objects=9, seed=9, progress=lines.append)
    assert again.archives == made.archives
    assert not again.made
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before
    assert all("already" in line for line in lines)


def test_overwriting_leaves_no_file_of_the_archive_before(tmp_path: Path) -> None:
    demo.make_archive(tmp_path, objects=3, nights=2, surveys=["ztf"])
    made = demo.make_archive(tmp_path, objects=3, nights=1, seed=2, surveys=["ztf"], overwrite=True)
    assert made.made
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("part-*")]
    assert found == made.archives[0].files


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from cutout_api import demo

close, closed = pq.ParquetWriter.close, []
def close_and_die(writer):
    close(writer)
    closed.append(writer)
    if len(closed) == 2:
        path = Path(str(writer.where))
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
pq.ParquetWriter.close = close_and_die
overwrite = "overwrite" in sys.argv
demo.make_archive(Path(sys.argv[1]), objects=4, surveys=["ztf"], overwrite=overwrite)
"""


def test_a_killed_run_leaves_no_half_file_and_the_next_completes_it(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = subprocess.run([sys.executable, "-c", KILLED, str(killed)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [pq.read_metadata(path).num_row_groups for path in killed.rglob("part-*")] == [1]
    made = [demo.make_archive(folder, objects=4, surveys=["ztf"]) for folder in (killed, whole)]
    assert made[0].made
    assert made[0].archives == made[1].archives
    assert files_below(killed) == files_below(whole)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_an_archive_that_is_half_replaced_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    half, whole = tmp_path / "half", tmp_path / "whole"
    demo.make_archive(half, objects=4, surveys=["ztf"], nights=2, seed=2)
    done = subprocess.run([sys.executable, "-c", KILLED, str(half), "overwrite"], check=False)
    assert done.returncode == -signal.SIGKILL
    for folder in (half, whole):
        assert demo.make_archive(folder, objects=4, surveys=["ztf"], nights=2, seed=2).made
    assert files_below(half) == files_below(whole)


def test_interrupted_it_says_so_in_a_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cutout_api", "demo", tmp_path / "archive"],
        env=os.environ
        | {
            "CUTOUT_API_CONFIG": os.devnull,
            "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
        },
        # Also where the tests run behind a shell that ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline()  # of progress: it is at work
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert said.splitlines()[-1] == "cutout_api: interrupted"
    assert "Traceback" not in said
