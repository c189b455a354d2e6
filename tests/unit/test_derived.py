"""Columns worked out from others: the rules of the classification, dates at their limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cutout_api.derived import LABELS, ZTF_DERIVED, classify

QUIET: dict[str, Any] = {
    "d:cdsxmatch": "Unknown",
    "d:roid": 0,
    "d:mulens": 0.0,
    "d:mulens_class_1": "",
    "d:mulens_class_2": "",
    "d:tracklet": "",
    "d:snn_snia_vs_nonia": 0.0,
    "d:snn_sn_vs_all": 0.0,
    "d:rf_snia_vs_nonia": 0.0,
    "d:rf_kn_vs_nonkn": 0.0,
    "i:ndethist": 12,
    "i:drb": 0.99,
    "i:classtar": 0.95,
    "i:jd": 2_459_000.5,
    "i:jdstarthist": 2_459_000.5 - 30,
}
PLACED = {
    "i:ra": 1.0,
    "i:dec": 1.0,
    "i:objectId": "ZTF24aaaaaaa",
    "i:fid": 1,
    "i:magpsf": 18.0,
    "i:sigmapsf": 0.1,
}
SUPERNOVA = {"d:snn_sn_vs_all": 0.8}
KILONOVA = {"d:rf_kn_vs_nonkn": 0.9, "i:jdstarthist": 2_458_999.5}
CASES: list[tuple[dict[str, Any], str]] = [
    ({}, "Unknown"),
    ({"d:cdsxmatch": "QSO"}, "QSO"),
    ({"d:cdsxmatch": "QSO"} | SUPERNOVA, "QSO"),
    ({"d:cdsxmatch": "Fail 504"}, "Unknown"),
    ({"d:cdsxmatch": "Galaxy"}, "Unknown"),
    ({"d:cdsxmatch": "Galaxy"} | SUPERNOVA, "SN candidate"),
    ({"d:cdsxmatch": None}, "Unknown"),
    (SUPERNOVA, "SN candidate"),
    (SUPERNOVA | {"i:drb": 0.5}, "Unknown"),
    (SUPERNOVA | {"i:drb": None}, "Unknown"),
    (SUPERNOVA | {"i:classtar": 0.4}, "Unknown"),
    (SUPERNOVA | {"i:drb": 0.51, "i:classtar": 0.41}, "SN candidate"),
    ({"d:snn_sn_vs_all": 0.5, "d:snn_snia_vs_nonia": 0.5}, "Unknown"),
    ({"d:snn_sn_vs_all": 0.51}, "SN candidate"),
    ({"d:snn_snia_vs_nonia": 0.51}, "SN candidate"),
    (SUPERNOVA | {"i:ndethist": 1}, "Unknown"),
    (SUPERNOVA | {"i:ndethist": 2}, "SN candidate"),
    (SUPERNOVA | {"i:jdstarthist": 2_459_000.5 - 90}, "SN candidate"),
    (SUPERNOVA | {"i:jdstarthist": 2_459_000.5 - 91}, "Unknown"),
    (SUPERNOVA | {"i:jdstarthist": None}, "Unknown"),
    (SUPERNOVA | {"d:rf_snia_vs_nonia": 0.6}, "Early SN Ia candidate"),
    (SUPERNOVA | {"d:rf_snia_vs_nonia": 0.5}, "SN candidate"),
    (SUPERNOVA | {"d:rf_snia_vs_nonia": 0.51, "i:ndethist": 20}, "Early SN Ia candidate"),
    (SUPERNOVA | {"d:rf_snia_vs_nonia": 0.6, "i:ndethist": 21}, "SN candidate"),
    (KILONOVA, "Kilonova candidate"),
    (KILONOVA | {"i:jdstarthist": 2_458_995.5}, "Unknown"),
    (KILONOVA | {"i:jdstarthist": 2_458_995.75}, "Kilonova candidate"),
    (KILONOVA | {"i:ndethist": 20}, "Unknown"),
    (KILONOVA | {"i:ndethist": 19}, "Kilonova candidate"),
    (KILONOVA | {"d:rf_kn_vs_nonkn": 0.5}, "Unknown"),
    ({"d:mulens": 0.0}, "Unknown"),
    (KILONOVA | SUPERNOVA, "Kilonova candidate"),
    ({"d:mulens": 0.1}, "Microlensing candidate"),
    ({"d:mulens": None, "d:mulens_class_1": "ML"}, "Unknown"),
    ({"d:mulens_class_1": "ML", "d:mulens_class_2": "ML"}, "Microlensing candidate"),
    ({"d:mulens": 0.1} | SUPERNOVA, "Ambiguous"),
    ({"d:roid": 2}, "Solar System candidate"),
    ({"d:roid": 3}, "Solar System MPC"),
    ({"d:roid": 2} | SUPERNOVA, "Ambiguous"),
    ({"d:roid": 3} | SUPERNOVA, "Solar System MPC"),
    ({"d:tracklet": "TRCK_20210801"}, "Tracklet"),
    ({"d:tracklet": "null"}, "Unknown"),
    ({"d:roid": None}, "Unknown"),
]


def columns(*rows: dict[str, Any]) -> dict[str, pa.Array]:
    return {name: pa.array([(QUIET | row)[name] for row in rows]) for name in QUIET}


def test_each_rule_of_the_classification() -> None:
    found = classify(columns(*(changes for changes, _ in CASES))).to_pylist()
    assert list(zip(found, CASES, strict=True)) == [(case[1], case) for case in CASES]


def test_every_label_is_met_by_a_case() -> None:
    assert {label.name for label in LABELS} <= {expected for _, expected in CASES}


def test_what_an_old_file_lacks_does_not_hold() -> None:
    inputs = columns(SUPERNOVA)
    for name in ("d:mulens", "d:mulens_class_1", "d:mulens_class_2", "d:tracklet"):
        del inputs[name]
    assert classify(inputs).to_pylist() == ["SN candidate"]


@pytest.mark.parametrize("derived", ZTF_DERIVED, ids=lambda derived: derived.name)
def test_nulls_nan_and_the_absurd_give_null_or_a_word(derived: Any) -> None:
    strange = [None, float("nan"), float("inf"), -1e300, 0.0, 1e9]
    inputs = {
        name: pa.array(strange) if not isinstance(value, str) else pa.array(["x"] * len(strange))
        for name, value in (QUIET | PLACED).items()
    }
    found = derived.values(inputs, {})
    assert len(found) == len(strange)
    assert found.type == derived.type
    assert found[0].as_py() in (None, "x", "Unknown")


def test_types_other_than_usual_are_understood() -> None:
    """A file of pandas has floats for everything; one of Spark may have text for scores."""
    inputs = columns(SUPERNOVA)
    inputs["d:snn_sn_vs_all"] = pa.array(["0.8"])
    inputs["d:roid"] = pa.array(np.array([0.0]))
    inputs["d:cdsxmatch"] = inputs["d:cdsxmatch"].dictionary_encode()
    assert classify(inputs).to_pylist() == ["SN candidate"]
