"""Every error a caller can meet, one class per thing the caller can do something about.

The class owns its status, its stable ``code`` and its title; the instance says what was sought,
where, and the remedy.

    CutoutError
      BadRequest 400
        MissingParameter          missing_parameter
        UnknownParameter          unknown_parameter
        InvalidParameter          invalid_parameter
        ConflictingParameters     conflicting_parameters
        AmbiguousId               ambiguous_id
        MalformedBody             malformed_body
        MalformedHttp             malformed_http
        NotParquet                not_parquet
        TooManyRows               too_many_rows
      PathForbidden 403           path_forbidden
      NotFound 404
        RouteNotFound             route_not_found
        ArchiveFileNotFound       file_not_found
        AlertNotFound             alert_not_found
        StampMissing              stamp_missing
        PlaneMissing              plane_missing
        FactMissing               fact_missing
      MethodNotAllowed 405        method_not_allowed
      BodyTooLarge 413            body_too_large
      BatchTooLarge 413           batch_too_large
      PictureTooLarge 413         picture_too_large
      AnswerTooLarge 413          answer_too_large
      AddressTooLong 414          address_too_long
      UnsupportedMediaType 415    unsupported_media_type
      RangeNotSatisfiable 416     range_not_satisfiable (Content-Range)
      ClientLeft 499              client_left
      InternalError 500           internal_error
      StoredDataError 502
        StampUnreadable           stamp_unreadable
        StampTooLarge             stamp_too_large
        FileUnreadable            file_unreadable
      StorageUnavailable 503      storage_unavailable   (Retry-After)
      FileChanging 503            file_changing         (Retry-After)
      CatalogUnavailable 503      catalog_unavailable   (Retry-After)
      Saturated 503               saturated             (Retry-After)
      DeadlineExceeded 504        deadline_exceeded

    SettingsError                 start-up only, never sent
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
"""Of the commands."""


class CutoutError(Exception):
    """Base of everything that is answered as ``application/problem+json`` (RFC 9457)."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "The service failed"
    retry_after: ClassVar[int | None] = None  # seconds

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.where = ""
        """Where on the server it happened: for the log, never sent."""
        self.members = {name: value for name, value in members.items() if value is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        # Classes have arguments of their own, which are not kept.
        return Exception.__new__, (type(self), *self.args), self.__dict__

    def problem(self, prefix: str = "") -> dict[str, Any]:
        """Return the members of the RFC 9457 object; ``prefix`` is the path of the service.

        ``text`` repeats ``detail`` because clients of the older services read it there.
        """
        return {
            "type": f"{prefix}/docs/errors#{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.members,
            "text": self.detail,
        }


class BadRequest(CutoutError):
    """The request cannot be understood as it was sent."""

    status, code, title = 400, "bad_request", "The request cannot be understood"


class MissingParameter(BadRequest):
    """A parameter that this request needs was not sent."""

    code, title = "missing_parameter", "A parameter is missing"

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(detail, parameter=parameter)


class UnknownParameter(BadRequest):
    """A parameter that this route does not have."""

    code, title = "unknown_parameter", "A parameter is not known"

    def __init__(self, parameter: str, known: Iterable[str], meant: str | None = None) -> None:
        known = sorted(known)
        near = meant or nearest(parameter, known)
        hint = f"; did you mean {near!r}?" if near else ""
        super().__init__(
            f"{shorten(parameter)} is not a parameter of this route{hint}",
            parameter=shorten(parameter, quote=False),
            allowed=known,
            suggestion=near,
        )


class InvalidParameter(BadRequest):
    """A parameter's value is not one that it takes."""

    code, title = "invalid_parameter", "A parameter has a value it does not take"

    def __init__(
        self,
        parameter: str,
        detail: str,
        *,
        allowed: Iterable[str] | None = None,
        got: object = None,
        suggestion: str | None = None,
    ) -> None:
        choices = None if allowed is None else list(allowed)
        near = nearest(str(got), choices) if choices and got is not None else suggestion
        hint = f"; did you mean {near!r}?" if near else ""
        super().__init__(detail + hint, parameter=parameter, allowed=choices, suggestion=near)


class ConflictingParameters(BadRequest):
    """Parameters that exclude each other, or one parameter sent with two values."""

    code, title = "conflicting_parameters", "Parameters contradict each other"

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(detail, parameter=parameter)


class AmbiguousId(BadRequest):
    """An id that names alerts of several surveys, whose keys have the same name."""

    code, title = "ambiguous_id", "The id names alerts of several surveys"

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(detail, parameter=parameter)


class MalformedBody(BadRequest):
    """The body is not what its media type says, or not an object of parameters."""

    code, title = "malformed_body", "The body cannot be read"


class MalformedHttp(BadRequest):
    """The request is not valid HTTP."""

    code, title = "malformed_http", "The request is not valid HTTP"


class NotParquet(BadRequest):
    """``hdfsPath`` names a file of another kind."""

    code, title = "not_parquet", "The file is not a parquet file"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, parameter="hdfsPath")


class TooManyRows(BadRequest):
    """The objects asked for have more rows than ``limits.table_rows``."""

    code, title = "too_many_rows", "The answer would be too large"


class PathForbidden(CutoutError):
    """``hdfsPath`` leads outside the archive."""

    status, code, title = 403, "path_forbidden", "The path is not one this service may read"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, parameter="hdfsPath")


class NotFound(CutoutError):
    """What was asked for does not exist."""

    status, code, title = 404, "not_found", "Not found"


class RouteNotFound(NotFound):
    """No such address on this service."""

    code, title = "route_not_found", "No such address"


class ArchiveFileNotFound(NotFound):
    """No file or folder at ``hdfsPath``."""

    code, title = "file_not_found", "No such file in the archive"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, parameter="hdfsPath")


class AlertNotFound(NotFound):
    """No row of the file, or of the catalog, matches the keys."""

    code, title = "alert_not_found", "No such alert"


class StampMissing(NotFound):
    """The alert is there, the stamp of the asked kind is null or its column absent."""

    code, title = "stamp_missing", "The alert has no such stamp"
    there: tuple[str, ...] = ()
    """Of the kinds that were asked for, those that the alert has."""


class PlaneMissing(NotFound):
    """The stamp is there, but its file has no such plane."""

    code, title = "plane_missing", "The stamp has no such plane"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, parameter="plane")


class FactMissing(NotFound):
    """What the answer needs to know of the alert is neither in its row nor in its stamp."""

    code, title = "fact_missing", "The alert does not say what this needs"


class MethodNotAllowed(CutoutError):
    """The address exists, but not for this method."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class BodyTooLarge(CutoutError):
    """The body exceeds ``limits.body_bytes``."""

    status, code, title = 413, "body_too_large", "The body is too large"


class BatchTooLarge(CutoutError):
    """The list holds more ids than ``limits.batch_items``."""

    status, code, title = 413, "batch_too_large", "The list of ids is too long"


class PictureTooLarge(CutoutError):
    """The picture asked for exceeds ``limits.image_pixels``, or has too many epochs."""

    status, code, title = 413, "picture_too_large", "The picture is larger than this service draws"


class AnswerTooLarge(CutoutError):
    """The stamps of ``epochs=all``, or the histories of a table, exceed ``limits.answer_bytes``."""

    status, code, title = 413, "answer_too_large", "The answer would be too large"


class AddressTooLong(CutoutError):
    """The query string is longer than this service reads."""

    status, code, title = 414, "address_too_long", "The address is too long"


class UnsupportedMediaType(CutoutError):
    """The body's media type is not JSON, nor a form."""

    status, code, title = 415, "unsupported_media_type", "The body's media type is not read here"


class RangeNotSatisfiable(CutoutError):
    """``Range`` asks for bytes that the answer does not have."""

    status, code, title = 416, "range_not_satisfiable", "The answer ends before that part"

    def __init__(self, length: int) -> None:
        super().__init__(f"the answer has {length} bytes, and none in the range that was asked for")
        self.length = length


class ClientLeft(CutoutError):
    """The client left before its answer began: only the log and the metrics show it."""

    status, code, title = 499, "client_left", "The client has left"


class InternalError(CutoutError):
    """A defect of this service; the log has the trace, the answer does not."""


class StoredDataError(CutoutError):
    """What the archive holds cannot be used; other alerts still answer."""

    status, code, title = 502, "stored_data_error", "The stored data cannot be used"


class StampUnreadable(StoredDataError):
    """The stored bytes are not gzip, not FITS, or not an image."""

    code, title = "stamp_unreadable", "The stored stamp cannot be read"


class StampTooLarge(StoredDataError):
    """The stored stamp exceeds ``limits.stamp_bytes`` or ``limits.image_pixels``."""

    code, title = "stamp_too_large", "The stored stamp is larger than this service answers"


class FileUnreadable(StoredDataError):
    """The file is not parquet, is cut short, or a page of it is damaged."""

    code, title = "file_unreadable", "The parquet file cannot be read"

    def __init__(self, detail: str, where: str = "", *, is_whole: bool = False) -> None:
        super().__init__(detail)
        self.where = where
        self.is_whole = is_whole
        """Whether the file is as its writer left it: waiting for more of it would not help."""


class StorageUnavailable(CutoutError):
    """The file system does not answer."""

    status, code, title = 503, "storage_unavailable", "The archive cannot be reached"
    retry_after = 5


class FileChanging(CutoutError):
    """The file is being written, or rewritten in place, and cannot be read meanwhile."""

    status, code, title = 503, "file_changing", "The file is being rewritten"
    retry_after = 2


class CatalogUnavailable(CutoutError):
    """The catalog's database does not answer, or is of a version that is not known here."""

    status, code, title = 503, "catalog_unavailable", "The catalog cannot be reached"
    retry_after = 5


class Saturated(CutoutError):
    """More requests are being read than ``limits.concurrent_reads`` admits."""

    status, code, title = 503, "saturated", "The service is busy"
    retry_after = 1


class DeadlineExceeded(CutoutError):
    """Reading took longer than ``limits.deadline_seconds``."""

    status, code, title = 504, "deadline_exceeded", "The archive was too slow"


class SettingsError(Exception):
    """A setting is unknown or has a bad value; says which and why. Start-up only."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of ``names`` that ``name`` was probably meant to be, whatever its case."""
    lowered = {known.lower(): known for known in names}
    # A long name cannot be a slip of the pen, and comparing it costs quadratic time.
    if len(name) > 64:
        return None
    found = difflib.get_close_matches(name.lower(), lowered, n=1)
    return lowered[found[0]] if found else None


def shorten(value: object, limit: int = 80, *, quote: bool = True) -> str:
    """Return ``value`` as it may stand in a message: quoted, and not longer than ``limit``."""
    if isinstance(value, str):
        value = value[: limit + 1]  # long ones are not copied to be cut
    text = repr(value) if quote else str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def error_classes() -> Iterator[type[CutoutError]]:
    """Yield every class of this module that is sent to callers, the leaves only."""
    todo: list[type[CutoutError]] = [CutoutError]
    while todo:
        cls = todo.pop(0)
        children = cls.__subclasses__()
        todo.extend(children)
        if not children:
            yield cls
