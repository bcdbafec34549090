"""A small classifier trained on the reference images' own labels, for its features.

It stands where Inception cannot: for images that Inception's features say nothing about, such as 8x8 digits. A
distance in its features is comparable between runs on the same reference, and is never an FID.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from models.pixels import to_unit

FEATURES = 32


class Classifier(nn.Module):
    """Two convolutions and two dense layers; the features are the first dense layer's."""

    def __init__(self, channels: int, resolution: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (-(-resolution // 2)) ** 2, FEATURES),
        )
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: UInt8[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """What the distances are measured in, before the last non-linearity."""
        out: Tensor = self.body(to_unit(images))
        return out

    def forward(self, images: UInt8[Tensor, "N C H W"]) -> Float[Tensor, "N classes"]:
        out: Tensor = self.head(functional.relu(self.features(images)))
        return out


def train_classifier(
    images: UInt8[Tensor, "N C H W"], labels: Int64[Tensor, " N"], seed: int = 0, epochs: int = 30, batch: int = 64
) -> Classifier:
    """The classifier of these images: the same one each time, whatever torch's generator stands at."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = Classifier(images.shape[1], images.shape[2], int(labels.max()) + 1)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3, weight_decay=1e-2)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(batch):
                loss = functional.cross_entropy(classifier(images[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: Classifier, images: UInt8[Tensor, "N C H W"], labels: Int64[Tensor, " N"]) -> float:
    """The share of images that it names rightly."""
    return float((classifier(images).argmax(1) == labels).double().mean())
