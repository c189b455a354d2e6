"""What the Hadoop configuration of a site says: ``core-site.xml`` and ``hdfs-site.xml``.

It names the name nodes of a name service, the default file system, the mount tables of viewfs,
and whether Kerberos is needed. libhdfs reads it by itself, where the Java classes are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from xml.etree import ElementInclude, ElementTree

FILES = ("core-site.xml", "hdfs-site.xml")
NAME_NODES = "dfs.ha.namenodes."
MOUNTS = "fs.viewfs.mounttable."


def read_hadoop_conf(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Return the site's settings by name, none where there is no configuration.

    It is looked for where hdfs-native and libhdfs do: in ``HADOOP_CONF_DIR``, below
    ``HADOOP_HOME``, in the folders of ``CLASSPATH``. It is read once.
    Raises ValueError for a file that cannot be read.
    """
    folder = conf_folder(os.environ if environ is None else environ)
    return {} if folder is None else _read(folder)


def conf_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder of the configuration."""
    return next((f for f in _folders(environ) if any((f / name).exists() for name in FILES)), None)


def _folders(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("HADOOP_CONF_DIR"):
        yield Path(environ["HADOOP_CONF_DIR"])
    if environ.get("HADOOP_HOME"):
        yield Path(environ["HADOOP_HOME"], "etc", "hadoop")
    for place in environ.get("CLASSPATH", "").split(os.pathsep):
        if place and not place.endswith((".jar", "*")):
            yield Path(place)


@cache
def _read(folder: Path) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in FILES:
        file = folder / name
        if not file.exists():
            continue
        try:
            root = ElementTree.parse(file).getroot()  # noqa: S314  # the site's own
            ElementInclude.include(root, base_url=str(file))
        except (OSError, ElementTree.ParseError, ElementInclude.FatalIncludeError) as error:
            raise ValueError(f"needs the Hadoop configuration {file}: {error}") from error
        for item in root.iter("property"):
            found[item.findtext("name", "").strip()] = item.findtext("value", "").strip()
    for name, value in found.items():
        if name.startswith(NAME_NODES):  # hdfs-native takes the spaces for a part of the names
            found[name] = ",".join(part.strip() for part in value.split(","))
    return found


def is_name_service(name: str, conf: Mapping[str, str]) -> bool:
    """Tell whether a name stands for several name nodes, and so has no port."""
    return NAME_NODES + name in conf


def needs_kerberos(conf: Mapping[str, str]) -> bool:
    """Tell whether the site asks who its users are."""
    return conf.get("hadoop.security.authentication", "simple").lower() == "kerberos"
