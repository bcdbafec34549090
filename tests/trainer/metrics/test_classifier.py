"""The classifier whose features stand where Inception's cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipeline.sources import Digits
from trainer.metrics.classifier import accuracy, train_classifier


@pytest.fixture(scope="module")
def digits() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    found = {}
    for split in ("train", "test"):
        source = Digits(split)
        images = torch.from_numpy(np.stack(source._images))[:, None]
        found[split] = images, torch.tensor(source._labels)
    return found


def test_it_is_the_same_classifier_whatever_torchs_generator_stands_at(digits):
    images, labels = (tensor[:128] for tensor in digits["train"])
    built = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        built.append(train_classifier(images, labels, epochs=1))
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(built[0].features(images), built[1].features(images))


def test_it_tells_held_out_digits_apart(digits):
    classifier = train_classifier(*digits["train"], epochs=10)
    assert accuracy(classifier, *digits["test"]) > 0.93


def test_accuracy_is_the_share_of_right_answers(digits):
    images, labels = (tensor[:64] for tensor in digits["train"])
    classifier = train_classifier(images, labels, epochs=1)
    right = classifier(images).argmax(1)
    assert accuracy(classifier, images, right) == 1
    wrong = torch.where(torch.arange(64) < 16, (right + 1) % 10, right)
    assert accuracy(classifier, images, wrong) == 0.75
