"""python -m launch.compress run.directory=DIR shards=SHARDS out=FILE: images into a file."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from configs.schema import register
from launch.door import door
from launch.score import keep

register()


@hydra.main(version_base="1.3", config_path="../configs", config_name="compress")
@door
def main(config: DictConfig) -> int:
    """Writes the file, and prints and keeps how long it is beside the divergences' sum."""
    import time

    from tqdm import tqdm

    from configs.runs import to_value
    from launch.restored import Averaged
    from trainer.codec import Codec
    from trainer.compressed import compress
    from trainer.metrics.bits_per_dim import check_decoder, first_images
    from trainer.metrics.compression import compression

    chosen = to_value(config)
    of = Averaged.of(chosen)
    check_decoder(of.run, "progressive coding")
    of.run.check_without_class("progressive coding")
    images = first_images(of.run.data, chosen.shards, chosen.count)
    codec = Codec(of.diffusion, of.device, chosen.steps, chosen.power, chosen.batch, chosen.clip, chosen.seed)
    started = time.perf_counter()
    with tqdm(total=chosen.send or len(codec.times()) - 1, desc="sending", unit="step", disable=None) as bar:
        whose = of.run, of.checkpoint, of.half_life
        file, sent = compress(*whose, codec, images, chosen.send, chosen.code, lambda step: bar.update())
    file.write(Path(chosen.out))
    provenance = {
        **of.provenance(),
        "shards": chosen.shards,
        "steps": chosen.steps,
        "power": chosen.power,
        "send": chosen.send,
        "clip": chosen.clip,
        "code": vars(chosen.code),
        "seed": chosen.seed,
    }
    seconds = {"seconds": time.perf_counter() - started}
    score = compression(file, sent, of.run.process, images) | seconds | provenance
    keep(score, of.run.directory, f"compression-{of.checkpoint.name}", [provenance, len(images)])
    return 0


if __name__ == "__main__":
    main()
