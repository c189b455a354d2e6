"""What of a Hadoop configuration is read, and where archives are by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cutout_api.errors import SettingsError
from cutout_api.hadoop_conf import needs_kerberos, read_hadoop_conf
from cutout_api.name_service import client_conf
from cutout_api.settings import Address, load_settings, parse_address

SITE = {
    "dfs.nameservices": "Alerts",
    "dfs.ha.namenodes.Alerts": " nn1, nn2 ",
    "dfs.namenode.rpc-address.Alerts.nn1": "one:8020",
    "dfs.namenode.rpc-address.Alerts.nn2": "two:8020",
    "fs.viewfs.mounttable.all.link./archive": "hdfs://Alerts/archive",
}


def lay(folder: Path, name: str, settings: Mapping[str, str], more: str = "") -> Path:
    properties = "".join(
        f"<property>\n <name>{name}</name>\n <value>{value}</value>\n</property>\n"
        for name, value in settings.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"<?xml version='1.0'?>\n<configuration>\n{properties}{more}</configuration>\n")
    return file


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """The environment of a site with a name service, and a mount table."""
    folder = tmp_path / "conf"
    lay(folder, "core-site.xml", {"fs.defaultFS": "hdfs://Alerts"})
    lay(folder, "hdfs-site.xml", SITE)
    return {"HADOOP_CONF_DIR": str(folder)}


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("hdfs://Alerts/a", Address("/a", "Alerts", 0)),
        ("hdfs://Alerts", Address("/", "Alerts", 0)),
        ("hdfs:///a/b/", Address("/a/b", "Alerts", 0)),
        ("viewfs://all/archive", Address("/archive", "all", 0, is_view=True)),
        # No name service: a host, and the port that HDFS has.
        ("hdfs://alerts/a", Address("/a", "alerts", 8020)),
        ("hdfs://Node/a", Address("/a", "node", 8020)),
        ("hdfs://Alerts:9000/a", Address("/a", "alerts", 9000)),
    ],
)
def test_the_configuration_says_where_an_archive_is(
    site: dict[str, str], uri: str, address: Address
) -> None:
    assert parse_address(uri, site) == address
    if address.folder != "/":
        assert parse_address(str(address), site) == address


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("viewfs:///archive", "fs.defaultFS .* is hdfs://Alerts"),
        ("viewfs://all:8020/archive", "has a port: the name of a mount table has none"),
        ("hdfs://fink@Alerts/a", "names a user"),
        ("hdfs:/a", "must have two slashes"),
        ("viewfs:/a", "must have two slashes"),
        ("webhdfs://Alerts/a", "file and hdfs are served, and viewfs"),
    ],
)
def test_what_is_no_place_is_said(site: dict[str, str], uri: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(uri, site)


def test_without_a_configuration_nothing_is_the_default_file_system() -> None:
    with pytest.raises(ValueError, match=r"names no host.*HADOOP_CONF_DIR names, is not set"):
        parse_address("hdfs:///a", {})


def test_the_older_services_file_may_name_a_service(
    site: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", site["HADOOP_CONF_DIR"])
    for text in ("HDFS: Alerts", "HDFS: hdfs://Alerts\nHDFSPORT: ", "HDFS: Alerts\nHDFSPORT: 0"):
        (tmp_path / "config.yml").write_text(text + "\nHDFSUSER: fink\n")
        assert load_settings(tmp_path / "config.yml", {}).archive.address == Address("/", "Alerts")


def test_it_is_looked_for_where_the_drivers_do(tmp_path: Path, site: dict[str, str]) -> None:
    home, classes = tmp_path / "hadoop", tmp_path / "classes"
    lay(home / "etc" / "hadoop", "core-site.xml", {"from": "home"})
    lay(classes, "core-site.xml", {"from": "classes"})
    by_classes = {"CLASSPATH": f"/jars/a.jar:/jars/*:{tmp_path / 'none'}:{classes}:/jars/b.jar"}
    by_home = {"HADOOP_HOME": str(home)}
    assert read_hadoop_conf({}) == {}
    assert read_hadoop_conf(by_classes)["from"] == "classes"
    assert read_hadoop_conf(by_classes | by_home)["from"] == "home"
    assert "from" not in read_hadoop_conf(by_classes | by_home | site)


def test_a_file_that_is_included_counts(tmp_path: Path) -> None:
    lay(tmp_path, "more.xml", {"hadoop.security.authentication": "Kerberos"})
    include = "<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='more.xml'/>"
    lay(tmp_path, "core-site.xml", {"a": "b"}, include)
    conf = read_hadoop_conf({"HADOOP_CONF_DIR": str(tmp_path)})
    assert conf["a"] == "b"
    assert needs_kerberos(conf)
    assert not needs_kerberos({})


def test_a_file_that_is_no_xml_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core-site.xml").write_text("<configuration>")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    with pytest.raises(SettingsError, match=r"archive\.uri.*core-site\.xml"):
        load_settings(environ={"CUTOUT_API_ARCHIVE_URI": "hdfs://node/a"})
    assert load_settings(environ={"CUTOUT_API_ARCHIVE_URI": str(tmp_path)})  # needs none


def test_hdfs_native_gets_name_nodes_without_spaces_in_turn_and_a_fallback(
    site: dict[str, str],
) -> None:
    conf = read_hadoop_conf(site)
    turns = [client_conf(conf, turn)["dfs.ha.namenodes.Alerts"] for turn in range(3)]
    assert turns == ["nn1,nn2", "nn2,nn1", "nn1,nn2"]
    fallback = "fs.viewfs.mounttable.all.linkFallback"
    assert client_conf(conf)[fallback].startswith("hdfs://Alerts/.no-such-folder")
    theirs = {**conf, fallback: "hdfs://Alerts/rest"}
    assert client_conf(theirs)[fallback] == "hdfs://Alerts/rest"
