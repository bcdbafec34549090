"""LSUN's LMDB as a source: bytes untouched or prepared as StyleGAN's tool does, and every way it can be wrong."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.config import OnError
from data_pipeline.index import ShardIndex
from data_pipeline.lsun import STRIDE, Lsun
from data_pipeline.manifest import MANIFEST, Manifest
from data_pipeline.preparation import Check, Format, Preparation
from data_pipeline.sources import Source, UnusableImage
from data_pipeline.write import write_shards
from tests.data_pipeline.lsun import lsun_images, make_lmdb

IMAGES = lsun_images(40)
KEYS = sorted(IMAGES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_lmdb(tmp_path / "church_outdoor_train_lmdb", IMAGES)


def test_bytes_pass_through_under_their_keys(path: Path) -> None:
    source = Lsun(path)
    assert isinstance(source, Source)
    assert [source.sample(i) for i in range(len(source))] == [{"__key__": k, "webp": IMAGES[k]} for k in KEYS]


def test_any_image_is_found_in_any_order_and_any_process(tmp_path: Path) -> None:
    count = 2 * STRIDE + 3
    images = {f"{i:040x}": b"RIFF....WEBP" + bytes([i % 251]) for i in range(count)}
    source = Lsun(make_lmdb(tmp_path / "lmdb", images), Preparation(check=Check.none))
    sent = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 1000  # a key of every 256, and nothing that is open
    chance = np.random.default_rng(0).permutation(count).tolist()
    for i in [0, count - 1, STRIDE, STRIDE - 1, STRIDE, STRIDE + 1, 5, 6, 6, *chance]:
        expected = {"__key__": f"{i:040x}", "webp": images[f"{i:040x}"]}
        assert source.sample(i) == sent.sample(i) == expected


def test_the_database_is_only_read(path: Path) -> None:
    (path / "lock.mdb").unlink()
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.iterdir()}
    Lsun(path).sample(3)
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.iterdir()} == before


@pytest.mark.parametrize(
    ("format", "quality"), [(Format.png, None), (Format.webp, None), (Format.webp, 80), (Format.jpg, None)]
)
def test_preparation_is_that_of_stylegans_tool(path: Path, format: Format, quality: int | None) -> None:
    sample = Lsun(path, Preparation(resolution=16, format=format, quality=quality)).sample(7)
    # dataset_tool.py, center_crop: of the array, then Pillow's LANCZOS.
    array = np.array(Image.open(io.BytesIO(IMAGES[KEYS[7]])))
    side = min(array.shape[:2])
    array = array[(array.shape[0] - side) // 2 : (array.shape[0] + side) // 2][
        :, (array.shape[1] - side) // 2 : (array.shape[1] + side) // 2
    ]
    expected = np.asarray(Image.fromarray(array, "RGB").resize((16, 16), Image.Resampling.LANCZOS))
    image = Image.open(io.BytesIO(sample[format.name]))
    assert image.format == {"jpg": "JPEG"}.get(format.name, format.name.upper())
    error = np.abs(np.asarray(image).astype(int) - expected).mean()
    lossless = format is Format.png or (format is Format.webp and quality is None)
    assert error == 0 if lossless else 0 < error < 8


@pytest.mark.parametrize("workers", [1, 3])
def test_packing_is_the_same_with_any_workers_and_hardly_longer_than_the_database(
    path: Path, tmp_path: Path, workers: int
) -> None:
    seen: list[tuple[int, int]] = []
    packing = write_shards(
        Lsun(path),
        tmp_path / "out",
        samples_per_shard=9,
        workers=workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (40, 40)
    assert [entry.samples for entry in packing.manifest.shards] == [9, 9, 9, 9, 4]
    assert packing.manifest.formats == {"webp": 40}
    keys = [key for n in range(5) for key in ShardIndex.read(tmp_path / "out" / f"shard-{n:06d}.tar").keys]
    assert keys == KEYS
    whole = write_shards(Lsun(path), tmp_path / "again", samples_per_shard=9).manifest
    assert packing.manifest == whole


def test_tars_add_two_hundredths_to_real_lengths(tmp_path: Path) -> None:
    """Real values are of 15 to 40 kB; the database pads each to whole pages, the tar to blocks of 512 bytes."""
    drawn = np.random.default_rng(0)
    values = [b"RIFF....WEBP" + drawn.bytes(size) for size in drawn.integers(15_000, 40_000, 200)]
    path = make_lmdb(tmp_path / "lmdb", {f"{i:040x}": value for i, value in enumerate(values)})
    write_shards(Lsun(path, Preparation(check=Check.none)), tmp_path / "out", samples_per_shard=100)
    length = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert length <= 1.02 * (path / "data.mdb").stat().st_size


BAD = {KEYS[3]: b"", KEYS[11]: b"no image at all", KEYS[20]: IMAGES[KEYS[20]][:-40]}


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return make_lmdb(tmp_path / "damaged", IMAGES | BAD)


def test_the_first_bad_image_is_an_error_with_its_key(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableImage, match=f"key {KEYS[20]}: Pillow cannot decode the image's header"):
        Lsun(damaged).sample(20)
    with pytest.raises(
        ValueError, match=rf"LMDB .*damaged, key {KEYS[3]}: the image has no bytes: .*on_error=skip"
    ):
        write_shards(Lsun(damaged), tmp_path / "out", samples_per_shard=9)


def test_skipped_images_are_named_in_the_manifest_however_often_packing_stops(
    damaged: Path, tmp_path: Path
) -> None:
    out, skip = tmp_path / "out", OnError.skip
    whole = write_shards(Lsun(damaged), tmp_path / "whole", samples_per_shard=9, on_error=skip, workers=2).manifest
    assert [name for name, _ in whole.skipped] == [f"key {KEYS[i]}" for i in (3, 11, 20)]
    assert dict(whole.skipped)[f"key {KEYS[3]}"] == "the image has no bytes"
    assert [entry.samples for entry in whole.shards] == [8, 8, 8, 9, 4]

    def stop(done: int, total: int) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(Lsun(damaged), out, samples_per_shard=9, on_error=skip, progress=stop)
    packing = write_shards(Lsun(damaged), out, samples_per_shard=9, on_error=skip)
    assert (packing.kept, packing.written) == (2, 3)
    assert packing.manifest == whole == Manifest.read(out / MANIFEST)
    assert {file.name for file in out.iterdir()} == {file.name for file in (tmp_path / "whole").iterdir()}


def test_a_shard_with_gaps_is_not_kept_by_who_wants_none(damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    def stop(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(Lsun(damaged), tmp_path / "out", samples_per_shard=9, on_error=OnError.skip, progress=stop)
    with pytest.raises(ValueError, match=KEYS[3]):
        write_shards(Lsun(damaged), tmp_path / "out", samples_per_shard=9)


def test_where_every_image_is_bad_there_is_no_shard(tmp_path: Path) -> None:
    bad = dict.fromkeys(KEYS[10:], b"x")
    path, out = make_lmdb(tmp_path / "lmdb", IMAGES | bad), tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 35:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(Lsun(path), out, samples_per_shard=5, on_error=OnError.skip, progress=stop)
    packing = write_shards(Lsun(path), out, samples_per_shard=5, on_error=OnError.skip)
    assert (packing.written, packing.kept, packing.manifest.samples) == (0, 2, 10)
    assert [entry.name for entry in packing.manifest.shards] == ["shard-000000.tar", "shard-000001.tar"]
    assert [name for name, _ in packing.manifest.skipped] == [f"key {key}" for key in KEYS[10:]]
    names = {"manifest.json", *(f"shard-00000{n}.{end}" for n in (0, 1) for end in ("tar", "json"))}
    assert {file.name for file in out.iterdir()} == names


def test_nothing_but_bad_images_is_an_error(tmp_path: Path) -> None:
    path = make_lmdb(tmp_path / "lmdb", {f"{i:040x}": b"x" for i in range(4)})
    with pytest.raises(ValueError, match=r"lmdb: no image can be packed, as key 0+: neither a PNG"):
        write_shards(Lsun(path), tmp_path / "out", samples_per_shard=2, on_error=OnError.skip)


def test_a_changed_database_has_another_preparation(path: Path, tmp_path: Path) -> None:
    first = Lsun(path, max_images=10)
    assert len(first) == 10
    assert first.preparation() == Lsun(make_lmdb(tmp_path / "b", IMAGES), max_images=10).preparation()
    other = IMAGES | {KEYS[2]: IMAGES[KEYS[2]] + b"\0"}
    assert first.preparation() != Lsun(make_lmdb(tmp_path / "c", other), max_images=10).preparation()
    assert first.preparation() != Lsun(path, max_images=11).preparation()
    assert first.preparation() != Lsun(path, Preparation(resolution=16), max_images=10).preparation()


def test_keys_are_read_with_progress(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    Lsun(path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 40), (40, 40)]


def no_lmdb(path: Path) -> None:
    (path / "data.mdb").write_bytes(b"x" * 20_000)


def cut(path: Path) -> None:
    with (path / "data.mdb").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 4096)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: (path / "data.mdb").unlink(), r"must be the folder of an LMDB, .* and has no data\.mdb"),
        (no_lmdb, "is damaged or no LMDB"),
        (cut, r"data\.mdb is cut: it has \d+ of \d+ bytes: fetch it again"),
    ],
)
def test_what_is_no_whole_database_is_refused(path: Path, harm: object, message: str) -> None:
    harm(path)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        Lsun(path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "holds no images"),
        ({"../../etc/passwd": b"x"}, "keys must be like LSUN's"),
        ({"a.b": b"x"}, "keys must"),
    ],
)
def test_keys_that_no_shard_can_have_are_refused(tmp_path: Path, images: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lsun(make_lmdb(tmp_path / "lmdb", images))
    with pytest.raises(ValueError, match="max_images must be at least 1"):
        Lsun(make_lmdb(tmp_path / "fine", IMAGES), max_images=0)
