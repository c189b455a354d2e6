"""What a footer says of its column chunks: as pyarrow says it, where that survives being asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutout_api.errors import CutoutError, FileUnreadable, NotParquet
from cutout_api.footer import FileMetadata, FooterDamaged
from cutout_api.index import FileIndex, build_index
from cutout_api.isolation import resident_bytes
from cutout_api.pages import Footer, read_columns, read_footer
from cutout_api.surveys import ZTF

from ..archive import opened
from ..samples import KINDS, write, write_encrypted, ztf_alert
from ..thrift_bytes import Fields, chunks_of, get, join, put, split

# Thrift field ids of a column chunk and of its metadata.
FILE_PATH, META, CRYPTO = 1, 3, 8
CODEC, VALUES, UNCOMPRESSED, COMPRESSED, DATA_PAGE, STATISTICS, SIZES = 4, 5, 6, 7, 9, 12, 16
STAMP = "cutoutScience.stampData"


def read(path: Path, work: Callable[[Any], Any]) -> Any:
    with opened(path) as file:
        return work(file)


def assert_agrees_with_pyarrow(path: Path, leaves: set[int] | None = None) -> None:
    footer: Footer = read(path, read_footer)
    native = pq.read_metadata(path)
    for number in range(native.num_row_groups):
        group = native.row_group(number)
        for leaf in leaves or range(group.num_columns):
            ours, theirs = footer.metadata.row_group(number).column(leaf), group.column(leaf)
            assert ours.data_page_offset == theirs.data_page_offset
            assert ours.dictionary_page_offset == theirs.dictionary_page_offset
            assert ours.total_compressed_size == theirs.total_compressed_size
            assert ours.total_uncompressed_size == theirs.total_uncompressed_size
            assert ours.num_values == theirs.num_values
            assert (ours.offset_index is not None) == theirs.has_offset_index
            # pyarrow names both kinds of LZ4, and none, otherwise.
            named = {"none": "UNCOMPRESSED", "lz4_raw": "LZ4"}
            assert named.get(ours.codec or "", (ours.codec or "").upper()) == theirs.compression


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"write_page_index": True},
        {"use_dictionary": True, "compression": "zstd"},
        {"compression": "none"},
        {"compression": "lz4", "data_page_version": "2.0"},
        {"store_schema": False, "row_group_size": 1},
    ],
    ids=str,
)
def test_every_chunk_is_described_as_pyarrow_describes_it(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.parquet", [ztf_alert(n) for n in range(9)], **options)
    assert_agrees_with_pyarrow(path)


def test_every_chunk_of_real_files_is_described_as_pyarrow_describes_it(real_data: Path) -> None:
    for path in sorted(real_data.glob("*.parquet")):
        assert_agrees_with_pyarrow(path)


def test_names_that_look_like_others_do_not_mislead(tmp_path: Path) -> None:
    # A name with a dot of its own, and statistics that hold what a chunk's path looks like.
    names = [f"\x19\x18{chr(len(name))}{name}" for name in ("plain", "a.b")]
    table = pa.table({"plain": names, "a.b": [1, 2], "text": names, "é" * 70: [0, 1]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    assert_agrees_with_pyarrow(tmp_path / "a.parquet")


# --- what would end the process -----------------------------------------------------------------


def rewritten(path: Path, change: Callable[[Fields], None]) -> Path:
    pages, footer = split(path.read_bytes())
    change(footer)
    path.write_bytes(join(pages, footer))
    return path


def of_science(change: Callable[[Fields], None]) -> Callable[[Fields], None]:
    """Return a change of every chunk of the Science stamps."""

    def all_chunks(footer: Fields) -> None:
        for chunk in chunks_of(footer):
            if get(get(chunk, META), 3)[1] == STAMP.encode().split(b"."):
                change(chunk)

    return all_chunks


HOSTILE = {
    "codec unknown": of_science(lambda chunk: put(get(chunk, META), CODEC, 24)),
    "codec negative": of_science(lambda chunk: put(get(chunk, META), CODEC, -1)),
    "sizes of another column": of_science(
        lambda chunk: put(get(chunk, META), SIZES, [[1, 6, 5], [2, 9, [6, [1] * 300]]], 12)
    ),
    "before the file": of_science(lambda chunk: put(get(chunk, META), DATA_PAGE, -5)),
    "behind the file": of_science(lambda chunk: put(get(chunk, META), DATA_PAGE, 2**40)),
    "of negative size": of_science(lambda chunk: put(get(chunk, META), COMPRESSED, -1)),
    "too long for the file": of_science(lambda chunk: put(get(chunk, META), COMPRESSED, 2**62)),
    "too many values": of_science(lambda chunk: put(get(chunk, META), VALUES, 2**62)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_chunk_that_cannot_be_is_an_error_of_its_file(tmp_path: Path, what: str) -> None:
    path = write(tmp_path / "a.parquet", [ztf_alert(n) for n in range(3)])
    rewritten(path, HOSTILE[what])

    def stamp(file: Any) -> bytes | None:
        index: FileIndex = build_index(file)
        column = index.stamp_column(ZTF, "Science")
        assert column is not None
        return index.read_stamp(file, column, 1)

    if what == "sizes of another column":  # nobody needs to believe them
        assert read(path, stamp) == ztf_alert(1)["cutoutScience"]["stampData"]
        return
    with pytest.raises(FileUnreadable, match=r"a\.parquet"):
        read(path, stamp)


@pytest.mark.parametrize("what", ["codec unknown", "sizes of another column"])
def test_pyarrow_does_not_survive_being_asked_for_such_a_chunk(tmp_path: Path, what: str) -> None:
    """Where this fails, pyarrow has been mended, and this code could be simpler."""
    path = write(tmp_path / "a.parquet", [ztf_alert(n) for n in range(3)])
    rewritten(path, HOSTILE[what])
    code = (
        "import sys, pyarrow.parquet as pq; group = pq.read_metadata(sys.argv[1]).row_group(0);"
        "[group.column(n).compression for n in range(group.num_columns)]"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
    assert ended.returncode < 0


def test_row_groups_of_other_rows_than_the_file_are_an_error(tmp_path: Path) -> None:
    for number, rows in enumerate((2**62, -1, 4)):
        path = write(tmp_path / f"{number}.parquet", [ztf_alert(n) for n in range(3)])
        rewritten(path, lambda footer, rows=rows: put(footer, 3, rows))
        with pytest.raises(FileUnreadable, match="the footer"):
            read(path, read_footer)


def test_what_looks_like_chunks_is_not_looked_at_for_ever() -> None:
    sought = b"\x19\x18\x01a"
    # Each is followed by a list that goes on to the end.
    content = (sought + b"\x19\xf5\xff\xff\x03") * 20_000
    table = pa.table({"a": [1]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    native = pq.read_metadata(pa.BufferReader(sink.getvalue()))
    with pytest.raises(FooterDamaged):
        FileMetadata(native, content, 10**9).chunks(0)


# --- encryption ---------------------------------------------------------------------------------


def test_columns_beside_an_encrypted_one_are_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    rows = [ztf_alert(n) for n in range(6)]
    path = write_encrypted(tmp_path / "a.parquet", rows)

    def stamps(file: Any) -> None:
        index = build_index(file)
        index.complete(file, blocks=True)
        for kind in KINDS:
            column = index.stamp_column(ZTF, kind)
            assert column is not None
            for number, row in enumerate(rows):
                if kind == "Science":
                    with pytest.raises(FileUnreadable, match=f"{STAMP} of 'a.parquet' is encrypt"):
                        index.read_stamp(file, column, number)
                else:
                    found = index.read_stamp(file, column, number)
                    assert found == row[f"cutout{kind}"]["stampData"]

    read(path, stamps)
    plain = read(path, lambda file: read_columns(read_footer(file), ["candid", "candidate.jd"]))
    theirs = pq.ParquetFile(path).read(columns=["candid", "candidate.jd"])
    assert plain[0].to_pylist() == theirs.column("candid").to_pylist()
    assert plain[1].to_pylist() == [row["jd"] for row in theirs.column("candidate").to_pylist()]


def test_an_encrypted_key_column_is_named(tmp_path: Path) -> None:
    path = write_encrypted(tmp_path / "a.parquet", [ztf_alert(0)], columns=["candid"])
    with pytest.raises(FileUnreadable, match=r"column candid of 'a\.parquet' is encrypted"):
        read(path, build_index)


def test_a_file_with_an_encrypted_footer_says_so(tmp_path: Path) -> None:
    path = write_encrypted(tmp_path / "a.parquet", [ztf_alert(0)], plaintext_footer=False)
    with pytest.raises(FileUnreadable, match=r"'a\.parquet' is encrypted"):
        read(path, read_footer)


# --- summaries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_metadata", "summary.parquet"])
def test_a_summary_of_other_files_says_so_and_no_page_is_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "part-0.parquet", [ztf_alert(n) for n in range(3)])
    metadata = pq.read_metadata(path)
    metadata.set_file_path("part-0.parquet")
    metadata.write_metadata_file(tmp_path / name)
    assert pq.read_metadata(tmp_path / name).row_group(0).column(0).file_path == "part-0.parquet"
    with pytest.raises(NotParquet, match="summary of other parquet files"):
        read(tmp_path / name, build_index)


def test_a_schema_without_row_groups_is_a_summary_by_its_name_only(tmp_path: Path) -> None:
    path = write(tmp_path / "part-0.parquet", [ztf_alert(0)])
    schema = pq.read_schema(path)
    for name in ("_common_metadata", "empty.parquet"):
        pq.write_metadata(schema, tmp_path / name)
    assert read(tmp_path / "empty.parquet", build_index).row_groups.tolist() == [0]
    with pytest.raises(CutoutError, match="summary"):
        read(tmp_path / "_common_metadata", build_index)


def test_a_footer_that_takes_much_memory_takes_it_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [ztf_alert(1)])
    pages, footer = split(path.read_bytes())
    group = get(footer, 4)[1][0]
    chunk: Fields = []
    put(chunk, 2, 0)  # file_offset: all that it has to have
    get(group, 1)[1].extend([chunk] * 400_000)  # each takes 3 bytes here, and some 700 in pyarrow
    path.write_bytes(join(pages, footer))
    before = resident_bytes()
    with pytest.raises(FileUnreadable, match="memory"):
        read(path, read_footer)
    assert resident_bytes() - before < 50_000_000
