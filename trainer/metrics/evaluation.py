"""How near generated images are to real ones, between a floor (other real images) and a ceiling (noise)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from data_pipeline.config import DataConfig
from data_pipeline.dataset import Dataset
from data_pipeline.shards import ShardSet
from models.noise import Noise, Purpose
from models.pixels import to_bytes
from trainer.metrics.classifier import Classifier, accuracy, train_classifier
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.moments import Moments

FEATURES = "first dense layer of a small convolutional classifier trained on the reference's labels (seed 0)"


@dataclass(frozen=True)
class LabelledImages:
    """All images of a set of shards, in their stored order."""

    images: UInt8[Tensor, "N C H W"]
    labels: Int64[Tensor, " N"]

    @classmethod
    def read(cls, config: DataConfig, shards: str) -> LabelledImages:
        """Raises ValueError where shards are missing or a sample has no class or does not decode or fit."""
        dataset = Dataset(ShardSet.open(shards), replace(config, shards=shards))
        numbers = range(dataset.shards.size)
        images = torch.from_numpy(np.stack([dataset.image(number, 0) for number in numbers]))
        labels = torch.tensor([dataset.label(number) for number in numbers])
        dataset.close()
        return cls(images, labels)


@dataclass(frozen=True)
class Yardstick:
    """Distances in the features of a classifier trained on the reference."""

    reference: LabelledImages
    classifier: Classifier

    @classmethod
    def of(cls, reference: LabelledImages) -> Yardstick:
        """Trains the classifier; the same each time."""
        return cls(reference, train_classifier(reference.images, reference.labels))

    def distance(self, images: UInt8[Tensor, "N C H W"]) -> float:
        """The Fréchet distance from the reference."""
        return frechet_distance(self.moments(self.reference.images), self.moments(images))

    @torch.no_grad()
    def moments(self, images: UInt8[Tensor, "N C H W"]) -> Moments:
        """The moments of the images' features."""
        return Moments.of(self.classifier.features(images))


def evaluate(
    config: DataConfig, held_out: str, generate: Callable[[int], UInt8[Tensor, "N C H W"]], count: int = 0
) -> dict[str, object]:
    """Scores `count` generated images (0: as many as are held out), and as many held-out ones and noise images.

    The three are of equal number because the distance is biased upwards by few samples, and equally so. `generate`
    is called with the count once the reference has been read, so that bad input costs no sampling.
    """
    yardstick = Yardstick.of(LabelledImages.read(config, config.shards))
    real = LabelledImages.read(config, held_out)
    count = count or len(real.images)
    if not 2 <= count <= len(real.images):
        raise ValueError(f"count must lie in 2 .. {len(real.images)}, the held-out images there are, got {count}")
    samples = generate(count)
    noise = Noise(0, torch.arange(count)).normal(Purpose.PRIOR, tuple(samples.shape[1:]))
    return {
        "metric": "Fréchet distance (not FID)",
        "features": FEATURES,
        "features_accuracy_on_held_out": accuracy(yardstick.classifier, real.images, real.labels),
        "reference": config.shards,
        "reference_images": len(yardstick.reference.images),
        "images": count,
        "samples": yardstick.distance(samples),
        "floor_held_out_real": yardstick.distance(real.images[:count]),
        "ceiling_noise": yardstick.distance(to_bytes(noise)),
    }
