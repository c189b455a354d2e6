"""``config.yml`` and the environment."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cutout_api.errors import SettingsError
from cutout_api.settings import Address, Settings, load_settings, parse_address, setting_fields

ROOT = Path(__file__).parents[2]


def load(tmp_path: Path, text: str, **environ: str) -> Settings:
    file = tmp_path / "config.yml"
    file.write_text(text)
    return load_settings(file, environ)


def test_the_shipped_file_states_every_default_with_a_comment() -> None:
    text = (ROOT / "config.yml").read_text()
    shipped = load_settings(ROOT / "config.yml", {})
    defaults = Settings()
    assert shipped.server == defaults.server
    assert shipped.limits == defaults.limits
    assert shipped.catalog.url == f"sqlite:///{ROOT / 'catalog.sqlite'}"
    assert shipped.archive.uri == str(ROOT / defaults.archive.uri)
    assert shipped.index.folder == str(ROOT / ".cache/index")
    for name, (declared, _) in setting_fields().items():
        key = name.split(".")[1]
        line = re.search(rf"^  {key}:.*# (.+)$", text, re.MULTILINE)
        assert line, f"{name} has no commented line in config.yml"
        assert line.group(1) == declared.metadata["help"]


@pytest.mark.parametrize("name", sorted(setting_fields()))
def test_every_setting_has_an_environment_variable(tmp_path: Path, name: str) -> None:
    values = {
        "server.log_level": "DEBUG",
        "archive.uri": "hdfs://node:9000/data",
        "archive.driver": "native",
        "archive.roots": "/a,/b",
        "archive.user": "fink",
        "catalog.url": "postgresql://db/catalog",
        "answers.nan": "null",
        "server.host": "0.0.0.0",
        "server.cors_origins": "https://a.org, https://b.org",
        "index.folder": "/var/cache/index",
        "server.prefix": "/stamps",
        "server.trusted_proxies": "10.0.0.0/8, 2001:db8::1",
    }
    variable = "CUTOUT_API_" + name.replace(".", "_").upper()
    settings = load(
        tmp_path,
        "",
        **{variable: values.get(name, "4000" if name == "limits.stamp_bytes" else "400")},
    )
    section, key = name.split(".")
    expected = getattr(getattr(Settings(), section), key)
    assert getattr(getattr(settings, section), key) != expected


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, "server: {port: 1000}", CUTOUT_API_SERVER_PORT="2000")
    assert settings.server.port == 2000


def test_another_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.yml").write_text("server: {port: 1234}")
    settings = load_settings(environ={"CUTOUT_API_CONFIG": str(tmp_path / "other.yml")})
    assert settings.server.port == 1234


def test_a_relative_archive_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    assert load(tmp_path, "archive: {uri: some/folder}").archive.address.folder == str(
        tmp_path / "some/folder"
    )


LEGACY = """
APIURL: http://192.0.2.1
PORT: 24123
HDFS: hdfs-node.example
HDFSPORT: 8021
HDFSUSER: fink
"""


def test_the_older_services_file_works_unchanged(tmp_path: Path) -> None:
    settings = load(tmp_path, LEGACY)
    assert (settings.server.host, settings.server.port) == ("192.0.2.1", 24123)
    assert settings.archive.address == Address("/", "hdfs-node.example", 8021)
    assert settings.archive.user == "fink"
    assert settings.archive.driver == "libhdfs"


def test_a_port_behind_the_older_services_host_counts(tmp_path: Path) -> None:
    assert load(tmp_path, "HDFS: node:9000").archive.address == Address("/", "node", 9000)
    assert load(tmp_path, "HDFS: hdfs://node:9000/").archive.address == Address("/", "node", 9000)
    assert load(tmp_path, "APIURL: 'http://[::1]:5'").server.host == "::1"


def test_the_older_services_template_with_empty_values_is_read(tmp_path: Path) -> None:
    text = "APIURL: http://localhost\nHDFS: http://localhost\nHDFSPORT:\nHDFSUSER:\nPORT:\n"
    settings = load(tmp_path, text)
    assert settings.archive.address == Address("/", "localhost", 8020)
    assert (settings.server.host, settings.server.port) == ("localhost", 24000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server: {prt: 1}", ["server.prt", "did you mean server.port"]),
        ("sever: {port: 1}", ["sever", "did you mean server"]),
        ("HDFSS: x", ["HDFSS", "did you mean HDFS"]),
        ("server: {port: many}", ["server.port", "'many'", "whole number"]),
        ("server: {port: 70000}", ["server.port", "0 to 65535"]),
        ("server: {port: true}", ["server.port", "whole number"]),
        ("server: {port: 1.5}", ["server.port", "whole number"]),
        ("server: {log_level: LOUD}", ["server.log_level", "one of"]),
        ("server: {workers: 0}", ["server.workers", "must be 1 to 1024"]),
        ("server: 5", ["server", "section"]),
        ("- a", ["sections", "list"]),
        ("server: {host: [a]}", ["server.host", "text"]),
        ("archive: {driver: s3}", ["archive.driver", "libhdfs, native"]),
        ("archive: {uri: 's3://b/k'}", ["archive.uri", "'s3'", "file and hdfs"]),
        ("archive: {uri: 'hdfs:///x'}", ["archive.uri", "no host"]),
        ("archive: {uri: 'hdfs://h:port/x'}", ["archive.uri", "not a number"]),
        ("archive: {uri: 'hdfs://u@h/x'}", ["archive.uri", "archive.user"]),
        ("archive: {uri: 'file://host/x'}", ["archive.uri", "has a host"]),
        ("archive: {uri: '', roots: []}", ["archive.uri", "name a folder"]),
        ("archive: {uri: /data, roots: [data]}", ["archive.roots", "absolute"]),
        ("archive: {uri: /data, roots: ['hdfs://h/x']}", ["archive.roots", "is not on"]),
        ("limits: {deadline_seconds: .inf}", ["limits.deadline_seconds", "finite"]),
        ("limits: {deadline_seconds: 0}", ["limits.deadline_seconds", "0.001 to 3600"]),
        ("limits: {body_bytes: -1}", ["limits.body_bytes", "at least"]),
        ("catalog: {url: 'mysql://x'}", ["catalog.url", "sqlite:/// or postgresql://"]),
        ("catalog: {url: 'sqlite:///'}", ["catalog.url", "names no file"]),
        ("catalog: {url: 'postgresql://h:port/d'}", ["catalog.url", "is no address"]),
        ("a: [", ["not YAML"]),
        (LEGACY + "server: {port: 1}", ["server.port", "twice"]),
        ("HDFSPORT: 8020", ["HDFSPORT", "HDFS"]),
        ("server: {port: 1}\nserver: {port: 2}", ["server", "twice"]),
        ("server: {port: 1, port: 2}", ["port", "twice"]),
        ("server: {host: 'a b'}", ["server.host", "host name"]),
        ("server: {cors_origins: ['https://*.example.org']}", ["cors_origins", "not an origin"]),
        ("server: {cors_origins: ['https://a.example/']}", ["cors_origins", "not an origin"]),
        ("archive: {uri: 'file:/a'}", ["archive.uri", "two slashes"]),
        ("limits: {deadline_seconds: 1.0e+10}", ["limits.deadline_seconds", "to 3600"]),
        ("limits: {concurrent_reads: 100000}", ["limits.concurrent_reads", "to 1024"]),
        ("HDFS: 'a:b:c'", ["not a host"]),
        ("server: {prefix: stamps}", ["server.prefix", "such as /stamps"]),
        ("server: {prefix: /stamps/}", ["server.prefix", "without a / at its end"]),
        ("server: {prefix: //evil.example}", ["server.prefix", "such as /stamps"]),
        ("server: {prefix: /a/../b}", ["server.prefix", "such as /stamps"]),
        ("server: {prefix: /api/stamps}", ["server.prefix", "of the service itself"]),
        ("server: {trusted_proxies: [10.0.0.1/8]}", ["server.trusted_proxies", "host bits"]),
        ("server: {trusted_proxies: [nginx]}", ["server.trusted_proxies", "'nginx'", "networks"]),
        ("server: {trusted_proxies: '*'}", ["server.trusted_proxies", "'*'", "networks"]),
    ],
)
def test_a_bad_file_is_refused_saying_which_setting_and_why(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    for word in words:
        assert word in str(caught.value)


def test_a_bad_environment_is_refused_saying_which_variable_and_why(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean CUTOUT_API_SERVER_PORT"):
        load(tmp_path, "", CUTOUT_API_SERVER_PROT="1")
    with pytest.raises(SettingsError, match="CUTOUT_API_SERVER_PORT: must be a whole number"):
        load(tmp_path, "", CUTOUT_API_SERVER_PORT="x")


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "none.yml", {})


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("file:///data/archive/", Address("/data/archive")),
        ("/data/../archive", Address("/archive")),
        ("hdfs://node:9000/user/fink", Address("/user/fink", "node", 9000)),
        ("hdfs://node", Address("/", "node", 8020)),
    ],
)
def test_addresses(uri: str, address: Address) -> None:
    assert parse_address(uri) == address


@pytest.mark.parametrize(
    "url",
    [
        "mysql://fink:s3cret@db/catalog",
        "postgresql://fink:s3cret@:5432/catalog",
        "postgresql://fink:s3cret/x@db:5432/catalog",
        "postgresql://fink@db:s3cret/catalog",
        "postgresql://[s3cret/catalog",
        "host=db password=s3cret",
        ["postgresql://fink:s3cret@db/catalog"],
        {"password": "s3cret"},
    ],
)
def test_a_refused_address_of_the_catalog_shows_no_password(tmp_path: Path, url: object) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, json.dumps({"catalog": {"url": url}}))
    assert "s3cret" not in str(raised.value)
    assert "catalog.url = " in str(raised.value)
    if isinstance(url, str):
        with pytest.raises(SettingsError) as raised:
            load(tmp_path, "", CUTOUT_API_CATALOG_URL=url)
        assert "s3cret" not in str(raised.value)


def test_a_file_that_is_not_yaml_is_told_by_its_line_not_its_text(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"in line [23]") as raised:
        load(tmp_path, "catalog:\n  url: [postgresql://fink:s3cret@db/catalog\n")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "nan"),
    [
        ("nan: null", "null"),
        ('nan: "null"', "null"),
        ("nan: NaN", "NaN"),
        ("nan: auto", "auto"),
        ("", "auto"),
    ],
)
def test_null_is_a_word_of_its_own_where_it_means_something(
    tmp_path: Path, text: str, nan: str
) -> None:
    assert load(tmp_path, f"answers:\n  {text}\n").answers.nan == nan


@pytest.mark.parametrize("text", [".nan", "none", "Null", "0"])
def test_another_word_for_masked_pixels_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"answers\.nan"):
        load(tmp_path, f'answers:\n  nan: "{text}"\n')
