"""The packing door, from a folder of images to a run on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data_pipeline.config import DataConfig
from data_pipeline.stream import DataStream
from tests.data_pipeline.lsun import lsun_images, make_lmdb
from tests.data_pipeline.test_cifar import COUNTS, batch, records
from tests.data_pipeline.test_idx import write as write_mnist
from tests.launch.doors import ENVIRONMENT, ROOT, opened


@pytest.fixture
def images(tmp_path):
    """Twenty images of uneven sizes, in two subfolders."""
    drawn = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "images" / ("cats" if number % 2 else "dogs") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = drawn.integers(32, 60, 2)
        Image.fromarray(drawn.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return tmp_path / "images"


def test_a_folder_is_packed_and_trained_on(images, tmp_path):
    shards = tmp_path / "shards"
    text = opened(
        "pack", "source=folder", f"path={images}", f"out={shards}", "resolution=32", "samples_per_shard=8"
    )
    assert "20 images in 3 shards (3 written, 0 were there)" in text
    assert "(0 written, 3 were there)" in opened(
        "pack", "source=folder", f"path={images}", f"out={shards}", "resolution=32", "samples_per_shard=8"
    )
    small = ["run.images=16", "data.batch=8", "network.channels=8", "network.groups=4", "preview.every=0"]
    opened(
        "train",
        "experiment=ddpm_photographs",
        f"data.shards={shards}",
        f"run.directory={tmp_path / 'run'}",
        *small,
    )


@pytest.mark.parametrize(("source", "resolution", "parts"), [("digits", 8, 2), ("photographs", 32, 2)])
def test_the_sources_with_real_images_make_a_train_and_a_test_part(tmp_path, source, resolution, parts):
    more = ["count=20"] if source == "photographs" else []
    opened("pack", f"source={source}", f"out={tmp_path}", *more)
    assert len(list(tmp_path.glob("*/manifest.json"))) == parts
    channels = 1 if source == "digits" else 3
    config = DataConfig(shards=str(tmp_path / "test"), resolution=resolution, channels=channels, batch=2)
    with DataStream(config, 0).open(0) as batches:
        assert next(batches).x.shape == (2, channels, resolution, resolution)


def test_the_original_files_of_mnist_and_cifar10_are_packed_in_their_parts(tmp_path):
    mnist, cifar = tmp_path / "mnist files", tmp_path / "cifar-10-batches-bin"
    write_mnist(mnist)
    cifar.mkdir()
    for name in COUNTS:
        (cifar / name).write_bytes(batch(name))
    for source, path, train, test in (("mnist", mnist, 25, 7), ("cifar10", tmp_path, 15, 3)):
        text = opened("pack", f"source={source}", f"path='{path}'", f"out={tmp_path / source}")
        assert f"{tmp_path / source / 'train'}: {train} images in 1 shards" in text
        assert f"{tmp_path / source / 'test'}: {test} images in 1 shards" in text
    config = DataConfig(str(tmp_path / "cifar10" / "train"), batch=15, labels=True)
    with DataStream(config, 0, classes=10).open(0) as batches:
        assert sorted(next(batches).condition.tolist()) == sorted(
            label for number in range(1, 6) for label in records(f"data_batch_{number}.bin")[0]
        )


def test_lsun_is_packed_verified_and_described(tmp_path):
    path = make_lmdb(tmp_path / "church outdoor_train_lmdb", {**lsun_images(30), "0" * 40: b"no image"})
    out = tmp_path / "the shards"
    command = ["source=lsun", f"path='{path}'", f"out='{out}'", "samples_per_shard=10", "workers=2"]
    assert f"key {'0' * 40}: neither a PNG, a JPEG nor a WebP" in opened("pack", *command, status=1)
    text = opened("pack", *command, "on_error=skip")
    assert "planned" not in text  # it goes by what was begun
    assert "30 images in 4 shards" in text
    assert f"1 images could not be packed and were skipped:\n  key {'0' * 40}: neither" in text

    document = json.loads(
        opened("pack", "describe", str(out), f"sheet='{tmp_path / 'a sheet.png'}'").splitlines()[-1]
    )
    assert (document["samples"], document["formats"], document["skipped"]) == (30, {"webp": 30}, 1)
    assert document["sizes"] == {"24x20": 30}
    assert Image.open(document["sheet"]).size == (6 * 26 - 2, 5 * 26 - 2)

    (out / "shard-000002.tar").unlink()
    data = bytearray((out / "shard-000001.tar").read_bytes())
    data[700] ^= 1
    (out / "shard-000001.tar").write_bytes(data)
    text = opened("pack", "verify", str(out), status=1)
    assert [f"shard-00000{n}.tar" in text for n in range(4)] == [False, True, True, False]


def test_both_parts_of_a_set_are_verified_and_described(tmp_path):
    text = opened("pack", "source=digits", f"out={tmp_path}")
    assert f"{tmp_path / 'train'}: planned: 1442 images of about" in text
    assert "1442 images in 2 shards" in text
    text = opened("pack", "verify", f"out={tmp_path}")
    assert all(f"{tmp_path / part}: whole" in text for part in ("train", "test"))
    document = json.loads(opened("pack", "action=describe", f"out={tmp_path}").splitlines()[-1])
    assert document["test"]["samples"] == sum(document["test"]["classes"].values()) == 355
    assert (tmp_path / "train" / "contact_sheet.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "nowhere"], "nowhere holds neither manifest.json nor *.tar"),
        (["out=x"], "source must be given"),
        (["source=mnist", "path=.", "out=x", "shuffle=1"], "source=mnist takes no shuffle"),
        (["source=digits", "out=x", "samples_per_shard=0"], "samples_per_shard must be at least 1, got 0"),
        (["source=folder", "path=.", "out=x", "format=png"], "format=png needs a resolution"),
        (["source=tar", "path=.", "drop=txt", "out=x"], "drop must be a list of extensions"),
        (["source=folder", "out=x"], "source=folder needs path="),
        (["source=folder", "path=nowhere", "out=x"], "there is no folder nowhere"),
        (["source=mnist", "out=x"], "source=mnist needs path="),
        (["source=cifar10", "out=x", "path=nowhere"], "there is no nowhere"),
        (["source=cifar10", "out=x", "path=.", "resolution=32"], "source=cifar10 takes no resolution"),
        (["source=lsum", "out=x"], "source"),
        (["source=digits"], "out must be given"),
        (["source=digits", "out=x", "resolution=32"], "source=digits takes no resolution"),
        (["source=photographs", "out=x", "channels=1"], "source=photographs takes no channels"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, said):
    assert said in opened("pack", *arguments, status=1)


def test_what_is_damaged_is_packed_again(images, tmp_path):
    shards = tmp_path / "shards"
    command = ["source=folder", f"path={images}", f"out={shards}", "samples_per_shard=8", "shuffle=5"]
    opened("pack", *command)
    whole = {path.name: path.read_bytes() for path in shards.iterdir()}
    (shards / "shard-000001.tar").unlink()
    (shards / "shard-000002.tar").write_bytes(b"?" + whole["shard-000002.tar"][1:])
    assert "(1 written, 2 were there)" in opened("pack", *command)
    assert "(1 written, 2 were there)" in opened("pack", "action=repair", *command)
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == whole
    preparation = json.loads(whole["manifest.json"])["preparation"]
    assert (preparation["shuffle"], preparation["check"]) == (5, "decode")


def test_a_folder_without_room_is_told_before_packing(images, tmp_path, monkeypatch):
    from configs.packing import PackConfig
    from data_pipeline.folder import Folder
    from launch import pack

    monkeypatch.setattr(pack.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000))
    with pytest.raises(ValueError, match=r"has room for 1\.0 kB, and about .* kB are to be packed"):
        pack.planned(PackConfig(), Folder(images), tmp_path / "not" / "there")


def test_the_time_to_go_is_that_of_what_was_not_there(monkeypatch, capsys):
    from launch import pack

    clock = iter([0.0, 1.0, 2.0, 12.0])  # at the beginning, after each kept shard, after the first that is packed
    monkeypatch.setattr(pack.time, "monotonic", lambda: next(clock))
    with pack.shown("out", "img", 1_000) as progress:
        for done in (1_000, 2_000, 2_500, 3_000):
            progress(done, 12_000)
    assert "100 img/s, about 0:01:30 to go" in capsys.readouterr().out


INTERRUPTED = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background inherits none
sys.argv = ["launch/pack.py", *sys.argv[1:]]
runpy.run_module("launch.pack", run_name="__main__", alter_sys=True)
"""


def test_packing_goes_on_after_ctrl_c(tmp_path):
    command = ["source=photographs", "count=100000", "samples_per_shard=20", "workers=2", f"out={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *command],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.glob("train/*.tar")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "stopped; the same command goes on from here\n")
    assert not list(tmp_path.glob("train/*.partial"))
    assert not (tmp_path / "train" / "packing.lock").exists()
