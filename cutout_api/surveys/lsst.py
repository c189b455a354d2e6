"""LSST, the Legacy Survey of Space and Time of the Vera C. Rubin Observatory.

Sources: the LSST alert schemas 7.4 to 10.0 (lsst/alert_packet), the column names that the Fink
broker writes, and the public API of that broker.
"""

from __future__ import annotations

from dataclasses import replace

from .model import STAMP_RULES, Curve, History, Key, Past, Rule, Survey, View, parse_int64

LSST = Survey(
    name="lsst",
    since=2025,
    alert_key=Key(
        "diaSourceId",
        columns=("diaSourceId", "diaSource.diaSourceId"),
        read=parse_int64,
        description="LSST alert id; LSST-AP-DS-<id> is understood too.",
        example="169936132527095844",
        # IAU designations, as Rubin's alert archive has them.
        prefixes=("LSST-AP-DS-",),
    ),
    object_key=Key(
        "diaObjectId",
        columns=("diaObjectId", "diaSource.diaObjectId", "diaObject.diaObjectId"),
        read=parse_int64,
        description="LSST object id: the latest diaSource of that object. LSST-AP-DO-<id> is "
        "understood too, and either as objectId.",
        example="169830579938263176",
        prefixes=("LSST-AP-DO-",),
        # Clients that know one box for all surveys (SkyPortal) send it so.
        aliases=("objectId",),
    ),
    moving_key=Key(
        "ssObjectId",
        columns=("ssObjectId", "diaSource.ssObjectId", "ssSource.ssObjectId"),
        read=parse_int64,
        description="LSST id of a solar system object.",
        example="22552096084275251",
    ),
    time_columns=("midpointMjdTai", "diaSource.midpointMjdTai"),
    stamp_columns=("cutout{kind}", "cutout{kind}.stampData"),
    id_names=(
        "diaSourceId",
        "diaObjectId",
        "ssObjectId",
        "parentDiaSourceId",
        "diaForcedSourceId",
        "alertId",
    ),
    file_key="diaSourceId",
    response_key="b:cutout{kind}",
    time_scale="tai",
    mjd_offset=0.0,
    band_columns=("diaSource.band", "band"),
    bands={band: band for band in "ugrizy"},
    brightness_columns=("diaSource.psfFlux", "psfFlux"),
    brightness_unit="nJy",
    ra_columns=("diaSource.ra", "ra"),
    dec_columns=("diaSource.dec", "dec"),
    sign_columns=("diaSource.isNegative", "isNegative"),
    signs={False: True, True: False},
    sky_matrix=None,
    planes={"variance": "UNCERT", "psf": "PSFIMAGE"},
    difference_follows_sign=False,
)

_ALERT = tuple(
    Rule(name, "r:") for name in ("diaSourceId", "alertId", "observation_reason", "target_name")
)

_DETECTIONS = Past("prvDiaSources", "history", id_name="r:diaSourceId", are_alerts=True)
_FORCED = Past("prvDiaForcedSources", "forced", id_name="r:diaForcedSourceId")
_HISTORY = History(
    lists=(_DETECTIONS, _FORCED),
    prefix="r:",
    object_name="r:diaObjectId",
    alert_name="r:diaSourceId",
    time_name="r:midpointMjdTai",
    band_name="r:band",
    tag="f:tag",
)
_MOVING = tuple(
    Rule(f"{name}.", f"r:{name}_", asked=True) for name in ("ssObject", "ssSource", "mpc_orbits")
)
# The broker drops the names of these structs, and keeps those of the others (xm, clf).
_BROKER = (Rule("pred.", "f:", former="f:pred_"), Rule("misc.", "f:", former="f:misc_"))
_TITLES = (
    ("r:", "LSST original fields (r:)"),
    ("f:", "Fink science module outputs (f:)"),
    ("b:", "LSST original cutouts (b:)"),
)

LSST_SOURCES = View(
    survey=LSST,
    title="the sources of LSST objects",
    rules=(
        Rule("diaSource.", "r:"),
        *_ALERT,
        Rule("diaObject.", "r:diaObject_", asked=True),
        *_MOVING,
        *_BROKER,
        *STAMP_RULES,
    ),
    rest="f:",
    least=(("r:diaObjectId", "int64"), ("r:diaSourceId", "int64")),
    time_name="r:midpointMjdTai",
    history=_HISTORY,
    described=(
        ("r:diaObject_", "lsst_object"),
        ("r:", "lsst_source"),
        ("f:", "lsst_added"),
        ("b:", "stamps"),
    ),
    titles=_TITLES,
)
LSST_FORCED = replace(
    LSST_SOURCES,
    title="the forced photometry of LSST objects",
    least=(("r:diaObjectId", "int64"), ("r:diaForcedSourceId", "int64")),
    history=replace(_HISTORY, lists=(_FORCED,)),
    shows_alerts=False,
    described=(("r:", "lsst_forced"),),
    titles=_TITLES[:1],
)
LSST_OBJECTS = View(
    survey=LSST,
    title="the summaries of LSST objects",
    rules=(
        Rule("diaObject.", "r:"),
        Rule("diaSource.", "r:diaSource_", asked=True),
        *_MOVING,
        *(Rule(rule.path, "r:", asked=True) for rule in _ALERT),
        *_BROKER,
        *STAMP_RULES,
    ),
    rest="f:",
    least=(("r:diaObjectId", "int64"),),
    time_name="r:validityStartMjdTai",
    one_per_object=True,
    described=(
        ("r:diaSource_", "lsst_source"),
        ("r:", "lsst_object"),
        ("f:", "lsst_added"),
        ("b:", "stamps"),
    ),
    titles=_TITLES,
)
SURVEY = LSST
TABLES = {"objects": LSST_OBJECTS, "sources": LSST_SOURCES, "fp": LSST_FORCED}
CURVE = Curve(
    "/api/v1/sources",
    {
        "alert": "r:diaSourceId",
        "time": "r:midpointMjdTai",
        "band": "r:band",
        "value": "r:psfFlux",
        "error": "r:psfFluxErr",
        "tag": "f:tag",
    },
    {"withupperlim": "True"},
    {"history": "detection, without stamps here", "forced": "forced photometry"},
)
