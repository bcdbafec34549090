"""The doors of the codec, on a small run of digits: a file, what it decodes to, and what is refused."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.launch.doors import SMALL, opened
from trainer.compressed import HEADER, Compressed

CHOICES = ("count=5", "steps=6", "code.block_bits=4", "code.search_bits=6")


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory, finished: Path, digits: Path) -> tuple[Path, dict]:
    """A file, and what was printed of it."""
    file = tmp_path_factory.mktemp("compressed") / "digits.qspc"
    text = opened("compress", f"run.directory={finished}", f"shards={digits}/test", f"out={file}", *CHOICES)
    return file, json.loads(text.strip().splitlines()[-1])


def decompressed(run: Path, file: Path, out: Path, *more: str, status: int = 0) -> str:
    return opened("decompress", f"run.directory={run}", f"file={file}", f"out={out}", *more, status=status)


def test_the_images_come_back_byte_for_byte(compressed, finished, digits, tmp_path):
    file, said = compressed
    assert "5 images without loss" in decompressed(finished, file, tmp_path)
    shards = sorted((digits / "test").glob("*.tar"))
    with tarfile.open(shards[0]) as tar:
        members = sorted(name for name in tar.getnames() if name.endswith(".png"))[:5]
        originals = [np.asarray(Image.open(tar.extractfile(name))) for name in members]
    for number, original in enumerate(originals):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{number:06d}.png")), original)
    assert 8 * file.stat().st_size == said["file_bits"]


def test_what_is_printed_adds_up(compressed):
    _, said = compressed
    assert said["images"] == 5
    assert said["ideal_bits"] == pytest.approx(said["divergence_bits"] + said["pixel_bits"])
    sent = said["divergence_bits_sent"] + said["pixel_bits_sent"]
    assert said["file_bits"] - said["header_bits"] == pytest.approx(sent, abs=16)
    assert said["overhead"] == pytest.approx(said["file_bits"] / said["ideal_bits"] - 1)
    assert [step["t"] for step in said["steps_sent"]][0::5] == [20, 1]
    kept = list((Path(said["run"]) / "metrics").glob("compression-000000000320-*.json"))
    assert said in [json.loads(path.read_text()) for path in kept]


def test_a_file_that_is_cut_short_shows_what_it_holds_when_asked_to(compressed, finished, tmp_path):
    file, _ = compressed
    data, short = file.read_bytes(), tmp_path / "short.qspc"
    short.write_bytes(data[: HEADER + (len(data) - HEADER) // 2])
    text = decompressed(finished, short, tmp_path / "out", status=1)
    assert "is cut short" in text
    assert "partial=true decodes the steps that are there" in text
    assert "5 images as x̂_0 at t = " in decompressed(finished, short, tmp_path / "out", "partial=true")


def test_damage_and_other_weights_are_refused(compressed, finished, digits, tmp_path):
    file, _ = compressed
    data, bad = file.read_bytes(), tmp_path / "bad.qspc"
    for change, said in (
        (data[:20] + bytes([data[20] ^ 1]) + data[21:], "its header has another checksum"),
        (data[:-1] + bytes([data[-1] ^ 1]), "its content is not what its header states"),
        (data + b"\0", "its content is not what its header states"),
        (data[:30], "cut short within its header"),
        (b"PNG" + data, "is no compressed file of this version"),
    ):
        bad.write_bytes(change)
        with pytest.raises(ValueError, match=said):
            Compressed.read(bad, partial=True)
    assert "is no compressed file" in decompressed(finished, bad, tmp_path / "out", status=1)
    other = tmp_path / "other"
    opened("train", *SMALL, f"data.shards={digits}/train", f"run.directory={other}", "run.seed=1")
    assert "compressed with other weights or choices" in decompressed(other, file, tmp_path / "out", status=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["steps=1"], "steps must be 0, for all, or from 2 to the process's 20 steps, got 1"),
        (["send=7"], "send must be at most 6"),
        (["power=0.5"], "power must be at least 1, got 0.5"),
        (["code.block_bits=0"], "block_bits must lie in (0, 16], got 0"),
        (["count=1000000"], "count must be at most 355"),
    ],
)
def test_a_choice_that_cannot_be_is_named(finished, digits, tmp_path, arguments, said):
    where = [f"run.directory={finished}", f"shards={digits}/test", f"out={tmp_path / 'a'}", *CHOICES]
    assert said in opened("compress", *where, *arguments, status=1)


def test_only_the_first_steps_are_a_smaller_file_that_is_whole(compressed, finished, digits, tmp_path):
    file, _ = compressed
    lossy = tmp_path / "lossy.qspc"
    opened("compress", f"run.directory={finished}", f"shards={digits}/test", f"out={lossy}", *CHOICES, "send=4")
    assert lossy.stat().st_size < file.stat().st_size
    assert "5 images as x̂_0 at t = 2 " in decompressed(finished, lossy, tmp_path / "out")
