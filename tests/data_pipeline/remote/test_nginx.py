"""Shards from a real nginx: resumed by range, refused for a while, and the same batches as from the folder."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from data_pipeline.config import DataConfig
from data_pipeline.remote.access import Access
from data_pipeline.remote.http import Http
from data_pipeline.remote.transfer import Memory, Transfer
from data_pipeline.remote.url import Url
from data_pipeline.stream import DataStream
from tests.data_pipeline.remote.nginx import nginx


def test_batches_from_nginx_are_those_of_the_folder(digits: Path, tmp_path: Path) -> None:
    config = DataConfig(
        str(digits), resolution=8, channels=1, batch=200, labels=True, cache=str(tmp_path / "cache")
    )
    with nginx(digits, tmp_path / "nginx") as url:
        for spec in (url, f"{url}/shard-{{000000..000003}}.tar"):
            local, remote = DataStream(config, 1), DataStream(replace(config, shards=spec), 1)
            assert remote.fingerprint == local.fingerprint
            with local.open(0) as ours, remote.open(0) as theirs:
                for a, b in islice(zip(ours, theirs, strict=True), 10):
                    assert torch.equal(a.x, b.x)
                    assert torch.equal(a.condition, b.condition)
    asked = [line for line in (tmp_path / "nginx" / "access.log").read_text().splitlines() if ".tar " in line]
    assert len(asked) == 4  # each shard once


def test_a_beginning_is_completed_by_range(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(2**20)
    site = tmp_path / "site"
    site.mkdir()
    (site / "a.tar").write_bytes(data)
    access = Access(timeout=5, retries=1, pause=0.01)
    transfer = Transfer(Http(access), access)
    with nginx(site, tmp_path / "nginx") as host:
        url, memory = Url.parse(f"{host}/a.tar"), Memory()
        memory.restart(transfer.facts(url, threading.Event()).validator)
        memory.write(data[:700_000])
        transfer.download(url, memory, len(data), threading.Event())
        assert bytes(memory.data) == data
        # The file is replaced: a range of the old one is not mixed with the new.
        (site / "b.tar").write_bytes(data[::-1])
        os.utime(site / "b.tar", (1, 1))
        os.replace(site / "b.tar", site / "a.tar")
        validator = memory.validator
        memory.restart(validator)
        memory.write(data[:700_000])
        transfer.download(url, memory, len(data), threading.Event())
        assert bytes(memory.data) == data[::-1]
    lines = (tmp_path / "nginx" / "access.log").read_text().splitlines()
    assert [line.split('"')[2].split()[0] for line in lines] == ["200", "206", "200"]


def test_a_server_that_limits_its_rate_is_waited_for(digits: Path, tmp_path: Path) -> None:
    access = Access(timeout=5, retries=8, pause=0.2)
    transfer = Transfer(Http(access), access)
    with nginx(digits, tmp_path / "nginx", "limit_req zone=slow; limit_req_status 429;") as host:
        for number in range(3):
            url = Url.parse(f"{host}/shard-00000{number}.json")
            data = (digits / url.name).read_bytes()
            assert transfer.read(url, 2**20, threading.Event()) == data
    log = (tmp_path / "nginx" / "access.log").read_text()
    assert '" 429 ' in log
