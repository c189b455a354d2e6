"""``config.yml`` and the environment -> ``Settings``, read once at start-up.

Each setting is a field below: its default, its type, the sentence that stands beside it in
``config.yml``. ``CUTOUT_API_ARCHIVE_URI`` overrides ``archive.uri``, and so on for each;
``CUTOUT_API_CONFIG`` names another file. The file of the service that came before
(``APIURL``, ``PORT``, ``HDFS``, ``HDFSPORT``, ``HDFSUSER``) is understood as it is.
"""

from __future__ import annotations

import getpass
import os
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import SplitResult, urlsplit

import yaml

from .errors import SettingsError, nearest, shorten
from .hadoop_conf import is_name_service, read_hadoop_conf
from .proxy import UNIX, is_prefix, parse_proxy

PREFIX = "CUTOUT_API_"
DEFAULT_HDFS_PORT = 8020
OWN_PATHS = (
    "api",
    "docs",
    "favicon.ico",
    "gallery",
    "healthz",
    "metrics",
    "openapi.json",
    "plain",
    "readyz",
    "static",
    "try",
)
"""What the addresses of the service begin with."""
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def setting(
    default: Any,
    help_text: str,
    check: Callable[[Any], str | None] | None = None,
    *,
    secret: bool = False,
    null: str | None = None,
) -> Any:
    """Declare one setting; ``check`` returns what is wrong with a value, or None.

    YAML's null counts as left out, unless ``null`` is the value that it stands for.
    A value that is ``secret``, since it may hold a password, is not shown where it is refused, so
    its check must not tell it either.
    """
    metadata = {"help": help_text, "check": check, "secret": secret, "null": null}
    return field(default=default, metadata=metadata)


def at_least(least: float) -> Callable[[Any], str | None]:
    return lambda value: None if value >= least else f"must be at least {least}"


def between(least: float, most: float) -> Callable[[Any], str | None]:
    return lambda value: None if least <= value <= most else f"must be {least:g} to {most:g}"


def one_of(*names: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in names else f"must be one of {', '.join(names)}"


def _check_port(value: int) -> str | None:
    return None if 0 <= value < 2**16 else "must be a port, 0 to 65535"


def _check_host(value: str) -> str | None:
    return None if re.fullmatch(r"[\w.:-]+", value) else "must be an address or a host name"


def _check_prefix(value: str) -> str | None:
    if value and not is_prefix(value):
        return "must be a path such as /stamps, of letters, digits and -._~, without a / at its end"
    if value and value.split("/")[1] in OWN_PATHS:
        return f"begins as addresses of the service itself do, which {', '.join(OWN_PATHS)} are"
    return None


def _check_proxies(value: tuple[str, ...]) -> str | None:
    for proxy in value:
        try:
            if proxy != UNIX:
                parse_proxy(proxy)
        except ValueError as error:
            return f"{error}: name addresses, networks such as 10.0.0.0/8, or {UNIX}"
    return None


def _check_origins(value: tuple[str, ...]) -> str | None:
    for origin in value:
        if origin != "*" and not re.fullmatch(r"https?://[\w.-]+(:\d+)?", origin):
            return f"{origin!r} is not an origin such as https://portal.example, nor *"
    return None


def _check_archive_uri(value: str) -> str | None:
    try:
        parse_address(value)
    except ValueError as error:
        return str(error)
    return None


def _check_catalog_url(value: str) -> str | None:
    if value.startswith("sqlite:///"):
        named = value.removeprefix("sqlite:///")
        return None if named and named != ":memory:" else "names no file"
    if not value.startswith(("postgresql://", "postgresql+psycopg://")):
        return "must begin with sqlite:/// or postgresql://"
    try:
        host = urlsplit(value).port is None or urlsplit(value).hostname
    except ValueError:  # whose sentence quotes a part of it
        return (
            "is no address: the port must be a number, and in a password /, ?, #, @ and : are "
            "written as %2F, %3F, %23, %40 and %3A"
        )
    return None if host else "has a port, but no host"


@dataclass(frozen=True)
class Address:
    """Where an archive is: a folder on this machine (``host`` None) or on HDFS."""

    folder: str
    host: str | None = None
    """A name node, a name service, or a mount table of viewfs."""
    port: int = 0
    """0 where the Hadoop configuration says which name nodes there are."""
    is_view: bool = False
    """Whether ``host`` is a mount table."""

    @property
    def scheme(self) -> str:
        if self.host is None:
            return "file"
        return "viewfs" if self.is_view else "hdfs"

    @property
    def place(self) -> str:
        """The scheme and the host, as they stand before a path."""
        return f"{self.scheme}://{self.host or ''}{f':{self.port}' if self.port else ''}"

    def same_place(self, other: Address) -> bool:
        """Tell whether both are on the same file system, whatever the folder."""
        return self.place == other.place

    def __str__(self) -> str:
        return self.place + self.folder


def parse_address(uri: str, environ: Mapping[str, str] | None = None) -> Address:
    """Return the place that a URI or a plain path names.

    That is ``file:///folder``; ``hdfs://host:port/folder``; ``hdfs://service/folder`` or
    ``viewfs://table/folder`` as the Hadoop configuration has them; or ``hdfs:///folder`` on its
    default file system.
    Raises ValueError saying what is wrong.
    """
    if not _URI.match(uri):
        if not uri:
            raise ValueError("must name a folder, e.g. file:///data/archive")
        if re.match(r"(file|hdfs|viewfs):", uri):
            raise ValueError("must have two slashes behind its scheme: file:///data, hdfs://host")
        return Address(folder=os.path.abspath(uri))  # noqa: PTH100
    parts = urlsplit(uri)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ValueError("has a host: a folder of this machine is file:///folder")
        if not parts.path:
            raise ValueError("names no folder: write file:///folder")
        return Address(folder=os.path.normpath(parts.path))
    if parts.scheme in ("hdfs", "viewfs"):
        if parts.username or parts.password:
            raise ValueError("names a user: that is the setting archive.user")
        host, port = _place_on_hdfs(parts, read_hadoop_conf(environ))
        folder = os.path.normpath("/" + parts.path.strip("/"))
        return Address(folder, host, port, is_view=parts.scheme == "viewfs")
    raise ValueError(f"has the scheme {parts.scheme!r}: file and hdfs are served, and viewfs")


def _place_on_hdfs(parts: SplitResult, conf: Mapping[str, str]) -> tuple[str, int]:
    """Return the host, in the case that names of the configuration have, and the port."""
    if not parts.netloc:
        default = urlsplit(conf.get("fs.defaultFS", ""))
        if default.scheme != parts.scheme or not default.netloc:
            said = f" is {default.geturl()}" if default.scheme else " is not set"
            raise ValueError(
                f"names no host: write {parts.scheme}://host/folder. (fs.defaultFS of the Hadoop "
                f"configuration, which HADOOP_CONF_DIR names,{said})"
            )
        parts = default
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError("has a port that is not a number") from error
    if not parts.hostname:
        raise ValueError("names no host: write hdfs://host:port/folder")
    name = parts.netloc.rpartition("@")[2]
    if parts.scheme == "viewfs":
        if port is not None:
            raise ValueError("has a port: the name of a mount table has none")
        return name, 0
    if not port and is_name_service(name.removesuffix(":0"), conf):
        return name.removesuffix(":0"), 0
    return parts.hostname, port or DEFAULT_HDFS_PORT


@dataclass(frozen=True)
class Server:
    host: str = setting(
        "127.0.0.1", "address to listen on; 0.0.0.0 for every interface", _check_host
    )
    port: int = setting(24000, "port to listen on", _check_port)
    workers: int = setting(2, "processes; one per core is a good start", between(1, 1024))
    threads: int = setting(8, "requests that one process answers at a time", between(1, 1024))
    cors_origins: tuple[str, ...] = setting(
        ("*",),
        "web pages that may call this service: a list of origins, or * for any",
        _check_origins,
    )
    prefix: str = setting(
        "",
        "path of the host below which the service is reached, e.g. /stamps; left out: the root",
        _check_prefix,
    )
    trusted_proxies: tuple[str, ...] = setting(
        ("127.0.0.1", "::1", UNIX),
        "proxies whose X-Forwarded-For, -Proto, -Host and -Prefix are believed: addresses, "
        "networks, unix for sockets",
        _check_proxies,
    )
    log_level: str = setting(
        "INFO",
        "DEBUG, INFO (a line per request), WARNING or ERROR",
        one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    )


@dataclass(frozen=True)
class Archive:
    uri: str = setting(
        "demo-archive",
        "file:///folder, hdfs://host:port/folder, hdfs://service/folder or viewfs://table/folder "
        "as in HADOOP_CONF_DIR, or a path relative to this file",
        _check_archive_uri,
    )
    user: str | None = setting(None, "HDFS user; the login name when left out")
    driver: str = setting(
        "libhdfs",
        "how HDFS is read: libhdfs (needs Java, see install/) or native (needs nothing)",
        one_of("libhdfs", "native"),
    )
    roots: tuple[str, ...] = setting(
        (),
        "folders that hdfsPath may lead to; left out: the folder of the uri and, on HDFS, "
        "the user's home",
    )
    recheck_seconds: float = setting(
        1.0,
        "how long a file on HDFS is taken to be what it was when last looked at; 0: look each time",
        at_least(0),
    )

    @property
    def address(self) -> Address:
        return parse_address(self.uri)

    @property
    def login(self) -> str:
        """The HDFS user, empty where there is none to be found."""
        try:
            return self.user or os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
        except (KeyError, OSError):  # a user id without a name, as containers have
            return ""


@dataclass(frozen=True)
class Index:
    folder: str = setting(
        "",
        "folder that keeps what is known of each file, so that a restart need not learn it; "
        "left out: not kept",
    )


@dataclass(frozen=True)
class Catalog:
    url: str = setting(
        "sqlite:///catalog.sqlite",
        "database of the archive's alerts: sqlite:///file, relative to this file, or postgresql://...",
        _check_catalog_url,
        secret=True,
    )


@dataclass(frozen=True)
class Answers:
    nan: str = setting(
        "auto",
        "how masked pixels are written in JSON arrays: NaN, null, or auto (what the caller reads)",
        one_of("auto", "null", "NaN"),
        null="null",
    )


@dataclass(frozen=True)
class Limits:
    body_bytes: int = setting(65_536, "largest request body", at_least(1))
    stamp_bytes: int = setting(33_554_432, "largest stamp, inflated", at_least(1))
    page_bytes: int = setting(
        167_772_160, "largest page of a column, as stored and inflated together", at_least(1)
    )
    image_pixels: int = setting(4_194_304, "most pixels in one image", at_least(1))
    concurrent_reads: int = setting(
        16, "requests that one process reads at a time", between(1, 1024)
    )
    queue_seconds: float = setting(
        2.0, "how long a request waits for its turn before the answer is 503", between(0, 3600)
    )
    deadline_seconds: float = setting(
        10.0, "how long one request may read before the answer is 504", between(0.001, 3600)
    )
    client_seconds: float = setting(
        10.0,
        "how long a whole request may take to arrive; an answer waits up to three times that for "
        "its client",
        between(0.001, 3600),
    )
    client_rate: int = setting(
        65_536, "bytes a second that a client must take of a long answer, on average", at_least(1)
    )
    folder_files: int = setting(2_000, "most files in a folder given as hdfsPath", at_least(1))
    epochs: int = setting(200, "most alerts in one answer, as epochs=all asks for", at_least(1))
    answer_bytes: int = setting(
        67_108_864,
        "most bytes of stamps in one answer of epochs=all, or of histories in a table",
        at_least(1),
    )
    open_files: int = setting(256, "files that one process keeps open", at_least(1))
    index_bytes: int = setting(
        16_777_216, "memory for what one process knows of files", at_least(1)
    )
    table_ids: int = setting(1_000, "most objects in one request for their data", at_least(1))
    table_rows: int = setting(20_000, "most rows in one table of alert data", at_least(1))
    batch_items: int = setting(100_000, "most ids in one batch", at_least(1))
    batch_bytes: int = setting(8_388_608, "largest request body of a batch", at_least(1))
    batch_memory: int = setting(
        67_108_864, "memory for the stamps that one batch has at hand", at_least(1)
    )
    batches: int = setting(
        2,
        "batches that one process answers at a time; less than half of server.threads at most",
        at_least(1),
    )
    batch_seconds: float = setting(
        60.0,
        "how long a batch may take before its first stamp is sent, or its plan is made",
        between(0.001, 3600),
    )
    long_tables: int = setting(
        2,
        "tables in several parts that one process sends at a time; less than half of "
        "server.threads at most",
        at_least(1),
    )


@dataclass(frozen=True)
class Settings:
    server: Server = field(default_factory=Server)
    archive: Archive = field(default_factory=Archive)
    index: Index = field(default_factory=Index)
    catalog: Catalog = field(default_factory=Catalog)
    answers: Answers = field(default_factory=Answers)
    limits: Limits = field(default_factory=Limits)


SECTIONS: Mapping[str, type] = {
    "server": Server,
    "archive": Archive,
    "index": Index,
    "catalog": Catalog,
    "answers": Answers,
    "limits": Limits,
}

LEGACY_KEYS = ("APIURL", "PORT", "HDFS", "HDFSPORT", "HDFSUSER")


@cache
def setting_fields() -> dict[str, tuple[Field[Any], Any]]:
    """Return every setting by its path: the declared field and its type."""
    found = {}
    for section, cls in SECTIONS.items():
        hints = get_type_hints(cls)
        for declared in fields(cls):
            found[f"{section}.{declared.name}"] = (declared, hints[declared.name])
    return found


def load_settings(
    path: str | Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read the configuration file and the environment.

    Raises SettingsError, which names the setting and the reason, for a file that cannot be
    read, a setting that does not exist, or a value that it does not take.
    """
    environ = os.environ if environ is None else environ
    named = path or environ.get(PREFIX + "CONFIG")
    file = Path(named or "config.yml")
    raw: dict[str, tuple[Any, str]] = {}
    if named or file.exists():
        raw.update(_read_file(file))
    raw.update(_read_environment(environ))

    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    declared = setting_fields()
    for name, (value, origin) in raw.items():
        section, _, key = name.partition(".")
        sections[section][key] = _convert(name, value, origin, *declared[name])
    settings = Settings(**{name: cls(**sections[name]) for name, cls in SECTIONS.items()})
    _check_together(settings)
    return settings


def _read_file(file: Path) -> dict[str, tuple[Any, str]]:
    content = _read_yaml(file)
    found: dict[str, tuple[Any, str]] = {}
    for section, values in content.items():
        if section in LEGACY_KEYS or values is None:
            continue
        if section not in SECTIONS:
            raise _unknown(str(section), [*SECTIONS, *LEGACY_KEYS], str(file))
        if not isinstance(values, dict):
            raise SettingsError(f"{section} in {file} is a section: put its settings below it")
        for key, value in values.items():
            name = f"{section}.{key}"
            if name not in setting_fields():
                raise _unknown(name, setting_fields(), str(file))
            null = setting_fields()[name][0].metadata["null"]
            if value is not None or null is not None:
                found[name] = (null if value is None else value, str(file))
    for name, value in _from_legacy(content).items():
        if name in found:
            raise SettingsError(f"{file} sets {name} twice: once as in older files, once as here")
        found[name] = (value, str(file))
    # A relative folder is relative to the file that names it, wherever the service starts.
    for name in ("archive.uri", "index.folder"):
        path = found.get(name, (None,))[0]
        if isinstance(path, str) and path and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path):
            found[name] = (str(file.parent.absolute() / path), str(file))
    url = found.get("catalog.url", (None,))[0]
    if isinstance(url, str) and re.match(r"sqlite:///[^/:]", url):
        path = file.parent.absolute() / url.removeprefix("sqlite:///")
        found["catalog.url"] = (f"sqlite:///{path}", str(file))
    return found


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, refusing a name that stands twice: one of the two would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"{name} stands there twice")
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[Any, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise SettingsError(f"{file} is not YAML: {error}") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{file} cannot be read: {reason}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{file} is not YAML: {_describe(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{file} must hold sections such as 'archive:', not a {_kind(content)}")
    return content


def _describe(error: yaml.YAMLError) -> str:
    """Return what is wrong and where, without the line itself, which may hold a password."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return str(error)


def _from_legacy(content: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the keys of the service that came before; empty values mean the default."""
    old = {key: content[key] for key in LEGACY_KEYS if content.get(key) not in (None, "")}
    found: dict[str, Any] = {}
    if "APIURL" in old:
        found["server.host"] = _host_and_port(old["APIURL"])[0]
    if "PORT" in old:
        found["server.port"] = old["PORT"]
    if "HDFSUSER" in old:
        found["archive.user"] = old["HDFSUSER"]
    if "HDFS" in old:
        host, port = _host_and_port(old["HDFS"])
        port = old.get("HDFSPORT", port)
        found["archive.uri"] = f"hdfs://{host}" + (f":{port}" if port else "")
    elif "HDFSPORT" in old:
        raise SettingsError("HDFSPORT is set, but HDFS, the host it belongs to, is not")
    return found


def _host_and_port(text: object) -> tuple[str, int | None]:
    """Return host and port of ``host``, ``host:port`` or ``http://host``."""
    try:
        parts = urlsplit(f"//{str(text).split('://')[-1]}")
        port = parts.port
        host = parts.netloc.removesuffix(f":{port}") if parts.hostname else ""
        return host.strip("[]"), port
    except ValueError as error:
        raise SettingsError(f"{text!r} is not a host: {error}") from error


def _read_environment(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    names = {PREFIX + name.replace(".", "_").upper(): name for name in setting_fields()}
    found: dict[str, tuple[Any, str]] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == PREFIX + "CONFIG":
            continue
        if variable not in names:
            raise _unknown(variable, [*names, PREFIX + "CONFIG"], "the environment")
        found[names[variable]] = (value, variable)
    return found


def _unknown(name: str, known: Any, where: str) -> SettingsError:
    near = nearest(name, known)
    hint = f"; did you mean {near}?" if near else ""
    return SettingsError(f"{name} in {where} is not a setting{hint}")


def _kind(value: object) -> str:
    words: dict[type, str] = {str: "text", list: "list", dict: "section"}
    return words.get(type(value), type(value).__name__)


def _convert(name: str, value: Any, origin: str, declared: Field[Any], hint: Any) -> Any:
    def refuse(reason: str) -> SettingsError:
        shown = _hide(value) if declared.metadata["secret"] else shorten(value)
        return SettingsError(f"{name} = {shown} in {origin}: {reason}")

    target = get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
    convert: Callable[[Any], Any] = _CONVERTERS.get(target, _to_texts)
    try:
        converted = convert(value)
    except (ValueError, TypeError) as error:
        raise refuse(str(error)) from error
    check = declared.metadata["check"]
    if check and (reason := check(converted)):
        raise refuse(reason)
    return converted


def _hide(value: object) -> str:
    """Return what may be shown of a value that may hold a password: how it begins."""
    scheme = _URI.match(value) if isinstance(value, str) else None
    return f"{scheme[0] if scheme else ''}(not shown)"


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number")
    try:
        return int(value)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError("must be a number") from None
    if not abs(number) < float("inf"):
        raise ValueError("must be a finite number")
    return number


def _to_text(value: Any) -> str:
    if isinstance(value, dict | list | bool):
        raise ValueError(f"must be text, not a {_kind(value)}")
    return str(value)


def _to_texts(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list):
        raise ValueError("must be a list, or text with commas")
    return tuple(text for text in (_to_text(item).strip() for item in items) if text)


_CONVERTERS: Mapping[Any, Callable[[Any], Any]] = {
    int: _to_int,
    float: _to_float,
    str: _to_text,
}


def _check_together(settings: Settings) -> None:
    if settings.archive.address.host is not None and not settings.archive.login:
        raise SettingsError("archive.user is not set, and this process has no login name")
    for root in settings.archive.roots:
        scheme_free = parse_root(root, settings.archive.address)
        if not scheme_free.startswith("/"):
            raise SettingsError(
                f"archive.roots: {root!r} must be an absolute folder of {settings.archive.address}"
            )


def parse_root(root: str, archive: Address) -> str:
    """Return the absolute folder that an entry of ``archive.roots`` names on the archive."""
    if _URI.match(root):
        try:
            address = parse_address(root)
        except ValueError as error:
            raise SettingsError(f"archive.roots: {root!r} {error}") from error
        if not address.same_place(archive):
            raise SettingsError(f"archive.roots: {root!r} is not on {archive}")
        return address.folder
    return "/" + os.path.normpath(root).lstrip("/") if root.startswith("/") else root
