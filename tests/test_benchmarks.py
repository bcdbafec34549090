"""The benchmarks' clock counts turns and alternates them, ratios are theirs over ours, and those of data run."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks import interleave as results
from benchmarks.data import decoders, loaders, locality, opening, packing, randomness, ways
from benchmarks.interleave import HEADER, interleave, ratio


def test_ways_take_turns_and_none_always_goes_second():
    ran = []
    seconds = interleave({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, turns=4, warmup=1)
    assert "".join(ran) == "ab" + "ba" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4}


def test_a_ratio_is_the_median_over_turns_of_theirs_over_ours():
    found = ratio("claim", "peer", 2.5, theirs=[2.0, 30.0, 4.0, 6.0], ours=[1.0, 10.0, 1.0, 3.0])
    assert found.ratio == 2.5
    assert found.low <= found.ratio <= found.high
    assert found.row().count("|") == HEADER.splitlines()[0].count("|")
    assert found.row().endswith("| yes |")
    assert ratio("claim", "peer", 2.6, [2.0, 3.0], [1.0, 1.0]).row().endswith("| **no** |")


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (decoders, ["--turns", "2", "--count", "1"]),
        (packing, ["--turns", "2", "--images", "8", "--workers", "1"]),
    ],
)
def test_decoders_and_packing_are_measured(module, options, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(packing, "DISTINCT", 2)
    monkeypatch.setattr(sys, "argv", ["", *options])
    module.main()
    assert HEADER in capsys.readouterr().out
    assert list((tmp_path / "results").glob("*.json"))


def test_opening_is_measured(tmp_path):
    opening.make(tmp_path, 30)
    assert opening.measured(str(tmp_path), window=16, lanes=1).count("|") == 11


def test_orders_are_simulated(monkeypatch):
    monkeypatch.setattr(locality, "SIZES", [10] * 40)
    monkeypatch.setattr(locality, "BATCH", 64)
    assert locality.row(2, window=4, lanes=2).count("|") == 12
    for name, value in {"SHARDS": 64, "EACH": 20, "SIZE": 1280, "BATCH": 16, "LONG": 4}.items():
        monkeypatch.setattr(randomness, name, value)
    monkeypatch.setattr(randomness, "LAGS", (1, 4))
    assert np.isfinite(randomness.figures(np.random.default_rng(0).permutation(1280))).all()


def test_every_peer_of_the_issue_has_its_target(tmp_path):
    targets = {
        (claim.way.format, claim.way.name, claim.way.decoder): claim.target for claim in loaders.claims(True)
    }
    assert {
        targets["jpg", name, who] for name in ("mosaicml", "database") for who in ("pillow", "simplejpeg")
    } == {1.5}
    assert {targets["webp", "webdataset", who] for who in ("pillow", "opencv")} == {1.5}
    assert set(loaders.make(tmp_path, 6)) == {"jpg", "webp"}
    assert ways
