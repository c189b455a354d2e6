"""The columns that the catalog keeps: exact, whatever type a file holds them in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutout_api import metrics
from cutout_api.alert_columns import AlertColumns, read_alert_columns, read_entry
from cutout_api.errors import FileUnreadable
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Settings
from cutout_api.storage import Archive
from cutout_api.surveys import LSST, ZTF, pack_ztf_name, unpack_ztf_name


def read(folder: Path, name: str = "f.parquet") -> list[AlertColumns]:
    archive = Archive(Settings(archive=ArchiveSettings(uri=str(folder))))
    (file_id,) = archive.locate(name)
    with archive.open(file_id) as file:
        return read_alert_columns(file)


def write(folder: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), folder / "f.parquet", row_group_size=2)


def bytes_read() -> float:
    (family,) = metrics.BYTES_READ.collect()
    return float(family.samples[0].value)


def candidate(**fields: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays(list(fields.values()), list(fields))


def test_every_column_of_an_alert_is_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "objectId": ["ZTF24aaaaaaa", None, "ZTF18zzzzzzz"],
            "candid": pa.array([2**62 + 1, 5, None], pa.int64()),
            "candidate": candidate(
                jd=pa.array([2460000.1234567, None, math.nan]),
                fid=pa.array([1, 9, None], pa.int32()),
                magpsf=pa.array([18.1, None, math.inf], pa.float32()),
                ra=pa.array([359.999999, 1.0, None]),
                dec=pa.array([-89.5, 2.0, None]),
                isdiffpos=pa.array(["t", "f", "?"]),
            ),
            "diaSource": [1, 2, 3],  # a name of the other survey, without its id
        },
    )
    (found,) = read(tmp_path)
    assert found.survey is ZTF
    first, second, third = found.rows()
    assert first == (
        2**62 + 1,
        pack_ztf_name("ZTF24aaaaaaa"),
        2460000.1234567,
        "g",
        pytest.approx(18.1),
        359.999999,
        -89.5,
        True,
    )
    assert second == (5, None, None, None, None, 1.0, 2.0, False)
    assert third == (None, pack_ztf_name("ZTF18zzzzzzz"), *[None] * 6)


def test_a_null_struct_makes_its_fields_null(tmp_path: Path) -> None:
    kind = pa.struct([("diaSourceId", pa.int64()), ("midpointMjdTai", pa.float64())])
    write(
        tmp_path, {"diaSource": pa.array([None, {"diaSourceId": 7, "midpointMjdTai": 6.5}], kind)}
    )
    (found,) = read(tmp_path)
    assert found.survey is LSST
    assert found.alert_ids == [None, 7]
    assert found.times == [None, 6.5]


# What a column of ids may be, and which ids come of it.
ID_COLUMNS = [
    (pa.array([2**63, 2**63 - 1], pa.uint64()), [None, 2**63 - 1]),
    (pa.array(["9007199254740993", "7.0"]), [9007199254740993, None]),
    (pa.array([b"12", b"x"]), [12, None]),
    (pa.array(["1", "1"]).dictionary_encode(), [1, 1]),
    (pa.array([3, 4], pa.int32()), [3, 4]),
]


@pytest.mark.parametrize(("ids", "expected"), ID_COLUMNS)
def test_ids_are_exact_or_none(tmp_path: Path, ids: pa.Array, expected: list[int | None]) -> None:
    write(tmp_path, {"candid": ids, "objectId": ["ZTF24aaaaaaa"] * 2})
    (found,) = read(tmp_path)
    assert found.alert_ids == expected


def test_names_that_are_no_object_names_are_none(tmp_path: Path) -> None:
    names = ["ZTF24AAAAAAA", "", "ZTF24aaaaaaa ", "x" * 1000]
    write(tmp_path, {"candid": [1, 2, 3, 4], "objectId": names})
    (found,) = read(tmp_path)
    assert found.object_ids == [None] * 4


def test_names_may_be_stored_as_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"candid": [1, 2], "objectId": pa.array([b"ZTF24aaaaaaa", b"\xff"])})
    (found,) = read(tmp_path)
    assert found.object_ids == [pack_ztf_name("ZTF24aaaaaaa"), None]


@pytest.mark.parametrize(
    "columns", [{"x": [1]}, {"candid": [True]}, {"candid": [[1]]}, {"ra": [1.0], "jd": [2.0]}]
)
def test_a_file_without_ids_is_of_no_survey(tmp_path: Path, columns: dict[str, Any]) -> None:
    write(tmp_path, columns)
    assert read(tmp_path) == []


def test_entries_are_those_of_an_object(tmp_path: Path) -> None:
    write(
        tmp_path, {"candid": [1, 2, 3], "objectId": ["ZTF24aaaaaaa", "ZTF24aaaaaab"] * 1 + [None]}
    )
    (found,) = read(tmp_path)
    archive = Archive(Settings(archive=ArchiveSettings(uri=str(tmp_path))))
    (file_id,) = archive.locate("f.parquet")
    (entry,) = found.entries(file_id, {"ZTF24aaaaaab"})
    assert (entry.row, entry.alert_id, entry.object_id) == (1, 2, "ZTF24aaaaaab")
    assert [entry.object_id for entry in found.entries(file_id)][2] is None


@pytest.mark.parametrize(
    ("column", "signs"),
    [
        (pa.array(["t", "f", "1", "0", "?"]), [True, False, True, False, None]),
        (pa.array([1, 0, None, 7], pa.int32()), [True, False, None, None]),
        (pa.array([1, 0, -1], pa.int8()), [True, False, None]),
        (pa.array([True, False, None]), [True, False, None]),
    ],
    ids=["text", "int32", "int8", "boolean"],
)
def test_the_sign_is_read_however_a_file_spells_it(
    tmp_path: Path, column: pa.Array, signs: list[bool | None]
) -> None:
    write(
        tmp_path,
        {"candid": list(range(len(column))), "candidate": candidate(isdiffpos=column)},
    )
    (found,) = read(tmp_path)
    assert found.signs == signs
    # A picture's facts are read by the same code, row by row.
    archive = Archive(Settings(archive=ArchiveSettings(uri=str(tmp_path))))
    (file_id,) = archive.locate("f.parquet")
    with archive.open(file_id) as file:
        assert [read_entry(file, ZTF, row).positive for row in range(len(signs))] == signs


def test_a_damaged_column_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"candid": list(range(50_000)), "objectId": ["ZTF24aaaaaaa"] * 50_000})
    content = bytearray((tmp_path / "f.parquet").read_bytes())
    content[100:5000] = bytes(4900)
    (tmp_path / "f.parquet").write_bytes(content)
    with pytest.raises(FileUnreadable):
        read(tmp_path)


@pytest.mark.parametrize("name", ["ZTF00aaaaaaa", "ZTF24abssjsb", "ZTF99zzzzzzz"])
def test_a_packed_name_is_unpacked_to_itself(name: str) -> None:
    packed = pack_ztf_name(name)
    assert unpack_ztf_name(packed) == name
    assert 0 <= packed < 2**40


def test_packed_names_are_in_the_order_of_names() -> None:
    names = ["ZTF17zzzzzzz", "ZTF18aaaaaaa", "ZTF18aaaaaab", "ZTF18aaaaaba", "ZTF18baaaaaa"]
    assert [pack_ztf_name(name) for name in names] == sorted(map(pack_ztf_name, names))


@pytest.mark.parametrize("name", ["ZTF1aaaaaaaa", "ztf18aaaaaaa", "ZTF18aaaaaa", "ZTF18aaaaaa1", 5])
def test_what_is_no_object_name_is_not_packed(name: Any) -> None:
    with pytest.raises(ValueError):
        pack_ztf_name(name)


def test_reading_them_takes_a_small_part_of_the_file(tmp_path: Path) -> None:
    rows = 20_000
    write_wide = {
        "candid": range(rows),
        "objectId": ["ZTF24aaaaaaa"] * rows,
        "cutoutScience": pa.array([b"%07d" % n * 300 for n in range(rows)]),
    }
    pq.write_table(pa.table(write_wide), tmp_path / "f.parquet", compression="none")
    before = bytes_read()
    read(tmp_path)
    assert 0 < bytes_read() - before < (tmp_path / "f.parquet").stat().st_size / 20


def test_real_files_of_each_kind_are_read(real_data: Path) -> None:
    found = {file.name: read(real_data, file.name) for file in sorted(real_data.glob("*.parquet"))}
    for name, columns in found.items():
        (alerts,) = columns
        table = pq.ParquetFile(real_data / name)
        assert len(alerts) == table.metadata.num_rows
        assert alerts.survey.name == name[: len(alerts.survey.name)]
        assert None not in alerts.alert_ids
    (whole,) = found["ztf_spark_1.10.parquet"]
    table = pq.read_table(real_data / "ztf_spark_1.10.parquet", columns=["candid", "candidate"])
    assert whole.alert_ids == table["candid"].to_pylist()
    candidates = table["candidate"].to_pylist()
    assert whole.times == [row["jd"] for row in candidates]
    assert whole.brightness == [row["magpsf"] for row in candidates]
    assert whole.bands == [ZTF.bands[row["fid"]] for row in candidates]
    assert whole.signs == [ZTF.signs[row["isdiffpos"]] for row in candidates]
