"""Url: where a remote file lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
REMOTE = ("http", "https", "s3")


def scheme_of(spec: str) -> str:
    """``http`` of ``http://host/path``, and the empty string of a path."""
    match = _SCHEME.match(spec)
    return match[1].lower() if match else ""


@dataclass(frozen=True)
class Url:
    """An address with a host (or bucket) and a path, and nothing else. As text, what error messages name."""

    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> Url:
        """Check an address.

        Raises:
            ValueError: another scheme, no host, or a part that would be printed or could not be kept apart from
                a pattern: a password, a query, a fragment, a wildcard.
        """
        scheme, what = scheme_of(text), text
        if scheme not in REMOTE:
            raise ValueError(
                f"{what}: {scheme}:// is not read; shards lie at a path, or at file://, http://, https:// or s3://"
            )
        parts = urlsplit(text)
        if not parts.hostname:
            raise ValueError(f"{what} must name a {'bucket' if scheme == 's3' else 'host'} after {scheme}://")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(f"{what} must have no password, no query (?) and no fragment (#)")
        if any(sign in text for sign in "*[]"):
            raise ValueError(
                f"{what}: a server is not asked which names match; write shard-{{000000..000099}}.tar, or name "
                "the folder of a manifest.json"
            )
        return cls(text)

    @property
    def scheme(self) -> str:
        return scheme_of(self.text)

    @property
    def name(self) -> str:
        """The last component of the path, as a file would be called."""
        last = PurePosixPath(urlsplit(self.text).path).name
        return last if self.scheme == "s3" else unquote(last)

    def child(self, name: str) -> Url:
        """The file ``name`` in this folder."""
        return Url(f"{self.text.rstrip('/')}/{name if self.scheme == 's3' else quote(name)}")

    def sibling(self, name: str) -> Url:
        """The file ``name`` beside this one."""
        return Url(self.text.rpartition("/")[0]).child(name)

    def with_suffix(self, suffix: str) -> Url:
        """``…/a.tar`` becomes ``…/a.json``."""
        folder, slash, last = self.text.rpartition("/")
        return Url(f"{folder}{slash}{PurePosixPath(last).with_suffix(suffix)}")
