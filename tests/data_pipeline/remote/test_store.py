"""Shards in an object store: moto's server, which speaks as S3 does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.config import DataConfig
from data_pipeline.index import index_path
from data_pipeline.remote import store
from data_pipeline.remote.access import Access
from data_pipeline.remote.transfer import Memory, Missing, Transfer
from data_pipeline.remote.url import Url
from data_pipeline.shards import ShardSet
from data_pipeline.storage import Unreachable
from data_pipeline.stream import DataStream

DATA = np.random.default_rng(0).bytes(300_000)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    import boto3

    name = f"bucket-{abs(hash(request.node.name))}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def put(bucket: str, **objects: bytes | Path) -> None:
    import boto3

    client = boto3.client("s3")
    for key, value in objects.items():
        client.put_object(Bucket=bucket, Key=key, Body=value.read_bytes() if isinstance(value, Path) else value)


@pytest.fixture
def transfer(access: Access) -> Transfer:
    patient = replace(access, timeout=5)
    return Transfer(store.Store(patient), patient)


def test_batches_from_a_store_are_those_of_the_folder(digits: Path, tmp_path: Path, bucket: str) -> None:
    put(bucket, **{f"a/b/{file.name}": file for file in digits.iterdir()})
    config = DataConfig(
        str(digits), resolution=8, channels=1, batch=200, labels=True, cache=str(tmp_path / "cache")
    )
    local = DataStream(config, 1)
    for spec in (f"s3://{bucket}/a/b", f"s3://{bucket}/a/b/shard-{{000000..000003}}.tar"):
        remote = DataStream(replace(config, shards=spec), 1)
        assert remote.fingerprint == local.fingerprint
        with local.open(0) as ours, remote.open(0) as theirs:
            for a, b in islice(zip(ours, theirs, strict=True), 10):
                assert torch.equal(a.x, b.x)
                assert torch.equal(a.condition, b.condition)


def test_a_shard_without_an_index_is_indexed(digits: Path, access: Access, bucket: str) -> None:
    shard = digits / "shard-000003.tar"
    put(bucket, **{shard.name: shard})
    for _ in range(2):
        shards = ShardSet.open(f"s3://{bucket}/{shard.name}", replace(access, timeout=5))
        assert shards.sizes == [242]
    assert index_path(shard).read_bytes() == shards.index(0).to_bytes()


def test_a_beginning_is_gone_on_with_in_pieces(
    transfer: Transfer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PIECE", 70_000)
    put(bucket, a=DATA)
    url, memory = Url.parse(f"s3://{bucket}/a"), Memory()
    memory.restart(transfer.facts(url, threading.Event()).validator)
    memory.write(DATA[:100_000])
    spans = []
    files = transfer._transport._files  # type: ignore[attr-defined]
    cat_file = files.cat_file

    def watched(path: str, start: int, end: int, timeout: float) -> bytes:
        spans.append((start, end))
        data: bytes = cat_file(path, start=start, end=end, timeout=timeout)
        return data

    monkeypatch.setattr(files, "cat_file", watched)
    transfer.download(url, memory, len(DATA), threading.Event())
    assert bytes(memory.data) == DATA
    assert spans == [(100_000, 170_000), (170_000, 240_000), (240_000, 300_000)]
    put(bucket, a=DATA[::-1])  # another object: begun again
    transfer.download(url, memory, None, threading.Event())
    assert bytes(memory.data) == DATA[::-1]


def test_what_is_not_there_is_missing(transfer: Transfer, bucket: str, access: Access) -> None:
    for key in ("none", "a/none.tar"):
        with pytest.raises(
            Missing, match=rf"s3://{bucket}/{key} is not there: publish it, or correct data\.shards"
        ):
            transfer.read(Url.parse(f"s3://{bucket}/{key}"), 100, threading.Event())
    with pytest.raises(Missing, match="no-such-bucket/a is not there"):
        transfer.read(Url.parse("s3://no-such-bucket/a"), 100, threading.Event())
    with pytest.raises(
        Unreachable, match=rf"s3://{bucket}/manifest\.json is not there.*name the shards: s3://{bucket}"
    ):
        ShardSet.open(f"s3://{bucket}", replace(access, timeout=5))


def test_a_store_that_is_down_is_named(access: Access, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    patient = replace(access, timeout=3, retries=1)
    down = Transfer(store.Store(patient), patient)
    with pytest.raises(Unreachable, match=r"s3://bucket/a cannot be had: 2 tries failed .*connect"):
        down.read(Url.parse("s3://bucket/a"), 100, threading.Event())


def test_credentials_that_are_refused_are_named(
    transfer: Transfer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(transfer._transport._files, "info", refuse)  # type: ignore[attr-defined]
    with pytest.raises(
        Unreachable, match=r"s3://bucket/a is refused \(PermissionError: Forbidden\): set AWS_ACCESS_KEY"
    ):
        transfer.read(Url.parse("s3://bucket/a"), 100, threading.Event())


def test_another_length_than_the_manifest_says_is_refused(transfer: Transfer, bucket: str) -> None:
    put(bucket, a=DATA)
    with pytest.raises(Unreachable, match="has 300000 bytes, and 299999 are expected"):
        transfer.download(Url.parse(f"s3://{bucket}/a"), Memory(), 299_999, threading.Event())
