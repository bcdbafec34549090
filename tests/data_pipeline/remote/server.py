"""A web server on 127.0.0.1 that serves a folder by ranges, and fails in the ways that it is told to."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# Answers one request in place of the server: (the request, the file's bytes, the first byte asked for).
Fault = Callable[["Handler", bytes, int], None]


class Server(ThreadingHTTPServer):
    """Serves ``folder``. ``faults[path]`` holds what is to go wrong with the next requests of a path, in order."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.always: dict[str, Fault] = {}
        self.asked: list[tuple[str, str, str]] = []  # method, path, range
        self.sent: dict[str, int] = defaultdict(int)
        self.released = threading.Event()  # ends all hanging
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave in the middle here; that is no news."""

    def ranges(self, path: str) -> list[str]:
        """The ranges of the GET requests of a path."""
        return [asked for method, name, asked in self.asked if (method, name) == ("GET", path)]


class Handler(BaseHTTPRequestHandler):
    """Answers with the file, or as the path's next fault does."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path, asked = unquote(self.path), self.headers.get("Range", "")
        self.server.asked.append((self.command, path, asked))
        file = self.server.folder / path.lstrip("/")
        data = file.read_bytes() if file.is_file() else b""
        match = re.fullmatch(r"bytes=(\d+)-", asked)
        start = int(match[1]) if match and self.headers.get("If-Range", tag(data)) == tag(data) else 0
        faults = self.server.faults[path]
        if faults:
            faults.popleft()(self, data, start)
        elif path in self.server.always:
            self.server.always[path](self, data, start)
        elif not file.is_file():
            self.answer(404)
        else:
            self.serve(data, start)

    do_HEAD = do_GET

    def serve(self, data: bytes, start: int) -> None:
        """The file from a byte on, as a well-kept server does it."""
        if start >= len(data) > 0:
            self.answer(416)
        elif start:
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[start:], {"ETag": tag(data), "Content-Range": span})
        else:
            self.answer(200, data, {"ETag": tag(data)})

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command == "GET":
            self.send(body)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, body: bytes) -> None:
        for start in range(0, len(body), 2**16):
            piece = body[start : start + 2**16]
            self.server.sent[unquote(self.path)] += len(piece)
            self.wfile.write(piece)

    def log_message(self, *message: Any) -> None:
        pass


def tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def status(code: int, **headers: str) -> Fault:
    """An answer with this status; of header names, _ stands for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request, data, start: request.answer(code, b"sorry", named)


def cut(after: int) -> Fault:
    """The connection is closed after so many bytes."""

    def fault(request: Handler, data: bytes, start: int) -> None:
        headers = {"ETag": tag(data), "Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        request.head(206 if start else 200, headers)
        request.send(data[start : start + after])
        request.close_connection = True

    return fault


def hang(after: int | None = None) -> Fault:
    """Nothing comes, or nothing after so many bytes of the file."""

    def fault(request: Handler, data: bytes, start: int) -> None:
        if after is not None:
            request.head(200, {"ETag": tag(data), "Content-Length": str(len(data))})
            request.send(data[:after])
        request.server.released.wait(20)
        request.close_connection = True

    return fault


def trickle(seconds: float) -> Fault:
    """A byte at a time, with pauses."""

    def fault(request: Handler, data: bytes, start: int) -> None:
        request.head(200, {"ETag": tag(data), "Content-Length": str(len(data))})
        for place in range(len(data)):
            request.send(data[place : place + 1])
            if request.server.released.wait(seconds):
                return

    return fault


def trickle_head(seconds: float) -> Fault:
    """A header that never ends."""

    def fault(request: Handler, data: bytes, start: int) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not request.server.released.wait(seconds):
            request.wfile.write(b"a")

    return fault


def instead(other: bytes) -> Fault:
    """Other bytes come."""
    return lambda request, data, start: request.answer(200, other, {"ETag": tag(other)})


def whole(request: Handler, data: bytes, start: int) -> None:
    """Ranges are ignored."""
    request.serve(data, 0)


def shifted(request: Handler, data: bytes, start: int) -> None:
    """A range comes that was not asked for."""
    span = f"bytes {start + 1}-{len(data) - 1}/{len(data)}"
    request.answer(206, data[start + 1 :], {"ETag": tag(data), "Content-Range": span})


def of_another(request: Handler, data: bytes, start: int) -> None:
    """The range of a file that has changed, although only that of the old one was asked for."""
    span = f"bytes {start}-{len(data) - 1}/{len(data)}"
    request.answer(206, bytes(len(data) - start), {"ETag": '"other"', "Content-Range": span})


def without_validator(request: Handler, data: bytes, start: int) -> None:
    """No ETag, and so no way to know whether a range is of the same file."""
    request.answer(200, data)


def redirect(to: str, code: int = 302) -> Fault:
    return lambda request, data, start: request.answer(code, b"", {"Location": to})
