"""The package's listing is its diagram: each module imports only what stands above it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cutout_api

PACKAGE = Path(cutout_api.__file__).parent

# From the bottom up. A module may import any that stands in an earlier line.
LAYERS = (
    ("proxy",),
    (
        "errors",
        "thrift",
        "http_cache",
        "whole_files",
        "celestial",
        "isolation",
        "plain_text",
        "hadoop_conf",
    ),
    (
        "settings",
        "metrics",
        "surveys",
        "fetch",
        "gunzip",
        "hdus",
        "footer",
        "work",
        "name_service",
        "rates",
        "parts",
    ),
    ("tiles", "planes", "arrays"),
    ("stamp", "client", "geometry", "storage", "sky", "derived", "layouts", "table_formats"),
    ("quantities",),
    ("epochs", "render", "columns", "joining"),
    ("pages", "wcs", "presets", "history"),
    ("views", "labels"),
    ("panels",),
    ("recipe",),
    ("formatter", "info"),
    ("request", "index", "batch_formats"),
    ("alert_columns", "table_request", "batch_request", "arguments"),
    ("catalog",),
    ("lookup",),
    ("reader", "openapi", "demo", "progress"),
    ("indexing", "tables", "answer", "batch"),
    ("get", "explorer", "schema"),
    ("web",),
    ("server",),
    ("cli",),
)
KNOW_FLASK = {"web"}


def imports(module: str) -> set[str]:
    """Return the names of what a module imports: siblings with a leading dot.

    A folder is one module: what its files import of each other is its own affair.
    """
    found: set[str] = set()
    folder = PACKAGE / module
    for file in [*folder.glob("*.py")] if folder.is_dir() else [PACKAGE / f"{module}.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module or "")
            elif isinstance(node, ast.ImportFrom) and node.level > folder.is_dir():
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found |= {f".{name}" for name in names}
    return found - {".__version__"}


def test_every_module_has_its_place() -> None:
    modules = {file.stem for file in PACKAGE.glob("*.py") if not file.stem.startswith("__")}
    modules |= {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert modules == {name for layer in LAYERS for name in layer}


def test_every_module_is_described() -> None:
    document = PACKAGE.parent / "docs" / "architecture.md"
    rows = [line.split("|")[1] for line in document.read_text().splitlines() if line[:3] == "| `"]
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_modules_import_only_what_stands_above_them(number: int) -> None:
    allowed = {f".{name}" for layer in LAYERS[:number] for name in layer}
    for module in LAYERS[number]:
        siblings = {name for name in imports(module) if name.startswith(".")}
        assert siblings <= allowed, f"{module} imports {sorted(siblings - allowed)}"


def test_only_the_web_module_knows_flask() -> None:
    knowing = {
        module
        for layer in LAYERS
        for module in layer
        if any(name.split(".")[0] in ("flask", "werkzeug") for name in imports(module))
    }
    assert knowing == KNOW_FLASK


def test_the_client_costs_a_notebook_nothing_of_the_service() -> None:
    heavy = {"flask", "werkzeug", "pyarrow", "sqlalchemy", "matplotlib", "PIL", "orjson"}
    code = (
        "import sys; import cutout_api.client; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}), "
        "*(name for name in sys.modules if name.startswith('cutout_api.')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert not loaded & heavy
    ours = {"client", "fetch", "http_cache", "planes", "surveys", "celestial"}
    assert {name.split(".")[1] for name in loaded if name.startswith("cutout_api.")} == ours
