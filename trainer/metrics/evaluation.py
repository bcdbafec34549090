"""How near generated images are to real ones, between a floor (other real images) and a ceiling (noise)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from data_pipeline.config import DataConfig, OnError
from data_pipeline.dataset import Dataset
from data_pipeline.decode import UndecodableImage
from data_pipeline.shards import ShardSet
from models.classes import Assignment
from models.noise import Noise, Purpose
from models.pixels import to_bytes
from trainer.metrics.classifier import Classifier, accuracy, train_classifier
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.moments import Moments
from trainer.metrics.parzen import parzen_window

DRAWS = 50
DESCRIPTION = "first dense layer of a small convolutional classifier trained on the reference's labels (seed 0)"


@dataclass(frozen=True)
class LabelledImages:
    """All images of a set of shards, in their stored order."""

    images: UInt8[Tensor, "N C H W"]
    labels: Int64[Tensor, " N"]

    @classmethod
    def read(cls, config: DataConfig, shards: str) -> LabelledImages:
        """Raises ValueError where shards are missing or a sample has no class or does not decode or fit."""
        dataset = Dataset(ShardSet.open(shards, config.access), replace(config, shards=shards))
        images, labels = [], []
        for number in range(dataset.shards.size):
            try:
                images.append(dataset.image(number, 0))
            except UndecodableImage:
                if config.on_error is OnError.skip:
                    continue
                raise
            labels.append(dataset.label(number))
        dataset.close()
        return cls(torch.from_numpy(np.stack(images)), torch.tensor(labels))


def read_labels(config: DataConfig, shards: str) -> Int64[Tensor, " N"]:
    """The class of every sample of a set of shards. Raises ValueError where one has none."""
    dataset = Dataset(ShardSet.open(shards, config.access), replace(config, shards=shards))
    labels = [dataset.label(number) for number in range(dataset.shards.size)]
    dataset.close()
    return torch.tensor(labels)


def has_classes(config: DataConfig) -> bool:
    """Whether the first sample of the shards has a class."""
    dataset = Dataset(ShardSet.open(config.shards, config.access), config)
    try:
        dataset.label(0)
    except ValueError:
        return False
    finally:
        dataset.close()
    return True


@dataclass(frozen=True)
class Yardstick:
    """Distances in the features of a classifier trained on the reference."""

    reference: LabelledImages
    classifier: Classifier

    @classmethod
    def of(cls, reference: LabelledImages) -> Yardstick:
        """Trains the classifier; the same each time. Raises ValueError where there is nothing to tell apart."""
        if len(reference.labels.unique()) < 2:
            raise ValueError("the reference has one class; its features need a classifier of two or more")
        return cls(reference, train_classifier(reference.images, reference.labels))

    def distance(self, images: UInt8[Tensor, "N C H W"]) -> float:
        """The Fréchet distance from the reference."""
        return frechet_distance(self.of_reference, Moments.of(self.features(images)))

    def distance_of_draw(self, count: int, generator: torch.Generator) -> float:
        """The distance of `count` independent draws, with replacement, of the reference's own images."""
        rows = torch.randint(len(self.reference.images), (count,), generator=generator)
        return frechet_distance(self.of_reference, Moments.of(self.reference_features[rows]))

    def perfect_sampler(self, count: int, generator: torch.Generator) -> dict[str, float]:
        """What `count` images of a perfect sampler would score, and how widely that scatters."""
        distances = torch.tensor([self.distance_of_draw(count, generator) for _ in range(DRAWS)])
        return {"perfect_sampler_mean": float(distances.mean()), "perfect_sampler_std": float(distances.std())}

    @cached_property
    def reference_features(self) -> Float[Tensor, "N D"]:
        """The features of the reference."""
        return self.features(self.reference.images)

    @cached_property
    def of_reference(self) -> Moments:
        """The moments of the reference's features."""
        return Moments.of(self.reference_features)

    @torch.no_grad()
    def features(self, images: UInt8[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """The images' features, a thousand at a time."""
        return torch.cat([self.classifier.features(part) for part in images.split(1000)])


def evaluate(
    config: DataConfig,
    held_out: str,
    generate: Callable[[int], UInt8[Tensor, "N C H W"]],
    count: int = 0,
    classes: Assignment | None = None,
) -> dict[str, object]:
    """Scores `count` generated images (0: as many as are held out), and as many held-out ones and noise images.

    The distance is biased upwards by few samples, so all are scored in equal number. The held-out images may be a
    stratified split and so nearer to the reference than independent draws can be; what a perfect sampler would
    score, and how widely that scatters, is measured on draws of the reference itself. `generate` is called
    with the count once the reference has been read, so that bad input costs no sampling. classes: of the images,
    where they are drawn by class; the share that the classifier names so is scored as well.
    """
    yardstick = Yardstick.of(LabelledImages.read(config, config.shards))
    real = LabelledImages.read(config, held_out)
    count = count or len(real.images)
    if not 4 <= count <= len(real.images):
        raise ValueError(f"count must lie in 4 .. {len(real.images)}, the held-out images there are, got {count}")
    samples = generate(count)
    drawn = torch.Generator().manual_seed(0)
    held = real.images[torch.randperm(len(real.images), generator=drawn)[:count]]
    index = torch.arange(count)
    noise = Noise(0, index).normal(Purpose.PRIOR, tuple(samples.shape[1:]))
    asked = {"named_as_asked": accuracy(yardstick.classifier, samples, classes(index))} if classes else {}
    return asked | {
        "metric": "Fréchet distance (not FID)",
        "features": DESCRIPTION,
        "features_accuracy_on_held_out": accuracy(yardstick.classifier, real.images, real.labels),
        "reference": config.shards,
        "reference_images": len(yardstick.reference.images),
        "images": count,
        "samples": yardstick.distance(samples),
        **yardstick.perfect_sampler(count, drawn),
        "floor_held_out_real": yardstick.distance(held),
        "ceiling_noise": yardstick.distance(to_bytes(noise)),
        **parzen_window(samples, held),
    }
