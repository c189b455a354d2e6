"""ZTF, the Zwicky Transient Facility.

Sources: the ZTF alert schema 3.3 (ztf-avro-alert), the column names that the Fink broker writes,
and the public API of that broker.
"""

from __future__ import annotations

from .model import (
    STAMP_RULES,
    Curve,
    History,
    Key,
    Listing,
    Past,
    Quality,
    Rule,
    Survey,
    View,
    YearNames,
    parse_int64,
)

NAMES = YearNames("ZTF", 7, "ZTF", "ZTF24abssjsb")
parse_ztf_name, pack_ztf_name, unpack_ztf_name = NAMES.read, NAMES.pack, NAMES.unpack

ZTF = Survey(
    name="ztf",
    since=2018,
    alert_key=Key(
        "candid",
        columns=("candid", "candidate.candid"),
        read=parse_int64,
        description="ZTF alert id. Without it, the latest alert of the object.",
        example="2656254792815010011",
    ),
    object_key=Key(
        "objectId",
        columns=("objectId",),
        read=parse_ztf_name,
        description="ZTF object name: ZTF, two digits, seven letters.",
        example=NAMES.example,
        pack=pack_ztf_name,
        unpack=unpack_ztf_name,
        pattern=NAMES.pattern,
        words="a ZTF object name (ZTF, two digits, seven lower-case letters)",
    ),
    moving_key=None,  # each of its alerts has an object of its own
    time_columns=("candidate.jd", "jd"),
    # The alert packet ships fits.gz, with the name of the file; brokers drop the name.
    stamp_columns=("cutout{kind}.stampData", "cutout{kind}"),
    id_names=("objectId", "candid", "pid"),
    file_key="objectId",
    response_key="b:cutout{kind}_stampData",
    time_scale="utc",
    mjd_offset=2400000.5,
    band_columns=("candidate.fid", "fid"),
    bands={1: "g", 2: "r", 3: "i"},
    brightness_columns=("candidate.magpsf", "magpsf"),
    brightness_unit="mag",
    ra_columns=("candidate.ra", "ra"),
    dec_columns=("candidate.dec", "dec"),
    sign_columns=("candidate.isdiffpos", "isdiffpos"),
    # The schema has text; broker files have it as a number or a truth value too (1 == True here).
    signs={"t": True, "1": True, "f": False, "0": False, 1: True, 0: False},
    # Row 0 at the top is north up, east left; 1.01 arcsec a pixel.
    sky_matrix=((-1.01 / 3600, 0.0), (0.0, -1.01 / 3600)),
    planes={},
    difference_follows_sign=True,
)

_PACKET = tuple(
    Rule(name, "i:")
    for name in (
        "objectId",
        "candid",
        "schemavsn",
        "publisher",
        "fink_broker_version",
        "fink_science_version",
    )
)
# As fink-science stores them for each band, and readers of the list number them.
_FEATURES = (
    "mean",
    "weighted_mean",
    "standard_deviation",
    "median",
    "amplitude",
    "beyond_1_std",
    "cusum",
    "inter_percentile_range_10",
    "kurtosis",
    "linear_trend",
    "linear_trend_sigma",
    "linear_trend_noise",
    "linear_fit_slope",
    "linear_fit_slope_sigma",
    "linear_fit_reduced_chi2",
    "magnitude_percentage_ratio_40_5",
    "magnitude_percentage_ratio_20_10",
    "maximum_slope",
    "median_absolute_deviation",
    "median_buffer_range_percentage_10",
    "percent_amplitude",
    "mean_variance",
    "anderson_darling_normal",
    "chi2",
    "skew",
    "stetson_K",
)
_FEATURE_LISTS = ("lc_features_g", "lc_features_r")
ZTF_ALERTS = View(
    survey=ZTF,
    title="the alerts of ZTF objects",
    rules=(
        *_PACKET,
        Rule("candidate.", "i:"),
        *(Rule(f"{name}.", f"d:{name}_", asked=True) for name in _FEATURE_LISTS),
        *STAMP_RULES,
    ),
    listings=tuple(Listing(name, f"d:{name}", _FEATURES) for name in _FEATURE_LISTS),
    rest="d:",
    least=(("i:objectId", "string"), ("i:candid", "int64"), ("i:jd", "float64")),
    time_name="i:jd",
    history=History(
        lists=(
            Past(
                "prv_candidates",
                "valid",
                id_name="i:candid",
                are_alerts=True,
                once_a_visit=True,
                quality=Quality("i:magpsf", least=("i:rb", 0.55), zero="i:nbad"),
            ),
            # Since schema 4.01: fluxes in DN, by which a magnitude is magzpsci - 2.5 log10(flux).
            Past("fp_hists", "forced", once_a_visit=True),
        ),
        prefix="i:",
        object_name="i:objectId",
        alert_name="i:candid",
        time_name="i:jd",
        band_name="i:fid",
        tag="d:tag",
    ),
    derived=(
        "v:lastdate",
        "v:firstdate",
        "v:lapse",
        "v:constellation",
        "v:classification",
        "v:rate",
        "v:sigma(rate)",
        "v:g-r",
        "v:sigma(g-r)",
        "v:rate(g-r)",
        "v:sigma(rate(g-r))",
    ),
    described=(("i:", "ztf"), ("d:", "ztf_added"), ("v:", "ztf_derived"), ("b:", "stamps")),
    # The broker's service adds these too.
    always=(
        "d:mulens",
        "d:tracklet",
        "d:tns",
        "d:blazar_stats_m0",
        "d:blazar_stats_m1",
        "d:blazar_stats_m2",
        "d:blazar_stats_instantness_low",
        "d:blazar_stats_robustness_low",
        "d:blazar_stats_instantness_high",
        "d:blazar_stats_robustness_high",
    ),
    titles=(
        ("i:", "ZTF original fields (i:)"),
        ("d:", "Fink science module outputs (d:)"),
        ("b:", "ZTF original cutouts (b:)"),
        ("v:", "Fink on-the-fly added values (v:)"),
    ),
    untitled=(
        "d:t2_",
    ),  # today's schema has no word of them, and a test of its clients relies on it
    is_default=True,
)
SURVEY = ZTF
TABLES = {"objects": ZTF_ALERTS}
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
        # Forced photometry is a flux in DN.
        "flux": "i:forcediffimflux",
        "fluxError": "i:forcediffimfluxunc",
        "fluxZeroPoint": "i:magzpsci",
    },
    {"withupperlim": "True"},
    {"valid": "detection, without stamps here", "forced": "forced photometry"},
)
