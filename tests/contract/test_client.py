"""The Python client against a running service: what a notebook asks, and what it gets."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from cutout_api.client import CHOICES, OF_PIXELS, OWN, Client
from cutout_api.fetch import (
    LONGEST_WAIT,
    AmbiguousId,
    BadRequest,
    Forbidden,
    NotFound,
    ServiceError,
    Unavailable,
    Unreachable,
)
from cutout_api.http_cache import FolderCache
from cutout_api.request import PARAMETERS
from cutout_api.settings import Archive, Settings
from cutout_api.surveys import CURVES, KEYS, SURVEYS, TABLES

from ..catalogue import catalogued
from ..pictures import (
    CANDID,
    DEC,
    LSST_FACTS,
    LSST_ODD,
    OBJECT,
    RA,
    SOURCE,
    ZTF_ODD,
    candid,
    lsst_row,
    make_pictures,
    source,
    ztf_row,
)
from ..samples import REAL_DATA, image_of, stored_fits, write
from ..service import Service, running_service

mpl.use("Agg")
BOTH = CANDID + 2
"""Given to an alert of each survey."""
LAST_SOURCE = SOURCE + len(LSST_ODD) - 1
KINDS = ("Science", "Template", "Difference")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = make_pictures(tmp_path_factory.mktemp("client"))
    both = lsst_row(0)
    both["diaSource"] |= {"diaSourceId": BOTH, "diaObjectId": SOURCE + 8}
    write(folder / "both.parquet", [both], LSST_FACTS)
    if REAL_DATA.is_dir():
        (folder / "real").mkdir()
        for file in REAL_DATA.glob("*.parquet"):
            (folder / "real" / file.name).write_bytes(file.read_bytes())
    # Not the real alerts, which repeat ids of these.
    own = ("ztf.parquet", "lsst.parquet", "both.parquet")
    settings = catalogued(Settings(archive=Archive(uri=str(folder))), *own)
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_CATALOG_URL": settings.catalog.url,
    }
    with running_service(environment) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.address, cache=None) as made:
        yield made


def asked(service: Service, status: int) -> int:
    """Return how many answers of this status the service's log tells of."""
    return sum(f" /api/v1/cutouts {status} " in line for line in service.log.splitlines())


# --- stamps


def test_a_name_is_the_latest_alert_and_a_number_the_alert_itself(client: Client) -> None:
    by_name = client.cutout(OBJECT)
    assert by_name.survey == "ztf"
    assert by_name.id == CANDID + len(ZTF_ODD) - 2  # the last one has no time
    by_number = client.cutout(by_name.id)
    assert by_number.fits == by_name.fits
    assert by_number.time == by_name.time == 2_460_410.5 + len(ZTF_ODD) - 2
    assert by_number.date.scale == "utc"


def test_each_way_to_name_an_alert_gives_its_stored_bytes(client: Client) -> None:
    ztf = stored_fits(ztf_row(0), "Template")
    for number in (CANDID, str(CANDID), np.int64(CANDID), f" {CANDID} "):
        assert client.cutout(number, "Template").fits == ztf
    assert client.cutout(candid=CANDID, kind="template").fits == ztf
    lsst = client.cutout(SOURCE)
    assert lsst.survey == "lsst"
    assert (
        lsst.fits == client.cutout(diaSourceId=SOURCE).fits == stored_fits(lsst_row(0), "Science")
    )
    assert client.cutout(diaObjectId=SOURCE + 7).id == LAST_SOURCE
    assert lsst.date.scale == "tai"


BAD_IDS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a float": ({"id": float(CANDID)}, TypeError, "2\\^53"),
    "a numpy float": ({"id": np.float64(CANDID)}, TypeError, "2\\^53"),
    "a truth value": ({"id": True}, TypeError, "truth value"),
    "a float by name": ({"candid": 2.5e18}, TypeError, "2\\^53"),
    "no id": ({}, ValueError, "which alert"),
    "another name": ({"id": "SN2024abc"}, ValueError, "neither an object"),
    "too many digits": ({"id": 10**19}, ValueError, "neither an object"),
    "two numbers": ({"id": CANDID, "candid": CANDID}, ValueError, "one of them"),
    "all kinds": ({"id": OBJECT, "kind": "all"}, ValueError, "cutouts\\(id\\)"),
    "the format": ({"id": OBJECT, "return_type": "PNG"}, ValueError, "not an option"),
    "an option of no type": ({"id": OBJECT, "band": object()}, TypeError, "band"),
    "two surveys": ({"candid": CANDID, "diaSourceId": SOURCE}, BadRequest, "different surveys"),
    "unknown": ({"id": CANDID + 5000}, NotFound, "neither as candid nor as diaSourceId"),
    "of both surveys": ({"id": BOTH}, AmbiguousId, f"candid={BOTH}"),
    "unknown kind": ({"id": OBJECT, "kind": "Sciense"}, BadRequest, "did you mean 'Science'"),
    "unknown option": ({"id": OBJECT, "colourmap": "jet"}, BadRequest, "colormap"),
    "bad option": ({"id": OBJECT, "stretch": "asinch"}, BadRequest, "did you mean 'asinh'"),
    "no such plane": ({"candid": CANDID, "plane": "psf"}, BadRequest, "have no psf"),
    "forbidden path": ({"candid": CANDID, "hdfsPath": "/etc/passwd"}, Forbidden, "path"),
}


@pytest.mark.parametrize("what", BAD_IDS)
def test_what_cannot_be_asked_says_why(client: Client, what: str) -> None:
    arguments, error, sentence = BAD_IDS[what]
    with pytest.raises(error, match=sentence):
        client.cutout(**arguments)


def test_a_number_of_both_surveys_is_told_apart_by_name(client: Client) -> None:
    assert client.cutout(candid=BOTH).survey == "ztf"
    assert client.cutout(diaSourceId=BOTH).survey == "lsst"
    assert client.cutout(diaSourceId=BOTH).id == BOTH


def test_errors_have_the_members_of_the_answer(client: Client) -> None:
    with pytest.raises(BadRequest) as raised:
        client.cutout(OBJECT, "Sciense")
    error = raised.value
    assert (error.status, error.code) == (400, "invalid_parameter")
    assert (error.parameter, error.suggestion) == ("kind", "Science")
    assert "Difference" in (error.allowed or ())


@pytest.mark.parametrize("what", ["ordinary", "narrow", "integers", "half nan", "only nan"])
def test_the_array_is_the_image_as_float32(client: Client, what: str) -> None:
    cutout = client.cutout(candid=candid(what))
    assert (cutout.array.dtype, cutout.array.dtype.isnative) == (np.float32, True)
    np.testing.assert_array_equal(cutout.array, image_of(cutout.fits).astype(np.float32))
    assert [hdu.data.shape for hdu in cutout.hdul] == [cutout.array.shape]
    assert repr(cutout.array.shape[1]) in repr(cutout)


@pytest.mark.parametrize("number", [CANDID, SOURCE])
def test_the_alert_is_where_its_wcs_says(client: Client, number: int) -> None:
    cutout = client.cutout(number)
    x, y = cutout.wcs.world_to_pixel_values(RA, DEC)
    peak_y, peak_x = np.unravel_index(np.argmax(cutout.array), cutout.array.shape)
    np.testing.assert_allclose((x, y), (peak_x, peak_y), atol=0.1)
    # And what was fetched for it changed nothing of the stamp.
    assert "CTYPE1" not in cutout.header


def test_cards_that_wcslib_rejects_do_not_end_the_interpreter(client: Client) -> None:
    good, bad = (client.cutout(diaSourceId=source(what)) for what in ("ordinary", "many bad cards"))
    assert bad.wcs.wcs.compare(good.wcs.wcs)
    assert bad.wcs.pixel_shape == bad.array.shape[::-1]


def test_a_wcs_that_is_not_known_is_not_found(client: Client) -> None:
    for cutout in (
        client.cutout(candid=candid("no facts")),
        client.cutout(diaSourceId=source("no matrix")),
    ):
        with pytest.raises(NotFound, match="fact_missing"):
            _ = cutout.wcs


def test_planes_and_signs_hold_for_everything(client: Client) -> None:
    variance = client.cutout(SOURCE, plane="variance")
    assert np.median(variance.array) == 4
    faded = client.cutout(candid=candid("faded"), kind="Difference", diffsign="sci-ref")
    plain = client.cutout(candid=candid("faded"), kind="Difference")
    np.testing.assert_array_equal(faded.array, -plain.array)
    assert faded.png != plain.png


def test_pictures_are_drawn_as_the_options_say(client: Client) -> None:
    cutout = client.cutout(OBJECT, colormap="viridis", zoom=2, labels=["scale", "compass"])
    assert Image.open(io.BytesIO(cutout.png)).size == (126, 126)
    # What is shown is of the alert that was found, not of what is the latest by then.
    plain = client.cutout(candid=candid("ordinary"))
    assert Image.open(io.BytesIO(plain.png)).size == (63, 63)


@pytest.mark.parametrize("number", [CANDID, SOURCE, int(source("no matrix"))])
def test_it_shows_itself_in_a_notebook(client: Client, number: int) -> None:
    for shown in (client.cutout(number), client.cutouts(number)):
        picture = Image.open(io.BytesIO(shown._repr_png_() or b""))
        assert picture.height >= 252
        assert "data:image/png;base64," in shown._repr_html_()
        assert str(number) in shown._repr_html_()


def test_where_no_picture_can_be_had_a_notebook_shows_the_sentence(service: Service) -> None:
    client = Client(service.address, cache=None, retries=0)
    cutout = client.cutout(OBJECT)
    cutout._found.client = Client("http://127.0.0.1:9", cache=None, retries=0)
    assert cutout._repr_png_() is None
    assert cutout._repr_html_().startswith("<pre>&lt;Cutout ZTF")


def test_threads_leave_the_warnings_of_the_process_as_they_were(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shall end while the second is at work, and the second after it."""
    stamps = [client.cutout(CANDID), client.cutout(SOURCE)]
    first_opens, second_opens, first_ended = (threading.Event() for _ in range(3))
    open_fits = fits.open

    def open_in_step(*content: Any, **options: Any) -> Any:
        if not first_opens.is_set():
            first_opens.set()
            second_opens.wait(1)  # or it is kept from that, as it should be
        else:
            second_opens.set()
            first_ended.wait(30)
        return open_fits(*content, **options)

    monkeypatch.setattr(fits, "open", open_in_step)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: stamps[0].hdul)
        assert first_opens.wait(30)
        second = pool.submit(lambda: stamps[1].array)
        first.result(30)
        first_ended.set()
        second.result(30)
    assert warnings.filters == before


@pytest.mark.parametrize("what", ["png", "wcs"])
def test_a_slow_answer_keeps_no_other_stamp_waiting(client: Client, what: str) -> None:
    slow, other = client.cutout(CANDID), client.cutout(CANDID)
    with socket.create_server(("127.0.0.1", 0)) as hangs, ThreadPoolExecutor(2) as pool:
        hangs.settimeout(30)
        address = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        slow._found.client = Client(address, cache=None, retries=0)
        waiting = pool.submit(getattr, slow, what)
        connection, _ = hangs.accept()
        try:
            assert pool.submit(getattr, other, what).result(20)
        finally:
            connection.close()
    with pytest.raises(Unreachable):
        waiting.result()


def test_plots_have_north_up_for_ztf_and_the_parity_of_the_sky_for_lsst(client: Client) -> None:
    import matplotlib.pyplot as plt

    ztf = client.cutout(OBJECT)
    ax = ztf.plot()
    ztf.plot(ax)  # which turns it no second time
    bottom, top = ax.get_ylim()
    assert (bottom, top) == (62.5, -0.5)
    assert ztf.plot(origin="lower").get_ylim() == (-0.5, 62.5)
    _, ax = plt.subplots()
    lsst = client.cutout(SOURCE)
    assert lsst.plot(ax, cmap="viridis") is ax
    assert (ax.images[0].origin, ax.images[0].get_cmap().name) == ("lower", "viridis")
    # Upwards on the plot, east is 90 degrees counter-clockwise of north: the sky's own parity.
    assert np.linalg.det(lsst.wcs.pixel_scale_matrix) < 0
    client.cutout(candid=candid("only nan")).plot().figure.canvas.draw()
    axes = client.cutouts(OBJECT).plot()
    assert [one.get_title().split()[0] for one in axes] == list(KINDS)
    plt.close("all")


@pytest.mark.parametrize("name", ["ztf", "lsst"])
def test_a_plot_on_the_axes_of_the_sky_shows_each_pixel_where_the_sky_has_it(
    client: Client, name: str
) -> None:
    import matplotlib.pyplot as plt

    ids = {"ztf": {"candid": candid("ordinary")}, "lsst": {"diaSourceId": SOURCE}}
    stamp = client.cutout(**ids[name])
    ny, nx = stamp.array.shape
    figure = plt.figure(figsize=(6, 6), dpi=100)
    ax = plt.subplot(projection=stamp.wcs)
    assert stamp.plot(ax, interpolation="nearest", vmin=0, vmax=1000) is ax
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())
    for x, y in [(nx // 2, ny // 2), (3, 5), (nx - 4, 7), (6, ny - 9)]:
        # Where astropy says that the pixel is on the sky, and where the axes draw that place.
        ra, dec = (float(angle) for angle in stamp.wcs.pixel_to_world_values(x, y))
        column, row = ax.get_transform("icrs").transform((ra, dec))
        shown = drawn[drawn.shape[0] - 1 - int(row), int(column), 0]
        grey = np.clip(stamp.array[y, x] / 1000, 0, 1) * 255
        assert abs(float(shown) - grey) <= 2, (x, y)
    up = ax.get_transform("icrs").transform([(RA, DEC), (RA, DEC + 1e-4), (RA + 1e-4, DEC)])
    if name == "ztf":
        north, east = up[1] - up[0], up[2] - up[0]
        assert north[1] > abs(north[0])
        assert -east[0] > abs(east[1])
    plt.close("all")


def test_an_alert_without_a_time_says_so(client: Client) -> None:
    bare = client.cutout(candid=candid("no facts"))
    assert bare.time is bare.date is None
    assert repr(bare).endswith("63 x 63, no time>")
    assert "no time" in repr(client.cutouts(candid=candid("no facts")))
    assert "JD 2460410.50000 UTC" in repr(client.cutout(candid=candid("ordinary")))
    lsst = client.cutout(SOURCE)
    assert f"MJD {lsst.time:.5f} TAI" in repr(lsst)
    assert lsst.date.utc.mjd == pytest.approx(lsst.time - 37 / 86400, abs=1e-9)


def test_all_three_stamps_are_one_request(client: Client, service: Service) -> None:
    before = asked(service, 200)
    cutouts = client.cutouts(candid=candid("integers"))
    assert asked(service, 200) == before + 1
    assert list(cutouts) == list(KINDS)
    for kind in KINDS:
        alone = client.cutout(candid=candid("integers"), kind=kind)
        np.testing.assert_array_equal(cutouts[kind].array, alone.array)
        assert cutouts[kind].header["BITPIX"] == alone.header["BITPIX"]
    lsst = client.cutouts(SOURCE)
    assert [hdu.name for hdu in lsst["Science"].hdul] == ["PRIMARY", "UNCERT", "PSFIMAGE"]
    assert lsst.id == lsst["science"].id == SOURCE


def test_a_batch_answers_in_the_order_asked_and_says_what_it_has_not(client: Client) -> None:
    ids = [candid("ordinary"), 5, candid("half nan"), "no id", candid("ordinary")]
    items = list(client.batch(ids, key="candid"))
    assert [item.id for item in items] == [str(number) for number in ids]
    for item in items[::2]:
        alone = client.cutout(candid=item.id)
        assert (item.alert_id, item.error) == (alone.id, None)
        assert item.array.dtype == np.float32
        np.testing.assert_array_equal(item.array, alone.array)
    assert isinstance(items[1].error, NotFound)
    assert isinstance(items[3].error, BadRequest)
    with pytest.raises(NotFound):
        _ = items[1].array
    (item,) = client.batch([OBJECT], kind="All")
    assert sorted(item.arrays) == ["Difference", "Science", "Template"]
    assert list(client.batch([])) == []


def test_epochs_are_all_alerts_of_an_object_oldest_first(client: Client) -> None:
    epochs = client.epochs(OBJECT)
    assert len(epochs) == len(ZTF_ODD)
    dated = [cutout for cutout in epochs if cutout.time is not None]
    assert [cutout.id for cutout in dated] == [CANDID + number for number in range(len(dated))]
    for cutout in epochs[:3]:
        alone = client.cutout(candid=cutout.id)
        np.testing.assert_array_equal(cutout.array, alone.array)
        assert cutout.time == alone.time
        assert cutout.png == alone.png
    assert {cutout.id % 2 for cutout in client.epochs(OBJECT, band="g")} == {0}
    lsst = client.epochs(SOURCE + 7, "Difference")
    assert [cutout.id for cutout in lsst] == [SOURCE + number for number in range(len(lsst))]
    assert lsst[0].wcs.has_celestial
    with pytest.raises(ValueError, match="not the ids of objects"):
        client.epochs("nothing")
    with pytest.raises(NotFound):
        client.epochs(1)


# --- tables


def test_tables_have_exact_ids(client: Client) -> None:
    alerts = client.sources(OBJECT, ["i:candid", "i:jd", "i:magpsf"])
    assert alerts.colnames == ["i:candid", "i:jd", "i:magpsf"]
    assert sorted(map(int, alerts["i:candid"])) == [CANDID + n for n in range(len(ZTF_ODD))]
    assert {int(number) for number in alerts.to_pandas()["i:candid"]} == {
        CANDID + number for number in range(len(ZTF_ODD))
    }
    lsst = client.sources(SOURCE + 7)
    assert int(lsst["r:diaSourceId"][0]) == LAST_SOURCE
    both = client.sources([SOURCE + 7, SOURCE + 8], "r:diaSourceId")
    assert BOTH in set(map(int, both["r:diaSourceId"]))


def test_a_table_of_nothing_is_empty(client: Client) -> None:
    assert len(client.object("ZTF99aaaaaaa")) == 0
    assert len(client.sources(1)) == 0


def test_unknown_columns_are_warned_of(client: Client) -> None:
    with pytest.warns(UserWarning, match="i:magpsff"):
        client.object(OBJECT, "i:magpsff,i:jd")
    with pytest.raises(BadRequest):
        client.object(OBJECT, "i:magpsff")


def test_many_ids_are_posted(client: Client) -> None:
    names = [f"ZTF24{letter}aaaaaa" for letter in "bcdefgh"] * 100
    assert len(client.object([*names, OBJECT], "i:candid")) == len(ZTF_ODD)


# --- tables of options


def test_every_parameter_is_known_to_hold_for_pixels_or_for_pictures() -> None:
    keys = set(KEYS)
    assert keys <= set(PARAMETERS)
    assert {*CHOICES, *OF_PIXELS, *OWN} - {"output_format"} <= set(PARAMETERS)
    pictures = set(PARAMETERS) - keys - {*CHOICES, *OF_PIXELS, *OWN}
    assert all("Pictures" in PARAMETERS[name].description for name in pictures)


def test_alerts_are_rows_of_the_table_that_the_service_has_for_them() -> None:
    assert set(CURVES) == {survey.name for survey in SURVEYS}
    for survey, curve in CURVES.items():
        route = curve.table.rpartition("/")[2]
        assert survey in {view.survey.name for view in TABLES[route]}


# --- the cache


def test_what_never_changes_is_not_asked_twice(service: Service, tmp_path: Path) -> None:
    first = Client(service.address, cache=tmp_path).cutout(CANDID)
    _ = first.png
    before = service.log.count(" /api/")
    again = Client(service.address, cache=tmp_path).cutout(candid=CANDID)
    assert (again.fits, again.png, again.id, again.time) == (
        first.fits,
        first.png,
        first.id,
        first.time,
    )
    assert service.log.count(" /api/") == before


def test_what_may_change_is_asked_for_with_its_etag(service: Service, tmp_path: Path) -> None:
    client = Client(service.address, cache=tmp_path)
    first = client.cutout(OBJECT)
    # The latest alert is good for a minute; make it one that was answered long ago.
    (entry,) = tmp_path.iterdir()
    content = re.sub(rb"(, \d\d \w{3} )20\d\d", rb"\g<1>2020", entry.read_bytes()[32:])
    entry.write_bytes(hashlib.sha256(content).digest() + content)
    before = asked(service, 304), asked(service, 200)
    again = client.cutout(OBJECT)
    assert again.fits == first.fits
    assert (again.id, again.time) == (first.id, first.time)
    assert (asked(service, 304), asked(service, 200)) == (before[0] + 1, before[1])


def test_what_still_holds_but_was_dropped_meanwhile_is_asked_for_whole(tmp_path: Path) -> None:
    tags: list[str | None] = []

    class Dropping(BaseHTTPRequestHandler):
        """Says that an entry holds, just after another process dropped it."""

        def do_GET(self) -> None:
            tags.append(self.headers["If-None-Match"])
            status, headers, body = GOOD
            if tags[-1] is not None:
                for entry in tmp_path.iterdir():
                    entry.unlink()
                status, body = 304, b""
            self.send_response(status)
            more = {"ETag": '"a"', "Cache-Control": "max-age=0", "Content-Length": str(len(body))}
            for name, value in (headers | more).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dropping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(f"http://127.0.0.1:{server.server_port}", cache=tmp_path)
    assert [client.cutout(OBJECT).fits for _ in range(2)] == [GOOD[2]] * 2
    assert tags == [None, '"a"', None]
    server.shutdown()
    server.server_close()


def test_errors_are_not_kept(service: Service, tmp_path: Path) -> None:
    client = Client(service.address, cache=tmp_path)
    for _ in range(2):
        before = asked(service, 404)
        with pytest.raises(NotFound):
            client.cutout(candid=CANDID + 5000)
        assert asked(service, 404) == before + 1


@pytest.mark.parametrize("damage", ["cut short", "empty", "another byte", "a folder"])
def test_a_damaged_entry_is_dropped(service: Service, tmp_path: Path, damage: str) -> None:
    client = Client(service.address, cache=tmp_path)
    first = client.cutout(candid=CANDID)
    (entry,) = tmp_path.iterdir()
    content = bytearray(entry.read_bytes())
    content[-100] ^= 1
    entry.unlink()
    if damage == "a folder":
        entry.mkdir()
    else:
        kept = {"cut short": content[:5000], "empty": b"", "another byte": content}
        entry.write_bytes(kept[damage])
    before = asked(service, 200)
    assert client.cutout(candid=CANDID).fits == first.fits
    assert asked(service, 200) == before + 1


def test_a_folder_that_cannot_be_written_to_keeps_nothing(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    client = Client(service.address, cache=tmp_path / "file")
    for _ in range(3):
        assert client.cutout(candid=CANDID).id == CANDID
    assert sum("are not kept" in record.message for record in caplog.records) == 1


def test_the_cache_is_bounded_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, 100_000)
    for number in range(100):
        cache.set(str(number), bytes(5_000))
        os.utime(cache._path(str(number)), (number, number))
        cache.get("0")
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size <= 100_000 * (1 + 1 / 16) + 10_000
    assert cache.get("0") == cache.get("99") == bytes(5_000)
    assert cache.get("1") is None
    cache.set("large", bytes(50_000))
    assert cache.get("large") is None


def _write_and_read(folder: str, seed: int) -> int:
    cache = FolderCache(Path(folder), 200_000)
    wrong = 0
    for number in range(300):
        key = str(number % 7)
        cache.set(key, key.encode() * (1000 + 997 * ((number + seed) % 5)))
        found = cache.get(str((number + seed) % 7))
        wrong += found is not None and set(found) != {ord(str((number + seed) % 7))}
    return wrong


def test_several_processes_share_one_cache(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        wrong = pool.starmap(_write_and_read, [(str(tmp_path), seed) for seed in range(3)])
    assert wrong == [0, 0, 0]
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


# --- retries, against a peer that fails as it is told

Reply = tuple[int, dict[str, str], bytes]
PROBLEM = b'{"status": 503, "code": "saturated", "detail": "the service is busy"}'


class Peer:
    """A server that answers with ``replies`` in turn, the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.times: list[float] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                peer.times.append(time.monotonic())
                number = min(len(peer.times), len(peer.replies)) - 1
                status, headers, body = peer.replies[number]
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            do_POST = do_GET

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def peer(*replies: Reply) -> Iterator[Peer]:
    made = Peer(*replies)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


GOOD: Reply = (200, {"X-Cutout-Id": str(CANDID)}, stored_fits(ztf_row(0), "Science"))


def busy(status: int = 503, **headers: str) -> Reply:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, PROBLEM


def test_it_waits_as_long_as_it_is_told_to() -> None:
    with peer(busy(Retry_After="1"), busy(429, Retry_After="1"), GOOD) as one:
        assert Client(one.address, cache=None).cutout(OBJECT).id == CANDID
        waits = np.diff(one.times)
    assert len(waits) == 2
    assert min(waits) >= 1


@pytest.mark.parametrize("reply", [busy(504), busy(503, Retry_After="soon"), busy(429)])
def test_without_a_time_it_tries_again_soon(reply: Reply) -> None:
    with peer(reply, reply, GOOD) as one:
        assert Client(one.address, cache=None).cutout(OBJECT).id == CANDID
        assert len(one.times) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 413, 500, 502])
def test_what_will_not_change_is_asked_once(status: int) -> None:
    with peer(busy(status, Retry_After="1")) as one, pytest.raises(ServiceError) as raised:
        Client(one.address, cache=None).cutout(OBJECT)
    assert raised.value.status == status
    assert len(one.times) == 1


def test_retries_have_an_end() -> None:
    with peer(busy()) as one, pytest.raises(Unavailable, match="the service is busy") as raised:
        Client(one.address, cache=None, retries=2).cutout(OBJECT)
    assert (raised.value.code, len(one.times)) == ("saturated", 3)


def test_a_wait_that_nobody_would_wait_is_told_at_once() -> None:
    with peer(busy(Retry_After=str(int(LONGEST_WAIT) + 1))) as one, pytest.raises(Unavailable):
        Client(one.address, cache=None).cutout(OBJECT)
    assert len(one.times) == 1


def test_an_answer_that_breaks_off_is_asked_for_again(tmp_path: Path) -> None:
    cut = (200, {"Content-Length": "20160"}, GOOD[2][:7000])
    with peer(cut, GOOD) as one:
        assert Client(one.address, cache=tmp_path).cutout(OBJECT).fits == GOOD[2]
    with peer(cut) as one, pytest.raises(Unreachable, match="broke off"):
        Client(one.address, cache=tmp_path, retries=1).cutout(OBJECT)


def test_an_error_page_of_a_proxy_is_an_error() -> None:
    page = (502, {"Content-Type": "text/html"}, b"<html>Bad gateway</html>")
    with peer(page) as one, pytest.raises(ServiceError, match="answered 502") as raised:
        Client(one.address, cache=None).cutout(OBJECT)
    assert raised.value.code == "http_502"


def test_another_server_is_not_taken_for_the_service() -> None:
    page = (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>")
    with peer(page) as one, pytest.raises(ServiceError, match="is it this service"):
        Client(one.address, cache=None).cutout(OBJECT)


def test_offline_it_says_what_cannot_be_reached() -> None:
    client = Client("http://127.0.0.1:9", cache=None, retries=1)
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9 cannot be reached: is it run"):
        client.cutout(OBJECT)


def test_a_service_that_hangs_is_given_up() -> None:
    class Hanging(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(1.5)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hanging)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(Unreachable, match=r"cannot be reached|did not answer"):
        Client(address, cache=None, timeout=0.3, retries=0).cutout(OBJECT)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("address", ["", "127.0.0.1:24000", "ftp://example.org", "http://"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not the address of a service"):
        Client(address, cache=None)


# --- real alerts


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the folder of real alerts is not here")
@pytest.mark.parametrize(
    "name", ["ztf_spark_1.12_offsetindex", "ztf_pyarrow_dict", "lsst_spark_1.12_offsetindex"]
)
def test_real_alerts_are_exact(client: Client, name: str) -> None:
    import pyarrow.parquet as pq

    path = f"real/{name}.parquet"
    key = "candid" if name.startswith("ztf") else "diaSource"
    file = pq.ParquetFile(REAL_DATA / f"{name}.parquet")
    names = [column for column in (key, "cutoutScience") if column in file.schema_arrow.names]
    for row in next(file.iter_batches(3, columns=names)).to_pylist():
        number = row[key]["diaSourceId"] if key == "diaSource" else row[key]
        cutout = client.cutout(number, hdfsPath=path)
        assert cutout.id == number
        assert cutout.fits == stored_fits(row, "Science")
        assert cutout.wcs.has_celestial
        assert cutout._repr_html_().startswith("<figure>")
