"""The benchmarks' clock: turns are counted, their order alternates, and ratios are theirs over ours."""

from __future__ import annotations

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
