"""Downloads from a web server that fails: what is resumed, what is tried again, and what is refused at once."""

from __future__ import annotations

import email.utils
import ssl
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.remote.access import Access
from data_pipeline.remote.http import Http
from data_pipeline.remote.transfer import Memory, Missing, Stopped, Transfer
from data_pipeline.remote.url import Url
from data_pipeline.storage import Unreachable
from tests.data_pipeline.remote.server import (
    Fault,
    Server,
    cut,
    hang,
    instead,
    of_another,
    redirect,
    shifted,
    status,
    trickle,
    trickle_head,
    whole,
    without_validator,
)

DATA = np.random.default_rng(0).bytes(300_000)
PATH = "/a.tar"


@pytest.fixture
def url(server: Server) -> Url:
    (server.folder / "a.tar").write_bytes(DATA)
    return Url.parse(server.url + PATH)


@pytest.fixture
def transfer(access: Access) -> Transfer:
    return Transfer(Http(access), access)


def download(transfer: Transfer, url: Url, size: int | None = len(DATA)) -> bytes:
    memory = Memory()
    transfer.download(url, memory, size, threading.Event())
    return bytes(memory.data)


RECOVERED = {
    "500": [status(500)],
    "three in a row": [status(500), status(502), status(504)],
    "429": [status(429)],
    "closed before an answer": [cut(0)],
    "silent once": [hang()],
    "silent half-way": [hang(100_000)],
    "progress is no failure": [cut(30_000)] * 8,
    "range ignored": [cut(100_000), whole],
    "no validator": [without_validator],
    "no date": [status(503, Retry_After="Mon, 99 Jan 2024 00:00:00 GMT")],
    "no number": [status(503, Retry_After="\xb2")],
    "another length once": [instead(DATA[:1000])],
    "another range": [cut(100_000), shifted],
    "a range of another file": [cut(100_000), of_another],
    "an unknown range": [cut(100_000), status(206)],
}


@pytest.mark.parametrize("faults", RECOVERED.values(), ids=RECOVERED)
def test_what_passes_is_survived(transfer: Transfer, server: Server, url: Url, faults: list[Fault]) -> None:
    server.faults[PATH].extend(faults)
    assert download(transfer, url) == DATA
    assert not server.faults[PATH]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(transfer: Transfer, server: Server, url: Url) -> None:
    server.faults[PATH].extend([cut(100_000), cut(50_000)])
    assert download(transfer, url) == DATA
    assert server.ranges(PATH) == ["", "bytes=100000-", "bytes=150000-"]
    assert server.sent[PATH] == len(DATA)


def test_a_file_that_changed_meanwhile_is_begun_again(transfer: Transfer, server: Server, url: Url) -> None:
    other = DATA[::-1]
    server.faults[PATH].append(cut(100_000))

    def change(request: object, data: bytes, start: int) -> None:
        (server.folder / "a.tar").write_bytes(other)
        request.serve(other, 0)  # type: ignore[attr-defined]

    server.faults[PATH].append(change)
    assert download(transfer, url) == other


def test_a_beginning_that_is_longer_than_the_file_is_begun_again(
    transfer: Transfer, server: Server, url: Url
) -> None:
    memory = Memory()
    memory.restart('"old"')
    memory.write(b"x" * 400_000)
    server.faults[PATH].append(status(416))
    transfer.download(url, memory, None, threading.Event())
    assert bytes(memory.data) == DATA


@pytest.mark.parametrize("wish", ["1", "date"])
def test_a_server_that_asks_to_wait_is_given_time(access: Access, server: Server, url: Url, wish: str) -> None:
    transfer = Transfer(Http(access), replace(access, timeout=2))
    value = wish if wish == "1" else email.utils.formatdate(time.time() + 2, usegmt=True)
    server.faults[PATH].append(status(503, Retry_After=value))
    started = time.monotonic()
    assert download(transfer, url) == DATA
    assert 0.9 < time.monotonic() - started < 3


def test_a_server_that_asks_to_wait_for_long_is_given_up(transfer: Transfer, server: Server, url: Url) -> None:
    server.faults[PATH].append(status(503, Retry_After="3600"))
    with pytest.raises(Unreachable, match=r"a\.tar cannot be had: 1 tries .*503 .*a pause of 60 s was due"):
        download(transfer, url)


FINAL = {
    "500": (status(500), r"4 tries failed in .* s \(4 x 500 Internal Server Error\): look after the server"),
    "hanging": (hang(), r"4 tries failed in .*4 x ReadTimeoutError.*data\.timeout=0\.3 and data\.retries=3"),
    "trickling its head": (trickle_head(0.02), "fewer than 65536 bytes a second came"),
    "416 without a range": (status(416), "416 without a range"),
    "to no address": (redirect("http://[x/"), r"leads to 'http://\[x/', which is no address"),
    "trickling": (trickle(0.02), "fewer than 65536 bytes a second came"),
    "shorter": (instead(DATA[:1000]), r"a\.tar has 1000 bytes, and 300000 are expected: publish"),
    "longer": (instead(DATA + b"x"), r"a\.tar has 300001 bytes, and 300000 are expected"),
    "to a file": (redirect("file:///etc/passwd"), r"leads from http:// to file://, which is not followed"),
    "to ftp": (redirect("ftp://127.0.0.1/a.tar"), r"leads from http:// to ftp://, which is not followed"),
    "to nowhere": (redirect(""), "which is not followed"),
    "in a circle": (redirect(PATH), "a loop of redirects"),
    "forbidden": (status(403), r"is refused \(403 Forbidden\): only what may be read by everybody"),
    "compressed": (status(200, Content_Encoding="gzip"), "Content-Encoding gzip"),
}


@pytest.mark.parametrize(("fault", "message"), FINAL.values(), ids=FINAL)
def test_what_does_not_pass_is_named(
    transfer: Transfer, server: Server, url: Url, fault: Fault, message: str
) -> None:
    server.always[PATH] = fault
    started = time.monotonic()
    with pytest.raises(Unreachable, match=message) as caught:
        download(transfer, url)
    assert str(url) in str(caught.value)
    assert time.monotonic() - started < 6


def test_a_server_that_never_gets_further_is_given_up(transfer: Transfer, server: Server, url: Url) -> None:
    def half(request: object, data: bytes, start: int) -> None:
        cut(150_000)(request, data, 0)  # type: ignore[arg-type]

    server.always[PATH] = half
    with pytest.raises(Unreachable, match="x ProtocolError"):
        download(transfer, url)
    assert len(server.asked) == 5  # the first brought bytes


def test_a_file_that_is_not_there_is_missing(transfer: Transfer, server: Server, url: Url) -> None:
    with pytest.raises(Missing, match=r"b\.tar is not there \(404 Not Found\)"):
        download(transfer, url.sibling("b.tar"))
    assert len(server.asked) == 1


def test_nobody_listening_is_named(access: Access) -> None:
    with pytest.raises(
        Unreachable, match=r"127\.0\.0\.1:9/a cannot be had: 4 tries .*NewConnectionError.*refused"
    ):
        download(Transfer(Http(access), access), Url.parse("http://127.0.0.1:9/a"))


def test_redirects_are_followed_to_where_it_is_as_safe(transfer: Transfer, server: Server, url: Url) -> None:
    server.faults["/x.tar"].extend([redirect("/y.tar"), redirect("/y.tar", 307)])
    server.always["/y.tar"] = redirect(str(url), 308)
    assert download(transfer, url.sibling("x.tar")) == DATA
    from data_pipeline.remote.http import _led_to

    assert _led_to(url, "http://a/x", "https://b/x?key=1") == "https://b/x?key=1"
    assert _led_to(url, "https://a/x", "y") == "https://a/y"
    with pytest.raises(Unreachable, match="leads from https:// to http://, which is not followed"):
        _led_to(url, "https://a/x", "http://a/y")


def test_a_server_that_is_not_who_it_says_is_refused(
    access: Access, server: Server, url: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*request, *names, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    with Server(server.folder) as secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        address = Url.parse(f"https://127.0.0.1:{secure.server_port}{PATH}")
        with pytest.raises(Unreachable, match=r"the server is not who it says .*certificate verify failed"):
            download(Transfer(Http(access), access), address)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = Transfer(Http(access), access)
        assert download(trusting, address) == DATA
        secure.faults[PATH].append(redirect(str(url)))
        with pytest.raises(Unreachable, match="leads from https:// to http://, which is not followed"):
            download(trusting, address)


def test_a_document_has_a_bound(transfer: Transfer, url: Url, stopped: threading.Event) -> None:
    assert transfer.read(url, len(DATA), stopped) == DATA
    with pytest.raises(Unreachable, match="sends more than the 1000 bytes that it may have"):
        transfer.read(url, 1000, stopped)


def test_facts_are_the_length_and_the_tag(transfer: Transfer, server: Server, url: Url) -> None:
    facts = transfer.facts(url, threading.Event())
    assert facts.total == len(DATA)
    assert len(facts.validator) == 34
    server.faults[PATH].append(status(200, ETag='W/"x"', Last_Modified="Sat, 21 Nov 2026 16:00:00 GMT"))
    assert transfer.facts(url, threading.Event()).validator == "Sat, 21 Nov 2026 16:00:00 GMT"


@pytest.mark.parametrize("fault", [status(500), hang(), hang(1000), trickle_head(0.02)])
def test_who_waits_can_be_stopped(access: Access, server: Server, url: Url, fault: Fault) -> None:
    patient = replace(access, timeout=30, pause=30)
    server.always[PATH] = fault
    stopped = threading.Event()
    threading.Timer(0.1, stopped.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        Transfer(Http(patient), patient).download(url, Memory(), None, stopped)
    assert time.monotonic() - started < 2


def test_pauses_grow_and_differ(access: Access, server: Server, url: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            return False

    server.always[PATH] = status(500)
    patient = replace(access, timeout=1000, retries=8, pause=0.5)
    with pytest.raises(Unreachable, match="9 tries"):
        Transfer(Http(patient), patient).download(url, Memory(), None, Clock())
    bounds = [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert len(pauses) == len(bounds)
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
    assert len(set(pauses)) == len(pauses)
