"""WINTER, the near-infrared time-domain survey of the Palomar Observatory.

Sources: the schema 0.1 of its alert packets (winter-telescope/mirar), as it stands in public
packets of 2024, and those packets.
"""

from __future__ import annotations

from .model import KINDS, Curve, History, Key, Past, Rule, Survey, View, YearNames, parse_int64

NAMES = YearNames("WNTR", 5, "WINTER", "WNTR24awati")

WINTER = Survey(
    name="winter",
    since=2023,
    alert_key=Key(
        "candid",
        columns=("candid", "candidate.candid"),
        read=parse_int64,
        description="WINTER alert id. Without it, the latest alert of the object.",
        example="3608694",
    ),
    object_key=Key(
        "objectId",
        columns=("objectid",),
        read=NAMES.read,
        description="WINTER object name: WNTR, two digits, five letters.",
        example=NAMES.example,
        pack=NAMES.pack,
        unpack=NAMES.unpack,
        pattern=NAMES.pattern,
        words="a WINTER object name (WNTR, two digits, five lower-case letters)",
    ),
    moving_key=None,
    # ZTF files have columns of the same names for their ids, written in lower case by Hive.
    marks=("cutout_science", "cutout_template", "cutout_difference", "candidate.progname"),
    time_columns=("candidate.jd", "jd"),
    stamp_columns=("cutout_{lower}",),
    id_names=("candid",),
    file_key="objectId",
    response_key="b:cutout_{lower}",
    time_scale="utc",
    mjd_offset=2400000.5,
    band_columns=("candidate.fid", "fid"),
    # The filter for H is the shortened one.
    bands={0: "Y", 1: "J", 2: "Hs", 3: "K"},
    brightness_columns=("candidate.magpsf", "magpsf"),
    brightness_unit="mag",
    ra_columns=("candidate.ra", "ra"),
    dec_columns=("candidate.dec", "dec"),
    sign_columns=("candidate.isdiffpos", "isdiffpos"),
    signs={True: True, False: False},
    # The headers say nothing. Row 0 at the bottom is north up, east left, 1.11 arcsec a pixel:
    # from the pixels (xpos, ypos) and places (ra, dec) of three candidates of one image, and
    # from neighbours in 2MASS, which are where that puts them.
    sky_matrix=((-1.11 / 3600, 0.0), (0.0, 1.11 / 3600)),
    planes={},
    # By the schema; no packet at hand is of a source that faded.
    difference_follows_sign=True,
)

_STAMPS = tuple(
    Rule(f"cutout_{kind.lower()}{fields}", None) for kind in KINDS for fields in ("", ".")
)
WINTER_ALERTS = View(
    survey=WINTER,
    title="the alerts of WINTER objects",
    rules=(
        *(Rule(name, "i:") for name in ("objectid", "candid", "schemavsn", "publisher")),
        Rule("candidate.", "i:"),
        *_STAMPS,
    ),
    rest="d:",
    least=(("i:objectid", "string"), ("i:candid", "int64"), ("i:jd", "float64")),
    time_name="i:jd",
    # Detections alone: the packets tell neither limits nor forced photometry of the past.
    history=History(
        lists=(
            Past("prv_candidates", "valid", id_name="i:candid", are_alerts=True, once_a_visit=True),
        ),
        prefix="i:",
        object_name="i:objectid",
        alert_name="i:candid",
        time_name="i:jd",
        band_name="i:fid",
        tag="d:tag",
    ),
    derived=("v:lastdate", "v:firstdate", "v:lapse", "v:constellation"),
    described=(
        ("i:", "winter"),
        ("d:", "winter_added"),
        ("v:", "ztf_derived"),
        ("b:", "winter_stamps"),
    ),
)
SURVEY = WINTER
TABLES = {"objects": WINTER_ALERTS}
CURVE = Curve(
    "/api/v1/objects",
    {
        "alert": "i:candid",
        "time": "i:jd",
        "band": "i:fid",
        "value": "i:magpsf",
        "error": "i:sigmapsf",
        "limit": "i:diffmaglim",
        "tag": "d:tag",
    },
    {"withupperlim": "True"},
    {"valid": "detection, without stamps here"},
)
