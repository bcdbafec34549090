"""Store: objects of S3 and of stores that speak as it does, through s3fs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import s3fs  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from data_pipeline.remote.access import LEAST_RATE, Access
from data_pipeline.remote.transfer import Body, Facts, Missing, Transient, Transport
from data_pipeline.remote.url import Url
from data_pipeline.storage import Unreachable

PIECE = 8 * 2**20
HOW_TO_SIGN = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL of a store that is not Amazon's), or "
    "FSSPEC_S3='{\"anon\": true}' for a bucket that everybody may read"
)


class Store(Transport):
    """Configured by botocore's and fsspec's own files and environment variables. Retries are not left to them."""

    def __init__(self, access: Access) -> None:
        self._timeout = access.timeout
        once = {"connect_timeout": access.timeout, "read_timeout": access.timeout, "retries": {"max_attempts": 0}}
        self._files = s3fs.S3FileSystem(config_kwargs=once, use_listings_cache=False, skip_instance_cache=True)
        self._files.retries = 1

    def facts(self, url: Url) -> Facts:
        with _named_errors(url):
            info = self._files.info(url.text, timeout=self._timeout, refresh=True)
        if info["type"] != "file":
            raise Missing(f"{url} is not there: publish it, or correct data.shards")
        return Facts(int(info["size"]), str(info.get("ETag") or info.get("LastModified") or ""))

    @contextmanager
    def open(self, url: Url, start: int, validator: str) -> Iterator[Body]:
        facts = self.facts(url)
        if facts.validator != validator or start > (facts.total or 0):
            start = 0
        yield Body(start, facts, self._pieces(url, start, facts))

    def interrupt(self, thread: int) -> None:
        """Not possible: fsspec's own thread waits, and each of its calls has a time-out as a whole."""

    def _pieces(self, url: Url, start: int, facts: Facts) -> Iterator[bytes]:
        assert facts.total is not None
        for offset in range(start, facts.total, PIECE):
            end = min(offset + PIECE, facts.total)
            # botocore's own time-out is between bytes.
            seconds = self._timeout + (end - offset) / LEAST_RATE
            with _named_errors(url):
                piece: bytes = self._files.cat_file(url.text, start=offset, end=end, timeout=seconds)
            yield piece


@contextmanager
def _named_errors(url: Url) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(f"{url} is not there: publish it, or correct data.shards") from error
    except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
        raise Unreachable(f"{url} is refused ({_brief(error)}): {HOW_TO_SIGN}") from error
    except (OSError, BotoCoreError, ClientError) as error:
        raise Transient(_brief(error)) from error


def _brief(error: Any) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
