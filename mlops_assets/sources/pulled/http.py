"""Fetching files from web addresses: retried, whole, and only when they changed.

Beside each landed file lies a hidden one with what the server said about it (ETag, Last-Modified),
which the next pull asks with. What is fetched is checked before it takes the place of the file that
was landed before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.parquet as pq
import requests
import urllib3
from urllib3.util import Retry

from mlops_assets.errors import SourceError
from mlops_assets.sources.files.formats import FORMATS, Unusable, format_of, read_through
from mlops_assets.sources.files.landing import CHUNK, StorageOptions, file_place, passed_over
from mlops_assets.sources.pulled.writing import Landing, Pulled
from mlops_assets.spec import HttpSpec, landing_name

BACKOFF_SECONDS = 0.5
"""The second pause; each is twice the one before, the first is none."""
LONGEST_PAUSE_SECONDS = 60.0
"""However long a server asks to wait."""
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_ENDINGS = {
    "text/csv": ".csv",
    "application/csv": ".csv",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/jsonlines": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "application/x-parquet": ".parquet",
}
_WAYS_OUT = {
    401: "Check the credentials in source.http.header_env.",
    403: "Check the credentials in source.http.header_env.",
    404: "Correct the address in source.http.urls.",
    410: "Correct the address in source.http.urls.",
}
_LATER = "Pull again later; source.http.attempts says how often it is tried."


@dataclass(frozen=True)
class Memo:
    """What is known of a landed file, kept beside it.

    Attributes:
        address: hash of the address it came from.
        name: of the landed file.
        stamp: size and tag of the landed file; another one lies there if they differ.
        content_hash: of the landed file.
        etag: as the server gave it; "" without.
        last_modified: as the server gave it; "" without.
    """

    address: str
    name: str
    stamp: str
    content_hash: str
    etag: str
    last_modified: str


@dataclass(frozen=True)
class Answer:
    """A whole answer of a server.

    Attributes:
        unchanged: the server says that the file is the one of the memo; there is no body then.
        headers: of the answer.
    """

    unchanged: bool
    headers: Mapping[str, str]


class _Failed(Exception):
    """An attempt that failed, and the answer that says when to come again, if there was one."""

    def __init__(self, problem: str, response: requests.Response | None = None) -> None:
        super().__init__(problem)
        self.response = response


class _Session(requests.Session):
    """Sends secret headers to the host they are for, and to none that it redirects to."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        super().__init__()
        self._secrets = secrets

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        super().rebuild_auth(prepared_request, response)
        urls = str(response.request.url), str(prepared_request.url)
        if self.should_strip_auth(*urls):
            for name in self._secrets:
                prepared_request.headers.pop(name, None)


def fetch_files(
    http: HttpSpec,
    uri: str,
    options: StorageOptions | None = None,
    *,
    encoding: str = "utf-8",
) -> Pulled:
    """Land every file that changed; one that cannot be had keeps no other from being landed.

    Args:
        http: addresses and how to ask.
        uri: landing folder.
        options: of its fsspec file system.
        encoding: of CSV and JSON lines.

    Raises:
        SourceError: some address gave no file that can be taken; the others were landed.
    """
    landing, secrets = Landing(uri, options), _secrets(http)
    landed: list[str] = []
    unchanged: list[str] = []
    problems: list[SourceError] = []
    with _Session(secrets) as session:
        for url in http.urls:
            try:
                name = _fetch(_Address(session, url, http, secrets, encoding), landing, landed)
            except SourceError as error:
                problems.append(error)
                continue
            (landed if name else unchanged).append(name or masked(url))
    if problems:
        raise _together(problems, landed)
    return Pulled(files=tuple(landed), unchanged=tuple(unchanged))


def masked(url: str) -> str:
    """The address without the values of its query, which may be secrets."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=re.sub(r"=[^&;]*", "=***", parts.query)))


@dataclass(frozen=True, repr=False)
class _Address:
    session: requests.Session
    url: str
    http: HttpSpec
    secrets: Mapping[str, str]
    encoding: str

    def refused(self, problem: str, way_out: str) -> SourceError:
        """An error that names the address and no secret."""
        for secret in (urlsplit(self.url).query, *self.secrets.values()):
            problem = problem.replace(secret, "***") if secret else problem
        return SourceError(
            f"{masked(self.url)}: {problem}.",
            stored="Nothing of it was landed; what was landed before is unchanged.",
            way_out=way_out,
            culprits={"url": masked(self.url)},
        )


def _secrets(http: HttpSpec) -> dict[str, str]:
    """Header: value, from the environment."""
    values = {name: os.environ.get(name, "").strip() for name in http.header_env.values()}
    # A driver that finds fault with a value quotes it.
    wrong = sorted(n for n, v in values.items() if not (v and v.isascii() and v.isprintable()))
    if wrong:
        raise SourceError(
            f"The environment variable {', '.join(wrong)} (source.http.header_env) is not set, or "
            "holds what no header can.",
            stored="Nothing was fetched; what was landed before is unchanged.",
            way_out="Set it, as one line of ASCII, where the platform runs.",
            culprits={"variables": wrong},
        )
    return {header: values[name] for header, name in http.header_env.items()}


def _together(problems: Sequence[SourceError], landed: Sequence[str]) -> SourceError:
    if len(problems) == 1 and not landed:
        return problems[0]
    return SourceError(
        " ".join(f"{each.problem} {each.way_out}" for each in problems),
        stored=f"Nothing of these was landed; landed: {', '.join(landed) or 'no other file'}.",
        culprits={"urls": [each.culprits["url"] for each in problems], "landed": list(landed)},
    )


def _fetch(address: _Address, landing: Landing, landed: Sequence[str]) -> str | None:
    """Land the file if it changed; its name, or None."""
    memo = _recall(address, landing)
    with landing.scratch() as scratch:
        body = scratch / "body"
        answer = _ask(address, memo, body)
        if answer.unchanged:
            return None
        name = _name(address, answer)
        if name in landed:
            raise address.refused(f"another address landed as {name} too", _name_it())
        digest = _checked(address, body, name)
        is_same = memo is not None and (memo.name, memo.content_hash) == (name, digest)
        if not is_same:
            landing.replace(name, body)
        _remember(address, landing, name, digest, answer=answer, file=scratch / "memo")
        return None if is_same else name


# What is known of the landed file


def _memo_name(address: _Address) -> str:
    return f".{landing_name(address.url)}.http.json"


def _recall(address: _Address, landing: Landing) -> Memo | None:
    """The memo of the file that lies there now; None when it is another one, or none."""
    content = landing.read(_memo_name(address))
    if content is None:
        return None
    try:
        memo = Memo(**json.loads(content))
    except (ValueError, TypeError):
        return None  # of another version of this program: the file is fetched again
    is_its_own = memo.address == _digest(address.url) and memo.stamp == _stamp(landing, memo.name)
    return memo if is_its_own else None


def _remember(
    address: _Address, landing: Landing, name: str, digest: str, *, answer: Answer, file: Path
) -> None:
    memo = Memo(
        address=_digest(address.url),
        name=name,
        stamp=_stamp(landing, name),
        content_hash=digest,
        etag=answer.headers.get("ETag", ""),
        last_modified=answer.headers.get("Last-Modified", ""),
    )
    file.write_text(json.dumps(asdict(memo)), encoding="utf-8")
    landing.replace(_memo_name(address), file)


def _stamp(landing: Landing, name: str) -> str:
    try:
        stamp = landing.place(name).stamp()
    except FileNotFoundError:
        return ""
    return f"{stamp.size}|{stamp.tag}"


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


# Asking


def _ask(address: _Address, memo: Memo | None, body: Path) -> Answer:
    """A whole answer, its body in a file; asked for again while that may help."""
    http = address.http
    retry = Retry(total=http.attempts - 1, backoff_factor=BACKOFF_SECONDS)
    for attempt in range(1, http.attempts + 1):
        try:
            return _attempt(address, memo, body, attempt)
        except _Failed as failed:
            if attempt == http.attempts:
                times = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                raise address.refused(f"{failed} after {times}", _LATER) from None
            error = None if failed.response is not None else failed
            retry = retry.increment("GET", masked(address.url), error=error)
            time.sleep(_pause(retry, failed.response))
    raise AssertionError("there is at least one attempt")


def _pause(retry: Retry, response: requests.Response | None) -> float:
    """Seconds, as the server asks for them, else longer each time."""
    asked = None
    if response is not None and "Retry-After" in response.headers:
        try:
            asked = retry.parse_retry_after(response.headers["Retry-After"])
        except urllib3.exceptions.InvalidHeader:
            asked = None  # neither seconds nor a date
    return min(retry.get_backoff_time() if asked is None else asked, LONGEST_PAUSE_SECONDS)


def _attempt(address: _Address, memo: Memo | None, body: Path, number: int) -> Answer:
    # Bytes as they lie there: a compressed transport would change what .csv.gz holds.
    headers = {"Accept-Encoding": "identity", **address.secrets, **_conditions(memo)}
    timeout = address.http.timeout_seconds
    try:
        with address.session.get(
            address.url, headers=headers, stream=True, timeout=timeout
        ) as response:
            _check_status(address, response, memo, number)
            if response.status_code != HTTPStatus.NOT_MODIFIED:
                _save(response, body, is_zipped=landing_name(address.url).lower().endswith(".gz"))
            return Answer(response.status_code == HTTPStatus.NOT_MODIFIED, response.headers)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise _Failed(_reason(error)) from None  # its text holds the whole address
    except requests.RequestException as error:
        problem = f"it cannot be asked for ({_reason(error)})"
        raise address.refused(problem, "Correct the address in source.http.urls.") from None


def _conditions(memo: Memo | None) -> dict[str, str]:
    if memo is None:
        return {}
    given = {"If-None-Match": memo.etag, "If-Modified-Since": memo.last_modified}
    return {name: value for name, value in given.items() if value}


def _check_status(
    address: _Address, response: requests.Response, memo: Memo | None, number: int
) -> None:
    status = response.status_code
    if status == HTTPStatus.OK or (status == HTTPStatus.NOT_MODIFIED and memo):
        return
    told = f"the server answered {status} ({response.reason})"
    if status in _BUSY:
        raise _Failed(told, response)
    way_out = _WAYS_OUT.get(status, "Ask the publisher, or correct source.http.urls.")
    raise address.refused(f"{told} at attempt {number}", way_out)


def _save(response: requests.Response, body: Path, *, is_zipped: bool) -> None:
    with body.open("wb") as file:
        for chunk in response.raw.stream(CHUNK, decode_content=not is_zipped):
            file.write(chunk)


def _reason(error: BaseException) -> str:
    """The innermost cause: outer ones repeat the address."""
    while True:
        inner: Any = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = str(error.args[0] if isinstance(error, urllib3.exceptions.ProtocolError) else error)
    return re.sub(r"^<?[\w.]*(Connection|Pool)\([^)]*\)( object at \w+>)?: ", "", text).rstrip(".")


# What came


def _name(address: _Address, answer: Answer) -> str:
    name = landing_name(address.url)
    if not name.lower().endswith(tuple(FORMATS)):
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in _ENDINGS:
            raise address.refused(
                f"neither its name nor its Content-Type ({kind or 'none'}) tells one of the "
                f"formats taken ({', '.join(FORMATS)})",
                _name_it(),
            )
        name += _ENDINGS[kind]
    if passed_over(name):
        raise address.refused(f"a file called {name} is passed over in landing folders", _name_it())
    return name


def _name_it() -> str:
    return "End the address in source.http.urls with a # and a name, such as #prices.csv."


def _checked(address: _Address, body: Path, name: str) -> str:
    """The hash of what came, once it is known to be what its name says."""
    try:
        digest, damage = read_through(file_place(str(body)), name, address.encoding)
        if damage:
            raise damage
        if format_of(name)[0] == "parquet":
            pq.read_schema(body)
    except Unusable as reason:
        raise address.refused(f"what came cannot be taken: {reason.rule}", reason.way_out) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise address.refused(f"what came is no Parquet file ({reason})", _LATER) from error
    return digest
