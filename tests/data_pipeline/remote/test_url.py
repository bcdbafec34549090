"""Addresses: which are read, and how names are put into them."""

from __future__ import annotations

import pytest

from data_pipeline.remote.url import Url, scheme_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gs://bucket/a.tar",
            r"gs:// is not read; shards lie at a path, or at file://, http://, https:// or s3://",
        ),
        ("http:///a.tar", "must name a host after http://"),
        ("s3:///a.tar", "must name a bucket after s3://"),
        ("https://me:secret@host/a.tar", "no password, no query"),
        ("https://host/a.tar?signature=1", "no password, no query"),
        ("https://host/a.tar#b", "no fragment"),
        ("https://host/*.tar", "a server is not asked which names match"),
    ],
)
def test_what_is_no_address_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Url.parse(text)


def test_names_are_quoted_in_the_web_and_plain_in_a_store() -> None:
    folder = Url.parse("https://host/a%20b/")
    assert str(folder.child("x #1?.tar")) == "https://host/a%20b/x%20%231%3F.tar"
    assert folder.child("x #1?.tar").name == "x #1?.tar"
    assert str(Url.parse("s3://bucket/a").child("x #1.tar")) == "s3://bucket/a/x #1.tar"


def test_an_index_lies_beside_its_shard() -> None:
    shard = Url.parse("http://host:8080/v1.5/shard-0.tar")
    assert str(shard.with_suffix(".json")) == "http://host:8080/v1.5/shard-0.json"
    assert str(shard.sibling("b.tar")) == "http://host:8080/v1.5/b.tar"
    assert shard.name == "shard-0.tar"


def test_a_path_has_no_scheme() -> None:
    assert [scheme_of(text) for text in ("/a/b", "a.tar", "C://x", "HTTP://h/a", "./x://y")] == [
        *("", "", "c", "http", "")
    ]
