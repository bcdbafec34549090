"""The planner: lengths of shards for small and large sets, few and many readers."""

from __future__ import annotations

import pytest

from data_pipeline.planner import MIB, SAMPLED, Plan, chosen_samples_per_shard, plan
from data_pipeline.sources import Digits, Photographs, UnusableImage

BEDROOM, CHURCH = 3_033_042, 126_227


@pytest.mark.parametrize("readers", [1, 8, 64, 512])
@pytest.mark.parametrize(
    ("samples", "image_bytes"), [(BEDROOM, 14_000), (BEDROOM, 110_000), (BEDROOM * 100, 90_000)]
)
def test_shards_of_large_sets_are_long_and_enough(samples: int, image_bytes: int, readers: int) -> None:
    per_shard = chosen_samples_per_shard(samples, image_bytes, readers)
    shards, length = -(-samples // per_shard), per_shard * (image_bytes + 768)
    assert shards <= 10_000
    assert length >= 63 * MIB or (per_shard >= 500 and shards <= 4 * readers)
    assert length <= 512 * MIB or shards >= 9_990  # beyond a terabyte, shards grow
    if samples * (image_bytes + 768) / (64 * MIB) > 4 * readers:
        assert shards >= 3.9 * readers  # several to each reader


@pytest.mark.parametrize(
    ("samples", "image_bytes", "readers", "shards"),
    [
        (1442, 200, 1, 2),  # the digits
        (355, 200, 1, 1),
        (50_000, 2_400, 1, 4),  # CIFAR-10
        (50_000, 2_400, 1000, 100),  # never shards of fewer than 500 small images
        (CHURCH, 20_000, 1, 20),
        (1, 10, 8, 1),
    ],
)
def test_shards_of_small_sets_are_few(samples: int, image_bytes: int, readers: int, shards: int) -> None:
    per_shard = chosen_samples_per_shard(samples, image_bytes, readers)
    assert -(-samples // per_shard) == shards


def test_the_plan_is_what_packing_makes() -> None:
    best = plan(Digits("train"))
    assert best.sampled == SAMPLED
    assert best.samples_per_shard == 721
    source = Digits("train")
    packed = sum(len(source.sample(i)["png"]) for i in range(1442)) / 1442
    assert best.image_bytes == pytest.approx(packed, rel=0.05)
    assert str(best).startswith("1442 images of about ")
    assert plan(Digits("train"), samples_per_shard=100).shards == 15


def test_images_that_cannot_be_packed_do_not_count() -> None:
    class Gaps(Photographs):
        def sample(self, i: int) -> dict[str, str | bytes]:
            if i % 2:
                raise UnusableImage(str(i), "damaged")
            return super().sample(i)

    assert plan(Gaps(count=20, resolution=8)).sampled == 10


def test_a_shorter_encoding_is_named_where_it_matters() -> None:
    long = Plan(BEDROOM, 1000, image_bytes=110_000, sampled=64, jpeg_bytes=30_000)
    assert "about 336.2 GB in 3034 shards of 1000" in str(long)
    assert "with format=jpg (quality=95, not without loss) 93.6 GB" in str(long)
    assert "format" not in str(Plan(1000, 1000, 110_000, 64, 30_000))
    assert plan(Photographs(count=10, resolution=64)).jpeg_bytes


@pytest.mark.parametrize(("name", "options"), [("ranks", {"ranks": 0}), ("loaders", {"loaders": -1})])
def test_nobody_reading_is_refused(name: str, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        plan(Digits("test"), **options)
