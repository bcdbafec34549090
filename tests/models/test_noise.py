"""Noise: its words are Philox's, its numbers have the laws they claim, and no two streams meet."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from models.noise import Noise, Purpose, philox
from tests.oracles import philox_4x

WORDS_32 = some.integers(0, 2**32 - 1)
WORDS_64 = some.integers(0, 2**64 - 1)
SAMPLES = some.integers(0, 2**56 - 1)
PURPOSES = some.sampled_from(list(Purpose))
LEAST_P = 1e-4


def ours(counter: list[int], key: list[int]) -> list[int]:
    return [int(word) for word in philox([torch.tensor(word) for word in counter], tuple(key))]


# Random123's kat_vectors, "philox4x32 10".
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_known_answers_of_random123(counter, key, answer):
    counter, key, answer = ([int(word, 16) for word in words.split()] for words in (counter, key, answer))
    assert ours(counter, key) == answer
    assert philox_4x(32, counter, key) == answer


@given(some.lists(WORDS_64, min_size=4, max_size=4), some.lists(WORDS_64, min_size=2, max_size=2))
def test_the_oracle_with_64_bit_words_is_numpys_philox(counter, key):
    position = sum(word << 64 * place for place, word in enumerate(counter))
    following = (position + 1) % 2**256  # numpy counts up before it draws
    drawn_at = [following >> 64 * place & 2**64 - 1 for place in range(4)]
    theirs = np.random.Philox(counter=position, key=key[0] | key[1] << 64).random_raw(4)
    assert philox_4x(64, drawn_at, key) == theirs.tolist()


@given(some.lists(WORDS_32, min_size=4, max_size=4), some.lists(WORDS_32, min_size=2, max_size=2))
def test_the_same_oracle_with_32_bit_words_is_our_philox(counter, key):
    assert ours(counter, key) == philox_4x(32, counter, key)


@given(WORDS_64, SAMPLES, WORDS_32, PURPOSES, some.integers(1, 40))
def test_words_are_philox_of_block_step_sample_and_purpose(seed, sample, step, purpose, count):
    words = Noise(seed, torch.tensor([sample])).words(purpose, count, step)[0].tolist()
    key = [seed & 0xFFFFFFFF, seed >> 32]
    last_words = [sample & 0xFFFFFFFF, sample >> 32 | purpose << 24]
    expected = [philox_4x(32, [block, step, *last_words], key) for block in range(-(-count // 4))]
    assert words == list(itertools.chain(*expected))[:count]


@given(WORDS_64, some.lists(some.tuples(SAMPLES, WORDS_32, PURPOSES), min_size=2, max_size=20, unique=True))
def test_streams_of_one_seed_never_overlap(seed, streams):
    # Philox is a bijection of the counter: two streams share a block of four words only if they share a counter.
    blocks = []
    for sample, step, purpose in streams:
        words = Noise(seed, torch.tensor([sample])).words(purpose, 16, step)[0].tolist()
        blocks += [tuple(words[start : start + 4]) for start in range(0, 16, 4)]
    assert len(set(blocks)) == 4 * len(streams)


@given(some.sets(WORDS_64, min_size=2, max_size=20))
def test_every_seed_up_to_2_to_the_64_has_its_own_noise(seeds):
    drawn = {tuple(Noise(seed, torch.tensor([7])).words(Purpose.EPSILON, 4)[0].tolist()) for seed in seeds}
    assert len(drawn) == len(seeds)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match=str(seed)):
        Noise(seed, torch.arange(2))


@given(
    some.lists(SAMPLES, min_size=1, max_size=33),
    some.lists(some.integers(1, 9), min_size=1, max_size=3),
    some.integers(1, 33),
)
def test_a_sample_draws_the_same_bits_in_any_batch(samples, shape, size):
    whole = Noise(3, torch.tensor(samples))
    for draw in (
        lambda noise: noise.normal(Purpose.EPSILON, shape, step=5),
        lambda noise: noise.uniform(Purpose.REVERSE, shape),
        lambda noise: noise.integers(Purpose.TIME, 1000),
    ):
        parts = [draw(whole[slice(start, start + size)]) for start in range(0, len(samples), size)]
        assert torch.equal(torch.cat(parts), draw(whole))


def test_a_sample_draws_the_same_bits_on_any_number_of_threads():
    noise = Noise(3, torch.arange(37))
    alone = noise.normal(Purpose.EPSILON, (3, 57, 31))
    torch.set_num_threads(2)
    try:
        assert torch.equal(noise.normal(Purpose.EPSILON, (3, 57, 31)), alone)
    finally:
        torch.set_num_threads(1)


@given(some.integers(1, 64), some.integers(1, 64))
def test_a_longer_draw_begins_with_the_shorter_one(short, more):
    noise = Noise(11, torch.arange(3))
    longer = noise.normal(Purpose.PRIOR, (short + more,))
    assert torch.equal(longer[:, :short], noise.normal(Purpose.PRIOR, (short,)))


def related_streams() -> dict[str, torch.Tensor]:
    """64 × 1000 numbers each: streams that differ from the first in one thing only, by as little as can be."""
    index = torch.arange(64)

    def normal(seed=0, first=0, purpose=Purpose.EPSILON, step=1):
        return Noise(seed, index + first).normal(purpose, (1000,), step).flatten()

    return {
        "plain": normal(),
        "next seed": normal(seed=1),
        "seed + 2^32": normal(seed=1 << 32),
        "other samples": normal(first=64),
        "samples + 2^32": normal(first=1 << 32),
        "next step": normal(step=2),
        **{purpose.name: normal(purpose=purpose) for purpose in Purpose if purpose is not Purpose.EPSILON},
    }


def test_streams_that_differ_in_one_thing_are_uncorrelated():
    streams = related_streams()
    for one, other in itertools.combinations(streams, 2):
        for power in (1, 2):
            p = stats.pearsonr(streams[one].double() ** power, streams[other].double() ** power).pvalue
            assert p > LEAST_P, f"{one} and {other}, power {power}"


def test_neighbours_within_a_stream_are_uncorrelated():
    x = Noise(0, torch.arange(64)).normal(Purpose.EPSILON, (1000,)).double()
    for lag in (1, 2, 3, 4, 5, 8):
        assert stats.pearsonr(x[:, lag:].flatten(), x[:, :-lag].flatten()).pvalue > LEAST_P, f"elements, lag {lag}"
        assert stats.pearsonr(x[lag:].flatten(), x[:-lag].flatten()).pvalue > LEAST_P, f"samples, lag {lag}"


def test_normals_are_standard_normal():
    x = Noise(1, torch.arange(256)).normal(Purpose.EPSILON, (1001,)).double().flatten().numpy()
    moments = {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}  # of x^k: mean, variance
    for k, (mean, variance) in moments.items():
        assert abs((x**k).mean() - mean) < 4 * (variance / len(x)) ** 0.5, f"moment {k}"
    assert stats.kstest(x, "norm").pvalue > LEAST_P
    assert np.isfinite(x).all()


def test_uniforms_are_uniform_and_never_zero():
    x = Noise(1, torch.arange(256)).uniform(Purpose.INITIALIZATION, (1000,)).double().flatten().numpy()
    assert x.min() > 0
    assert x.max() <= 1
    assert stats.kstest(x, "uniform").pvalue > LEAST_P


def test_every_bit_of_a_word_is_a_fair_coin():
    words = Noise(5, torch.arange(64)).words(Purpose.TIME, 1000).flatten()
    for bit in range(32):
        heads = int((words >> bit & 1).sum())
        assert stats.binomtest(heads, len(words)).pvalue > LEAST_P, f"bit {bit}"
    assert int(words.max() >> 32) == 0


@pytest.mark.parametrize("high", [1, 2, 7, 40, 1000])
def test_integers_are_uniform_below_high(high):
    drawn = Noise(2, torch.arange(100_000)).integers(Purpose.TIME, high)
    counts = torch.bincount(drawn, minlength=high)
    assert len(counts) == high
    assert high == 1 or stats.chisquare(counts.numpy()).pvalue > LEAST_P


@given(WORDS_64, some.integers(1, 2**31), some.lists(SAMPLES, min_size=1, max_size=20))
def test_integers_are_never_out_of_range(seed, high, samples):
    drawn = Noise(seed, torch.tensor(samples)).integers(Purpose.TIME, high)
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < high
