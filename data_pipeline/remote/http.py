"""Http: files of a web server, by ranges, with redirects that only lead where it is as safe as before."""

from __future__ import annotations

import email.utils
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationValueError, SSLError

from data_pipeline.remote.access import Access
from data_pipeline.remote.transfer import Body, Facts, Missing, Transient, Transport
from data_pipeline.remote.url import Url
from data_pipeline.storage import Unreachable

PIECE = 256 * 1024
MOST_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
TRANSIENT = {408, 425, 429}  # besides 5xx
MISSING = {404, 410}
LEADS_TO = {"http": ("http", "https"), "https": ("https",)}
_TALKING: dict[int, socket.socket] = {}  # the connection on which each thread asks
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class _Plain(HTTPConnection):
    """A connection that another thread can shut."""

    def request(self, *arguments: Any, **options: Any) -> None:
        super().request(*arguments, **options)
        _TALKING[threading.get_ident()] = self.sock


class _Secure(HTTPSConnection):
    """The same by TLS."""

    def request(self, *arguments: Any, **options: Any) -> None:
        super().request(*arguments, **options)
        _TALKING[threading.get_ident()] = self.sock


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


class Http(Transport):
    """Plain requests on connections that are kept: no proxy of the environment, no cookies, no credentials."""

    def __init__(self, access: Access) -> None:
        self._pool = urllib3.PoolManager(
            num_pools=8,
            maxsize=16,
            retries=False,
            timeout=urllib3.Timeout(connect=access.timeout, read=access.timeout),
            headers={"User-Agent": "quasistatic", "Accept-Encoding": "identity"},
        )
        self._pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def facts(self, url: Url) -> Facts:
        with self._answer("HEAD", url, {}) as response:
            return _facts(response, _length(response.headers.get("Content-Length")))

    @contextmanager
    def open(self, url: Url, start: int, validator: str) -> Iterator[Body]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and validator:
            headers["If-Range"] = validator
        with self._answer("GET", url, headers) as response:
            if response.status == 416:  # the file has become shorter
                if not start:
                    raise Transient("416 without a range that was asked for")
                with self.open(url, 0, "") as body:
                    yield body
            elif response.status == 206:
                match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if match is None:
                    raise Transient("a part came that does not say which (no Content-Range)")
                yield Body(int(match[1]), _facts(response, int(match[3])), _pieces(response))
            else:
                total = _length(response.headers.get("Content-Length"))
                yield Body(0, _facts(response, total), _pieces(response))

    def interrupt(self, thread: int) -> None:
        connection = _TALKING.get(thread)
        if connection is not None:
            with suppress(OSError):  # it has been closed meanwhile
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # also of TLS, without its farewell

    @contextmanager
    def _answer(self, method: str, url: Url, headers: dict[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer of status 2xx at the end of the redirects; every other one is an error."""
        address = url.text
        for _ in range(MOST_REDIRECTS + 1):
            with _named_errors(url):
                response = self._pool.request(
                    method,
                    address,
                    headers={**self._pool.headers, **headers},
                    preload_content=False,
                    redirect=False,
                )
            try:
                if response.status not in REDIRECTS:
                    _check(response, url)
                    with _named_errors(url):
                        yield response
                    return
                address = _led_to(url, address, response.headers.get("Location", ""))
            finally:
                _TALKING.pop(threading.get_ident(), None)
                response.close()
        raise Unreachable(f"{url} leads on more than {MOST_REDIRECTS} times: a loop of redirects")


@contextmanager
def _named_errors(url: Url) -> Iterator[None]:
    try:
        yield
    except LocationValueError as error:
        raise Unreachable(f"{url} is no address ({error})") from error
    except SSLError as error:
        if isinstance(error.args[0], ssl.SSLCertVerificationError):
            raise Unreachable(f"{url}: the server is not who it says ({error.args[0]})") from error
        raise Transient(_brief(error)) from error
    except HTTPError as error:
        raise Transient(_brief(error)) from error


def _brief(error: HTTPError) -> str:
    """The error without the objects' addresses in it, so that equal ones are counted together."""
    said = re.sub(r"<[^>]*>:? ?|at 0x[0-9a-f]+|object", "", str(error)).strip()
    return f"{type(error).__name__}: {said}"


def _led_to(url: Url, address: str, location: str) -> str:
    try:
        target = urljoin(address, location)
        here, there = urlsplit(address).scheme.lower(), urlsplit(target).scheme.lower()
    except ValueError as error:
        raise Unreachable(f"{url} leads to {location!r:.80}, which is no address ({error})") from error
    if not location or there not in LEADS_TO[here]:
        raise Unreachable(
            f"{url} leads from {here}:// to {there if location else 'nowhere'}://, which is not followed: name "
            "the shards where they lie"
        )
    return target


def _check(response: urllib3.BaseHTTPResponse, url: Url) -> None:
    status = f"{response.status} {response.reason or ''}".strip()
    if response.status in MISSING:
        raise Missing(f"{url} is not there ({status}): publish it, or correct data.shards")
    if response.status in TRANSIENT or response.status >= 500:
        raise Transient(status, _wish(response.headers.get("Retry-After", "")))
    if response.status not in (200, 206, 416):
        raise Unreachable(f"{url} is refused ({status}): only what may be read by everybody is read over http(s)")
    coding = response.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise Unreachable(f"{url} comes in Content-Encoding {coding}: have the server send tars as they are")


def _wish(value: str) -> float:
    """Seconds to wait that a Retry-After header asks for, as a number or a date."""
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0  # neither


def _facts(response: urllib3.BaseHTTPResponse, total: int | None) -> Facts:
    tag = response.headers.get("ETag", "")
    # If-Range takes no weak tag (RFC 9110, 13.1.5).
    return Facts(total, response.headers.get("Last-Modified", "") if tag[:2] in ("", "W/") else tag)


def _length(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdecimal() and len(value) < 20 else None


def _pieces(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    # read1 gives what has come, so that the caller sees a server that trickles.
    while piece := response.read1(PIECE, decode_content=False):
        yield piece
