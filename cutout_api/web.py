"""Routes, headers, error responses: the only module of the package that knows Flask."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import select
import socket
import time
import uuid
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import numpy as np
import orjson
from flask import (
    Flask,
    Request,
    Response,
    current_app,
    g,
    render_template,
    request,
    send_from_directory,
)
from flask_cors import CORS
from flask_swagger_ui import __file__ as swagger_ui_file
from isal import igzip
from werkzeug.exceptions import (
    HTTPException,
    RequestedRangeNotSatisfiable,
    RequestEntityTooLarge,
)
from werkzeug.middleware.proxy_fix import ProxyFix

from . import __version__, metrics
from .answer import (
    CUTOUTS,
    JSON,
    CutoutAnswer,
    answer_request,
    file_stem,
    make_layout,
    spell_masked,
)
from .arguments import refuse_mistakes
from .arrays import AUTO
from .batch import Batch, Batches
from .batch_formats import PACKAGES, Answer, Head, write_batch
from .batch_request import (
    BATCH_PARAMETERS,
    FILE_PART,
    BatchRequest,
    parse_batch_request,
    too_many_ids,
)
from .errors import (
    AddressTooLong,
    BodyTooLarge,
    ConflictingParameters,
    CutoutError,
    InternalError,
    InvalidParameter,
    MalformedBody,
    MalformedHttp,
    MethodNotAllowed,
    RangeNotSatisfiable,
    RouteNotFound,
    UnknownParameter,
    UnsupportedMediaType,
    error_classes,
    shorten,
)
from .explorer import (
    Examples,
    describe_identities,
    describe_surveys,
    group_keys,
    list_abilities,
    list_figures,
)
from .formatter import FORMATS
from .info import describe_shot
from .openapi import describe_service_below
from .parts import find_part
from .proxy import PROXIED, Front
from .reader import Reader
from .render import Rendering, render
from .request import (
    IDENTIFY_PARAMETERS,
    INFO_PARAMETERS,
    PARAMETERS,
    STRICT,
    CutoutRequest,
    describe_parameters,
    not_one_value,
    parse_identify_request,
    parse_info_request,
    parse_request,
)
from .schema import describe_columns, describe_schema
from .settings import Limits, Settings
from .surveys import KEYS, list_titles
from .table_formats import TABLE_FORMATS
from .table_request import (
    COLUMN_PARAMETERS,
    MAX_NAME,
    SCHEMA_PARAMETERS,
    TABLE_PARAMETERS,
    TableRequest,
    parse_schema_request,
    parse_survey,
    parse_table_request,
)
from .tables import Answer as TableAnswer
from .tables import Tables
from .work import Places, has_left

log = logging.getLogger("cutout_api")

PROBLEM = "application/problem+json"
FITS_MEDIA_TYPES = ("application/fits", "image/fits")
NAN_SETTING = "CUTOUT_NAN"
"""Of the application: how masked pixels are written where the request does not say."""
CALLER = "Accept, Sec-Fetch-Mode, Origin"
"""Headers that tell whether the caller reads ``NaN``."""
FOREVER = "public, max-age=31536000, immutable"
BRIEFLY = "public, max-age=60"
GZIP_FROM_BYTES = 500
BY_PROXY = ("X-Forwarded-Prefix", "X-Forwarded-Host", "X-Forwarded-Proto")
"""What the links of an answer depend on."""
EXPOSED_HEADERS = [
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Retry-After",
    "X-Cutout-Id",
    "X-Cutout-Survey",
    "X-Cutout-Time",
    "X-Hint",
    "X-Request-ID",
    "X-Unknown-Arguments",
    "X-Unknown-Columns",
    "X-Unknown-Ids",
]
MAX_HEADER, MAX_HINT = 2000, 400
ARGUMENTS = frozenset().union(
    PARAMETERS,
    BATCH_PARAMETERS,
    IDENTIFY_PARAMETERS,
    SCHEMA_PARAMETERS,
    *TABLE_PARAMETERS.values(),
)
"""Of all routes."""
KEY_NAMES = list(KEYS)
PAGE_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
SWAGGER_UI = Path(swagger_ui_file).parent / "dist"
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
TEXTS = ("text/plain", "text/csv")
ARRAY = "array"
JSON_LINES = PACKAGES["ndjson"].media_type
_JSON_LINES = (JSON, JSON_LINES)
VALUE_SIGNS = (b",", b"[", b"{")
"""Each value of JSON but the first follows one of these."""
OPTIONS = 1000
"""Values that a batch may have besides its ids."""
ESCAPES = 4
"""Bytes of a form that may be escaped for each id; a comma and a blank are."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)

# What Flask itself refuses, as the errors of this service.
HTTP_ERRORS: dict[int, type[CutoutError]] = {
    400: MalformedBody,
    404: RouteNotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
    414: AddressTooLong,
    415: UnsupportedMediaType,
}


def create_app(settings: Settings) -> Flask:
    """Return the WSGI application; nothing is connected before the first request or ``warm_up``."""
    app = Flask(__name__)
    app.url_map.strict_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = settings.limits.body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.limits.body_bytes
    app.config[NAN_SETTING] = settings.answers.nan
    app.logger.handlers.clear()
    app.wsgi_app = Front(  # type: ignore[method-assign]
        app.wsgi_app,
        ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1),
        settings.server.prefix,
        settings.server.trusted_proxies,
    )
    app.jinja_env.globals["survey_titles"] = list_titles()
    reader = Reader(settings)
    app.extensions["cutout_reader"] = reader
    CORS(
        app,
        origins=list(settings.server.cors_origins),
        send_wildcard=True,
        expose_headers=EXPOSED_HEADERS,
        max_age=86400,
    )
    limits, threads = settings.limits, settings.server.threads
    _add_cutouts(app, reader, limits.image_pixels)
    _add_info(app, reader, limits.image_pixels)
    _add_identify(app, reader)
    batches = Places(limits.batches, threads, limits.queue_seconds, "batches")
    _add_batch(app, reader, limits, batches)
    long_tables = Places(limits.long_tables, threads, limits.queue_seconds, "long tables")
    _add_tables(app, Tables(reader, limits), limits, long_tables)
    _add_operations(app, reader)
    _add_pages(app, reader)
    _add_error_handlers(app)
    _add_bookkeeping(app, varies="*" not in settings.server.cors_origins)
    return app


def warm_up(app: Flask) -> Reader:
    """Pay what a first request would: connecting (a JVM takes a second), imports, tables.

    Raises a CutoutError unless the archive answers.
    """
    # Not a kernel: astropy.convolution takes 0.5 s, once, but 16 MB of every worker for ever.
    render(np.eye(2), Rendering(colormap="viridis"))
    reader: Reader = app.extensions["cutout_reader"]
    reader.check()
    return reader


def _add_cutouts(app: Flask, reader: Reader, most_pixels: int) -> None:
    @app.route(CUTOUTS, methods=["GET", "POST"])
    def cutouts() -> Response:
        if request.method in ("GET", "HEAD") and not request.args:
            return _json({"args": describe_parameters()}, BRIEFLY)
        asked = parse_request(_payload(PARAMETERS))
        if asked.format == ARRAY:
            asked = _for_caller(asked, JSON)
        g.format = asked.format
        g.sought = " ".join(f"{name}={value}" for name, value in asked.keys.items())
        made = answer_request(reader, asked, most_pixels)
        asked = made.asked
        if asked.explain:
            return _finish(made.body, JSON, _caching(asked), {})
        return _send(made, asked)


def _add_info(app: Flask, reader: Reader, most_pixels: int) -> None:
    @app.get(f"{CUTOUTS}/info")
    def info() -> Response:
        asked = parse_info_request(_payload(INFO_PARAMETERS))
        g.sought = " ".join(f"{name}={value}" for name, value in asked.keys.items())
        asked, alert = reader.read_settled(asked)
        layout = make_layout(asked, alert.alert_id, most_pixels)
        return _json(describe_shot(alert, layout), _caching(asked))


def _add_identify(app: Flask, reader: Reader) -> None:
    @app.get("/api/v1/identify")
    def identify() -> Response:
        if not request.args:
            return _json({"args": describe_parameters(IDENTIFY_PARAMETERS)}, BRIEFLY)
        asked = parse_identify_request(_payload(IDENTIFY_PARAMETERS))
        g.sought = f"id={asked.text}"
        return _json(describe_identities(asked, reader.identify(asked)), BRIEFLY)


def _add_batch(app: Flask, reader: Reader, limits: Limits, places: Places) -> None:
    batches = Batches(reader, limits)

    @app.route(f"{CUTOUTS}/batch", methods=["GET", "POST"])
    def batch() -> Response:
        if request.method in ("GET", "HEAD"):
            for name in _payload(BATCH_PARAMETERS):
                raise UnknownParameter(name, ())  # they are for POST
            return _json({"args": describe_parameters(BATCH_PARAMETERS)}, BRIEFLY)
        request.max_content_length = request.max_form_memory_size = limits.batch_bytes
        _body()  # before there is a place for it: a client may send slowly
        give_back = places.take()
        try:
            asked = parse_batch_request(*_batch_payload(limits.batch_items), limits.batch_items)
            asked = replace(asked, template=_for_caller(asked.template, *_JSON_LINES))
            g.format = asked.package
            g.sought = f"{len(asked.ids)} x {asked.key.name}"
            asked = batches.settle(asked)
            opened = batches.open(asked)
            if asked.dry_run:
                with contextlib.closing(opened):
                    plan = opened.plan()
                give_back()
                return _json(plan)
            return _send_batch(asked, opened, limits.image_pixels, give_back)
        except BaseException:
            give_back()
            raise


def _has_left(connection: socket.socket | None) -> bool:
    """Tell whether the client of a connection is gone, or has closed its side of it."""
    if connection is None:  # a server that does not say which one it is
        return False
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def _send_batch(
    asked: BatchRequest, batch: Batch, most_pixels: int, give_back: Callable[[], None]
) -> Response:
    """Return the package as it is made; what fails once it has begun breaks the answer off."""
    template = asked.template
    texts = [asked.text(number) for number in range(len(asked.ids))]

    def answers() -> Iterable[Answer]:
        for result in batch:
            alert_id = None if result.alert is None else result.alert.alert_id
            layout = make_layout(result.request, alert_id, most_pixels)
            yield Answer(texts[result.number], result.alert, layout, result.error)

    head = Head(
        template.survey,
        template.kinds,
        template.kind,
        template.format,
        texts,
        asked.side,
        asked.normalise,
        request.script_root,
    )
    chosen = PACKAGES[asked.package]
    name = f"{template.survey.name}_{template.kind}{chosen.suffix}"
    headers = {
        "Content-Disposition": f"attachment; filename={name}",
        "Cache-Control": "no-store",
    }
    if template.format == ARRAY and chosen.media_type == JSON_LINES and _asks_caller(template):
        headers["Vary"] = CALLER
    parts = write_batch(asked.package, head, answers())
    return _stream(parts, headers, chosen.media_type, batch.close, give_back)


def _stream(
    parts: Iterable[bytes],
    headers: dict[str, str],
    media_type: str,
    *then: Callable[[], None],
) -> Response:
    """Return an answer that is sent as it is made.

    ``then`` is called when it ends, and again as it is closed, which may be before it begins.
    """

    def end() -> None:
        for call in then:
            call()

    def send() -> Iterator[bytes]:
        try:
            yield from parts
        finally:
            end()

    headers["Accept-Ranges"] = "none"  # what has no length yet has no end to count from
    response = Response(send(), 200, headers, mimetype=media_type)
    response.call_on_close(end)
    return response


def _batch_payload(most_ids: int) -> tuple[dict[str, Any], bytes | None]:
    """Return the arguments of a batch, and the file of ids that came with them, if one did.

    Raises BatchTooLarge for what holds more values than so many ids need, before it is parsed.
    """
    pairs: list[tuple[str, Any]] = list(request.args.items(multi=True))
    if request.mimetype in TEXTS:
        return _merge(pairs, BATCH_PARAMETERS, BATCH_PARAMETERS), _body()
    if request.mimetype == MULTIPART:
        files = list(request.files.items(multi=True))
        if len(files) > 1 or any(name != FILE_PART for name, _ in files):
            raise MalformedBody(f"a form holds one file of ids, as its field {FILE_PART!r}")
        pairs += request.form.items(multi=True)
        payload = _merge(pairs, BATCH_PARAMETERS, BATCH_PARAMETERS)
        return payload, files[0][1].read() if files else None
    body = _body()
    if request.mimetype == FORM:
        values = body.count(b"%") / ESCAPES
    else:
        values = sum(map(body.count, VALUE_SIGNS))
    if values > most_ids + OPTIONS:
        raise too_many_ids(most_ids)
    pairs += _body_pairs()
    return _merge(pairs, BATCH_PARAMETERS, BATCH_PARAMETERS), None


def _caching(asked: CutoutRequest) -> str:
    return FOREVER if asked.names_one_alert else BRIEFLY


def _add_tables(app: Flask, tables: Tables, limits: Limits, places: Places) -> None:
    def answer(route: str) -> Response:
        parameters = TABLE_PARAMETERS[route]
        if request.method in ("GET", "HEAD") and not request.args:
            return _json({"args": describe_parameters(parameters)}, BRIEFLY)
        payload = _payload(parameters, lists=parameters)
        asked = parse_table_request(payload, route, limits.table_ids)
        g.format = asked.format
        g.sought = f"{asked.view.survey.object_key.name}={','.join(map(str, asked.object_ids[:3]))}"
        return _send_table(asked, tables.read(asked), places)

    @app.route("/api/v1/objects", methods=["GET", "POST"])
    def objects() -> Response:
        return answer("objects")

    @app.route("/api/v1/sources", methods=["GET", "POST"])
    def sources() -> Response:
        return answer("sources")

    @app.route("/api/v1/fp", methods=["GET", "POST"])
    def fp() -> Response:
        return answer("fp")

    @app.route("/api/v1/schema", methods=["GET", "POST"])
    def schema() -> Response:
        asked = parse_schema_request(_payload(SCHEMA_PARAMETERS))
        return _json(describe_schema(tables, asked), BRIEFLY)

    @app.get("/api/v1/columns")
    def columns() -> Response:
        entries = describe_columns(tables, parse_survey(_payload(COLUMN_PARAMETERS)))
        return _json({"columns": entries}, BRIEFLY)


def _send_table(asked: TableRequest, answer: TableAnswer, places: Places) -> Response:
    """Return the table whole, with a tag, where it is small; else as it is made."""
    chosen = TABLE_FORMATS[asked.format]
    parts = chosen.write(answer.head, answer.chunks)
    if answer.is_whole:
        with metrics.stage("format"):
            whole = b"".join(parts)
    headers = {}
    if answer.unknown:
        headers["X-Unknown-Columns"] = _list_in_header(answer.unknown)
    if answer.unknown_ids:
        headers["X-Unknown-Ids"] = _list_in_header(answer.unknown_ids)
        hint = shorten(answer.hint, MAX_HINT, quote=False)
        headers["X-Hint"] = hint.encode("ascii", "backslashreplace").decode()
    if chosen.suffix:
        ids = asked.object_ids
        stem = str(ids[0]) if len(ids) == 1 else asked.view.survey.name + "_objects"
        headers["Content-Disposition"] = f"attachment; filename={stem}{chosen.suffix}"
    if answer.is_whole:
        return _finish(whole, chosen.media_type, BRIEFLY, headers)
    headers["Cache-Control"] = BRIEFLY
    return _stream(parts, headers, chosen.media_type, answer.chunks.close, places.take())


def _list_in_header(names: Iterable[str]) -> str:
    """Return names as a header may hold them, percent-encoded and not too many."""
    some = islice(names, MAX_HEADER)
    text = ",".join(quote(shorten(name, MAX_NAME, quote=False), safe=":()-") for name in some)
    return text if len(text) <= MAX_HEADER else text[:MAX_HEADER].rpartition(",")[0] + ",..."


def _add_operations(app: Flask, reader: Reader) -> None:
    @app.get("/healthz")
    def healthz() -> Response:
        _take_no_arguments()
        return _json({"status": "ok", "version": __version__})

    @app.get("/readyz")
    def readyz() -> Response:
        _take_no_arguments()
        reader.check()
        return _json({"status": "ready", "archive": "reachable"})

    @app.get("/metrics")
    def metrics_() -> Response:
        # For operators: nobody who comes through a proxy gets it, however it is spelled.
        if PROXIED in request.environ:
            raise RouteNotFound(f"there is nothing here; {_what_there_is()}")
        return Response(metrics.exposition(), content_type=metrics.MEDIA_TYPE)

    @app.get("/openapi.json")
    def openapi() -> Response:
        response = _json(describe_service_below(request.script_root), BRIEFLY)
        response.vary.add(BY_PROXY[0])
        return response


def _add_pages(app: Flask, reader: Reader) -> None:
    examples = Examples(reader.catalog)

    @app.get("/")
    def home() -> Response:
        found = examples.get()
        return _page(
            "explorer.html",
            surveys=describe_surveys(),
            keys=KEY_NAMES,
            examples=found,
            abilities=list_abilities(found),
            given=_asked_for(),
            version=__version__,
        )

    @app.get("/plain")
    def plain() -> Response:
        return _page("plain.html", keys=KEY_NAMES, examples=examples.get(), **_plain_answer(reader))

    @app.get("/gallery")
    def gallery() -> Response:
        return _page("gallery.html", figures=list_figures(examples.get()))

    @app.get("/try")
    def form() -> Response:
        parameters = describe_parameters()
        return _page(
            "try.html", parameters=parameters, key_groups=group_keys(), version=__version__
        )

    @app.get("/docs")
    def docs() -> Response:
        # Swagger UI sets style attributes, and shows pictures and icons from blob: and data:.
        return _page(
            "docs.html", {"style-src": "'self' 'unsafe-inline'", "img-src": "'self' data: blob:"}
        )

    @app.get("/docs/errors")
    def errors() -> Response:
        classes = sorted(error_classes(), key=lambda cls: (cls.status, cls.code))
        return _page("errors.html", errors=classes)

    @app.get("/favicon.ico")
    def favicon() -> Response:
        return send_from_directory(Path(app.root_path) / "static", "icon.svg")

    @app.get("/docs/assets/<path:name>")
    def assets(name: str) -> Response:
        response = send_from_directory(SWAGGER_UI, name)
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response


def _asked_for() -> dict[str, str]:
    """Return what the explorer's form was filled with."""
    return {name: request.args[name] for name in ("id", "hdfsPath") if request.args.get(name)}


def _plain_answer(reader: Reader) -> dict[str, Any]:
    """Return what the explorer's form shows where scripts are off: a picture, or a problem."""
    given = _asked_for()
    try:
        asked = parse_identify_request(given)
        meaning, epochs = reader.identify(asked)[0]
    except CutoutError as error:
        return {"given": given, "problem": error.problem(request.script_root)}
    query = {meaning.key.name: str(meaning.value), "kind": "All", "labels": "all"}
    query |= {"output-format": "PNG"} | ({"hdfsPath": asked.path} if asked.path else {})
    return {"given": given, "picture": f"{CUTOUTS}?{urlencode(query)}", "epochs": len(epochs)}


def _page(template: str, policy: Mapping[str, str] | None = None, **content: Any) -> Response:
    """Return a page that may load nothing from elsewhere, nor run a script written into it."""
    page = render_template(template, is_direct=PROXIED not in request.environ, **content)
    response = Response(page, mimetype="text/html")
    response.vary.update(BY_PROXY)
    directives = {**PAGE_POLICY, **(policy or {})}
    response.headers["Content-Security-Policy"] = "; ".join(
        f"{name} {sources}" for name, sources in directives.items()
    )
    return response


def _add_error_handlers(app: Flask) -> None:
    @app.errorhandler(CutoutError)
    def refused(error: CutoutError) -> Response:
        if error.status >= 500:
            where = error.where and f" ({error.where})"
            log.error("%s %s: %s%s", error.status, error.code, error.detail, where, exc_info=error)
        return _problem(error)

    @app.errorhandler(HTTPException)
    def refused_by_flask(error: HTTPException) -> Response | HTTPException:
        if error.code is None or error.code < 400:  # a redirect
            return error
        if isinstance(error, RequestedRangeNotSatisfiable):  # of a file, by werkzeug
            return _problem(RangeNotSatisfiable(error.length or 0))
        cls = HTTP_ERRORS.get(error.code, MalformedHttp if error.code < 500 else InternalError)
        response = _problem(cls(_detail(error)))
        if error.code == MethodNotAllowed.status:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))  # type: ignore[attr-defined]
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        log.error("500 internal_error", exc_info=error)
        return _problem(InternalError("the service failed on this request; its log says why"))


def _detail(error: HTTPException) -> str:
    if isinstance(error, RequestEntityTooLarge):
        return f"the body is larger than {request.max_content_length} bytes"
    if error.code == RouteNotFound.status:
        path = shorten(request.path, quote=False)
        return f"there is nothing at {request.script_root}{path}; {_what_there_is()}"
    if error.code == MethodNotAllowed.status:
        return f"{request.script_root}{request.path} is not asked with {request.method}"
    return error.description or error.name


def _what_there_is() -> str:
    return f"the page at {request.script_root}/ says what there is"


def _add_bookkeeping(app: Flask, *, varies: bool) -> None:
    @app.before_request
    def begin() -> None:
        noted, environ = g._get_current_object(), request.environ
        noted.start = time.perf_counter()
        has_left.set(partial(_has_left, environ.get("gunicorn.socket")))
        given = environ.get("HTTP_X_REQUEST_ID", "")
        noted.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

    @app.after_request
    def end(response: Response) -> Response:
        # The objects themselves: each access by the proxies costs as much as a line here.
        noted = g._get_current_object()
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        seconds = time.perf_counter() - noted.start
        route = asked.url_rule.rule if asked.url_rule else "unknown"
        response.headers.add("X-Request-ID", noted.request_id)
        response.headers.add("X-Content-Type-Options", "nosniff")
        if "unknown_arguments" in noted:
            response.headers["X-Unknown-Arguments"] = _list_in_header(noted.unknown_arguments)
        if varies:  # by the page that asks: a cache must not answer one with another's copy
            response.vary.add("Origin")
        if 300 <= response.status_code < 400 and "Location" in response.headers:
            response.vary.update(BY_PROXY)
        metrics.count_request(route, noted.get("format", ""), response.status_code, seconds)
        length = response.headers.get("Content-Length", "-")
        log.info(
            "%s %s %d %s B %.1f ms id=%s from=%s %s",
            asked.method,
            quote(asked.path),
            response.status_code,
            length,
            seconds * 1e3,
            noted.request_id,
            asked.remote_addr or "-",
            noted.get("sought", ""),
        )
        return response


def _payload(known: Collection[str], lists: Container[str] = ()) -> dict[str, Any]:
    """Return the arguments of the request: the query string, and on POST the body besides.

    They are among the ``known`` ones, and those in ``lists`` may be lists. Raises UnknownParameter,
    ConflictingParameters for one argument with two values, MalformedBody, UnsupportedMediaType,
    BodyTooLarge.
    """
    pairs: list[tuple[str, Any]] = []
    if request.query_string:
        pairs += request.args.items(multi=True)
    if request.method == "POST":
        pairs += _body_pairs()
    return _merge(pairs, known, lists)


def _body_pairs() -> Iterable[tuple[str, Any]]:
    if request.mimetype == JSON or request.mimetype.endswith("+json"):
        return _json_pairs(_body())
    if request.mimetype in (FORM, MULTIPART):
        fields = _form_fields()
        if any(name.lstrip().startswith("{") for name, _ in fields):
            raise MalformedBody(
                "the body looks like JSON but was sent as a form: "
                "add the header 'Content-Type: application/json'"
            )
        return fields
    if _body():
        raise UnsupportedMediaType(
            f"a body of type {shorten(request.mimetype or 'unknown')} is not read here: "
            "send application/json or a form",
            allowed=[JSON, FORM, MULTIPART],
        )
    return ()


def _form_fields() -> list[tuple[str, str]]:
    if request.mimetype == MULTIPART:
        if request.files:
            raise MalformedBody("a form must not hold files here")
        return list(request.form.items(multi=True))
    try:
        return parse_qsl(
            _body().decode(), keep_blank_values=True, errors="strict", max_num_fields=1000
        )
    except ValueError as error:
        raise MalformedBody("the form cannot be read: it is not UTF-8, or endless") from error


def _body() -> bytes:
    """Return the body; one sent in chunks has no length that could be checked beforehand."""
    try:
        body = request.get_data(parse_form_data=False)
    except HTTPException:
        raise
    except Exception as error:  # what the server raises on bad chunks, whatever server it is
        raise MalformedHttp("the body cannot be read to its end") from error
    if request.content_length is None and len(body) >= (request.max_content_length or 0):
        raise RequestEntityTooLarge
    return body


DEEPEST_LIST = 32
"""What is wrong in a list is told item by item, and to tell an item takes calls for each level."""


class _Pairs(list[tuple[str, Any]]):
    """An object as it was sent: a name that stands twice is still there twice."""

    def __repr__(self) -> str:  # for whoever is told that it stands in the wrong place
        return repr(dict(self))


def _json_pairs(body: bytes) -> Iterable[tuple[str, Any]]:
    if not body.strip():
        return ()

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        text = body.decode(json.detect_encoding(body))  # json itself lets half surrogates pass
        content = json.loads(text, object_pairs_hook=_Pairs, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON: {error}") from error
    if not isinstance(content, _Pairs):
        raise MalformedBody('the body must be a JSON object, such as {"kind": "Science"}')
    return content


def _whole_text(text: str) -> str:
    """Return text that can be sent: half a surrogate pair is U+FFFD, as in an address."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _whole_texts(values: list[Any]) -> list[Any]:
    """Return a list with such text in it, so that a bad item spoils no other."""
    return [
        _whole_text(value)
        if isinstance(value, str)
        else _whole_texts(value)
        if isinstance(value, list) and not isinstance(value, _Pairs)
        else value
        for value in values
    ]


def _is_deeper(content: list[Any], levels: int) -> bool:
    layer = [content]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in ((value for _, value in outer) if isinstance(outer, _Pairs) else outer)
            if isinstance(inner, list)
        ]
    return bool(layer)


def _pass_over(pairs: Collection[tuple[str, Any]], known: Collection[str]) -> None:
    """Keep the names that the route does not have, for a header. Raises UnknownParameter."""
    if any(name is None for name, _ in pairs):  # as werkzeug reads a field whose name is broken
        raise MalformedBody("a field of the form has no name")
    g.unknown_arguments = list(
        dict.fromkeys(_whole_text(name) for name, _ in pairs if name not in known)
    )
    strict = False
    for name, value in pairs:
        with contextlib.suppress(ValueError):  # said of it later
            strict = strict or (name == STRICT.name and STRICT.parse(value))
    refuse_mistakes(g.unknown_arguments, known, ARGUMENTS, strict=strict)


def _merge(
    pairs: Collection[tuple[str, Any]], known: Collection[str], lists: Container[str] = ()
) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    if not all(name in known for name, _ in pairs):
        _pass_over(pairs, known)
        pairs = [pair for pair in pairs if pair[0] in known]
    for name, given in pairs:
        if isinstance(given, str) and _whole_text(given) != given:
            at_fault = shorten(name, quote=False)
            raise InvalidParameter(at_fault, f"{at_fault} holds half a surrogate pair")
        is_list = isinstance(given, list) and not isinstance(given, _Pairs)
        if isinstance(given, list | dict) and not (is_list and name in lists):
            at_fault = shorten(name, quote=False)
            raise not_one_value(at_fault)
        if is_list and _is_deeper(given, DEEPEST_LIST):
            raise InvalidParameter(name, f"{name} is nested more than {DEEPEST_LIST} deep")
        value = _whole_texts(given) if is_list else given
        # A query string has text where JSON has numbers.
        if name in payload and str(payload[name]) != str(value):
            raise ConflictingParameters(name[:80], f"{name[:80]!r} is given twice, differently")
        payload[name] = value
    return payload


def _take_no_arguments() -> None:
    for name in request.args:
        raise UnknownParameter(name, ())


def _send(made: CutoutAnswer, asked: CutoutRequest) -> Response:
    chosen, alert, media_type = FORMATS[asked.format], made.alert, made.media_type
    if asked.format == "FITS":
        media_type = _preferred_fits_type(media_type)
    headers = {"X-Cutout-Survey": asked.survey.name}
    if alert is not None and alert.alert_id is not None:
        headers["X-Cutout-Id"] = str(alert.alert_id)
    if alert is not None and alert.time is not None:
        headers["X-Cutout-Time"] = repr(alert.time)
    if asked.format == "FITS":
        headers["Vary"] = "Accept"
    elif asked.format == ARRAY and _asks_caller(asked):
        headers["Vary"] = CALLER
    if chosen.suffix:
        stem = file_stem(asked, made.alert_id)
        disposition = "inline" if chosen.is_picture else "attachment"
        headers["Content-Disposition"] = f"{disposition}; filename={stem}{chosen.suffix}"
    return _finish(made.body, media_type, _caching(asked), headers)


def _preferred_fits_type(default: str) -> str:
    """Return the media type of a FITS file that ``Accept`` names, or the default for ``*/*``."""
    for media_type, quality in request.accept_mimetypes:
        if media_type in FITS_MEDIA_TYPES and quality > 0:
            return media_type
        if media_type in ("*/*", "application/*", default):
            break
    return default


def _for_caller(asked: CutoutRequest, *media_types: str) -> CutoutRequest:
    """Return the request with how its masked pixels are written settled.

    A page in a browser reads JSON alone; so may whoever says, by ``Accept``, that it takes one of
    ``media_types``: the ranges with a star stand for anything.
    """
    environ = request.environ
    accept = environ.get("HTTP_ACCEPT", "").strip().lower()
    reads_json = (
        "HTTP_SEC_FETCH_MODE" in environ or "HTTP_ORIGIN" in environ or accept in media_types
    )
    if not reads_json and "json" in accept:  # which is costly to read
        reads_json = any(
            media_type.partition(";")[0].strip().lower() in media_types and quality > 0
            for media_type, quality in request.accept_mimetypes
        )
    setting = current_app.config[NAN_SETTING]
    return replace(asked, nan=spell_masked(asked.nan, setting, reads_json=reads_json))


def _asks_caller(asked: CutoutRequest) -> bool:
    """Return whether how masked pixels are written depends on who asks."""
    return "nan" not in asked.given and current_app.config[NAN_SETTING] == AUTO


def _json(content: object, cache_control: str = "no-store") -> Response:
    return _finish(orjson.dumps(content), JSON, cache_control, {})


def _finish(body: bytes, media_type: str, cache_control: str, headers: dict[str, str]) -> Response:
    """Add what a cache needs, compress where asked; answer a part, 304, or a HEAD without a body.

    A part is one of what is not compressed, whatever the caller takes: its places are those that
    a program counts which unpacked what it has.
    """
    status = 200
    environ = request.environ
    tag = hashlib.sha256(body, usedforsecurity=False).hexdigest()[:32]
    if media_type == JSON:
        more = headers.get("Vary")
        headers["Vary"] = f"Accept-Encoding, {more}" if more else "Accept-Encoding"
        if len(body) >= GZIP_FROM_BYTES and "HTTP_RANGE" not in environ and _takes_gzip():
            body = igzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
            tag += "-gzip"
    headers["ETag"] = f'"{tag}"'
    headers["Cache-Control"] = cache_control
    if environ["REQUEST_METHOD"] == "POST":
        return Response(body, status, headers, mimetype=media_type)
    headers["Accept-Ranges"] = "bytes"
    asked = environ.get("HTTP_IF_NONE_MATCH")
    if asked and request.if_none_match.contains(tag):
        # Nothing is written here, so no other condition is of interest.
        status, body = 304, b""
    elif "HTTP_RANGE" in environ:
        part = find_part(
            environ["HTTP_RANGE"], environ.get("HTTP_IF_RANGE"), headers["ETag"], len(body)
        )
        if part is not None:
            status = 206
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(body)}"
            body = body[part.start : part.stop]
    return Response(body, status, headers, mimetype=media_type)


def _takes_gzip() -> bool:
    # Most do not say; what they say is costly to read.
    return "HTTP_ACCEPT_ENCODING" in request.environ and request.accept_encodings["gzip"] > 0


def _problem(error: CutoutError) -> Response:
    content = json.dumps(error.problem(request.script_root))
    response = Response(content, status=error.status, mimetype=PROBLEM)
    response.headers["Cache-Control"] = "no-store"
    if isinstance(error, RangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.length}"
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
