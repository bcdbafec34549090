"""Words are sorted as numpy sorts them, and a large window's parts together are the whole."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import shuffle
from data_pipeline.shuffle import Parts, ascending, shuffled

SPANS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), min_size=1, max_size=5)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=40), st.sampled_from([0, 1, 3, 60]))
def test_words_are_sorted_as_numpy_sorts_them_stably(values: list[int], shift: int) -> None:
    words = np.array(
        [value << shift for value in values], np.uint64
    )  # few, with ties in the upper bits and in all
    np.testing.assert_array_equal(ascending(words), np.argsort(words, kind="stable"))


def test_words_that_agree_in_all_but_their_last_bits_are_sorted() -> None:
    words = np.array([5 << 60, 3, 2, 1 << 60, 7, 5 << 60 | 1, 3], np.uint64)
    assert ascending(words).tolist() == [2, 1, 6, 4, 3, 0, 5]


@given(SPANS, st.integers(0, 2**32), st.sampled_from([0, 56, 63]), st.sampled_from([1, 3, 10, 1000]))
def test_parts_are_together_the_samples_in_the_order_of_their_words(
    spans: list[tuple[int, int]], seed: int, few: int, part: int
) -> None:
    gaps, lengths = np.array(spans).T
    ends = np.cumsum(gaps + lengths)
    samples = np.concatenate([np.arange(*span) for span in zip(ends - lengths, ends, strict=True)])
    words = np.random.Philox(key=seed).random_raw(len(samples)) >> np.uint64(few) << np.uint64(few)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "PART", part)
        ours = shuffled(ends - lengths, ends, words)
    assert isinstance(ours, Parts) == (len(samples) > part)
    expected = samples[np.argsort(words, kind="stable")]
    places = np.random.default_rng(seed).permutation(len(samples))
    np.testing.assert_array_equal(ours[places], expected[places])
    np.testing.assert_array_equal(ours[places[:2]], expected[places[:2]])


def test_a_part_is_sorted_when_it_is_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "PART", 100)
    window = shuffled(np.array([0]), np.array([3000]), np.random.Philox(key=0).random_raw(3000))
    assert isinstance(window, Parts)
    window[np.arange(5)]
    assert len(window._parts) == 1
    assert sorted(window[np.arange(3000)].tolist()) == list(range(3000))
    assert len(window._parts) == shuffle.KEPT


def test_a_windows_words_are_freed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "PART", 100)
    words = np.random.Philox(key=0).random_raw(3000)
    held = weakref.ref(words)
    gc.disable()
    try:
        window = shuffled(np.array([0]), np.array([3000]), words)
        window[np.arange(5)]
        del words
        assert held() is not None
        del window
        assert held() is None
    finally:
        gc.enable()
