"""What the tests compare against: closed forms and other people's definitions, never the code under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from models.networks.layers import Attention, Downsample, Upsample
from models.networks.unet import UNet

Network = Callable[[Tensor, Tensor, object], Tensor]

# Salmon et al. 2011, table 2 and Random123's philox.h: word width → (multipliers, Weyl constants).
PHILOX = {
    32: ((0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)),
    64: ((0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)),
}


def philox_4x(width: int, counter: Sequence[int], key: Sequence[int], rounds: int = 10) -> list[int]:
    """Philox 4xW-R on python's integers, written from the paper's Figure 1 for any word width W."""
    (m0, m1), (w0, w1) = PHILOX[width]
    mask = (1 << width) - 1
    c, k = list(counter), list(key)
    for _ in range(rounds):
        low0, high0 = c[0] * m0 & mask, c[0] * m0 >> width
        low1, high1 = c[2] * m1 & mask, c[2] * m1 >> width
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + w0) & mask, (k[1] + w1) & mask]
    return c


def linear_alpha_bar(steps: int, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """alpha-bar_0 .. alpha-bar_T of the linear schedule, in float64, by numpy."""
    return np.concatenate(([1.0], np.cumprod(1 - np.linspace(first, last, steps))))


@dataclass(frozen=True)
class Mixture:
    """Data whose elements are independent draws from Σ_k weight_k N(mean_k, std_k²): every law of it is exact."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def denoise(self, x_t: Tensor, a: Tensor) -> Tensor:
        """E[x_0 | x_t] at alpha-bar = a, elementwise, in float64."""
        x, a = x_t.double()[..., None], a.double()[..., None]
        weight, mean, std = (torch.tensor(v, dtype=torch.float64) for v in (self.weights, self.means, self.stds))
        variance = a * std**2 + 1 - a
        log_evidence = torch.log(weight) - 0.5 * torch.log(variance) - (x - a.sqrt() * mean) ** 2 / variance / 2
        given_component = mean + a.sqrt() * std**2 * (x - a.sqrt() * mean) / variance
        return (torch.softmax(log_evidence, -1) * given_component).sum(-1)

    def data_network(self, alpha_bar: np.ndarray) -> Network:
        """The optimal network whose output is x_0."""
        return lambda x, t, condition: self.denoise(x, look_up(alpha_bar, t, x))

    def epsilon_network(self, alpha_bar: np.ndarray) -> Network:
        """The optimal network whose output is the noise."""

        def network(x: Tensor, t: Tensor, condition: object) -> Tensor:
            a = look_up(alpha_bar, t, x)
            return (x.double() - a.sqrt() * self.denoise(x, a)) / (1 - a).sqrt()

        return network

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """The probability of the data being at most x."""
        parts = zip(self.weights, self.means, self.stds, strict=True)
        return sum(weight * stats.norm.cdf(x, mean, std) for weight, mean, std in parts)


@dataclass(frozen=True)
class GaussianData:
    """Data N(mean, std²): its optimal denoiser is linear, so whole sampling chains keep exact moments."""

    mean: float
    std: float

    def denoise(self, x_t: Tensor, a: Tensor) -> Tensor:
        """E[x_0 | x_t] at alpha-bar = a, by the conditioning of jointly Gaussian variables."""
        gain, offset = self.gain(a.double())
        return offset + gain * x_t.double()

    def gain(self, a: Tensor | float) -> tuple[Tensor | float, Tensor | float]:
        """E[x_0 | x_t] = gain · x_t + offset."""
        gain = a**0.5 * self.std**2 / (a * self.std**2 + 1 - a)
        return gain, self.mean * (1 - a**0.5 * gain)

    def uncertainty(self, a: float) -> float:
        """Var[x_0 | x_t]."""
        return self.std**2 * (1 - a) / (a * self.std**2 + 1 - a)

    data_network = Mixture.data_network
    epsilon_network = Mixture.epsilon_network


@dataclass(frozen=True)
class PlaneMixture:
    """Data in the plane, Σ_k weight_k N(mean_k, std² I): exact scores and conditionals."""

    weights: tuple[float, ...]
    means: tuple[tuple[float, float], ...]
    std: float

    def score(self, x: Tensor, sigma: float) -> Tensor:
        """∇ log of the density with noise of `sigma` added, for x [B, 1, 1, 2]."""
        variance = self.std**2 + sigma**2
        off = torch.tensor(self.means, dtype=torch.float64) - x.double().reshape(-1, 1, 2)
        weight = torch.tensor(self.weights, dtype=torch.float64)
        share = torch.softmax(torch.log(weight) - off.square().sum(-1) / (2 * variance), -1)
        return ((share[..., None] * off).sum(1) / variance).reshape(x.shape)

    def samples(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws [count, 2]."""
        return self._draw(torch.tensor(self.weights), count, generator)

    def conditional_samples(self, first: float, count: int, generator: torch.Generator) -> Tensor:
        """Draws of the second coordinate, given the first: its components' shares follow by Bayes' rule."""
        means = torch.tensor(self.means)[:, 0]
        return self._draw(
            torch.tensor(self.weights) * torch.exp(-((first - means) ** 2) / (2 * self.std**2)), count, generator
        )[:, 1]

    def _draw(self, weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
        component = torch.multinomial(weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, 2, dtype=torch.float64, generator=generator)
        return torch.tensor(self.means, dtype=torch.float64)[component] + self.std * noise


def look_up(alpha_bar: np.ndarray, t: Tensor, x: Tensor) -> Tensor:
    """alpha-bar_t for each image, shaped to broadcast against x."""
    return torch.from_numpy(alpha_bar)[t].reshape(-1, *[1] * (x.ndim - 1))


def as_diffusers(network: UNet, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors named as our U-Net's parameters (weights, or gradients), named and split as UNet2DModel's."""
    theirs = {}
    for ours, other in diffusers_names(network):
        for kind in ("weight", "bias"):
            theirs[f"{other}.{kind}"] = tensors[f"{ours}.{kind}"]
    for ours, others in diffusers_splits(network):
        for kind in ("weight", "bias"):
            rows = [count for _, count in others]
            for (other, _), part in zip(others, tensors[f"{ours}.{kind}"].split(rows), strict=True):
                theirs[f"{other}.{kind}"] = part
    return theirs


def diffusers_stages(network: UNet) -> Iterator[tuple[str, str, str]]:
    """Each stage in the order in which it runs: our name, and UNet2DModel's of its resnet and its attention."""
    for ours, theirs in (("down", "down_blocks"), ("middle", "mid_block"), ("up", "up_blocks")):
        if ours == "middle":
            yield "middle_in", "mid_block.resnets.0", "mid_block.attentions.0"
            yield "middle_out", "mid_block.resnets.1", "mid_block.attentions.1"
            continue
        level = block = 0
        for number, layer in enumerate(getattr(network, ours)):
            if isinstance(layer, Downsample | Upsample):
                level, block = level + 1, 0
                continue
            yield f"{ours}.{number}", f"{theirs}.{level}.resnets.{block}", f"{theirs}.{level}.attentions.{block}"
            block += 1


def diffusers_names(network: UNet) -> Iterator[tuple[str, str]]:
    """The layers that are the same on both sides, by both names."""
    yield from (("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out"))
    yield from (("time.layer_in", "time_embedding.linear_1"), ("time.layer_out", "time_embedding.linear_2"))
    for ours, theirs, kind in (("down", "down_blocks", Downsample), ("up", "up_blocks", Upsample)):
        resamplers = [number for number, layer in enumerate(getattr(network, ours)) if isinstance(layer, kind)]
        for level, number in enumerate(resamplers):
            yield f"{ours}.{number}.conv", f"{theirs}.{level}.{ours}samplers.0.conv"
    inside = {"norm_in": "norm1", "conv_in": "conv1", "norm_out": "norm2", "conv_out": "conv2"}
    for stage, resnet, attention in diffusers_stages(network):
        yield from ((f"{stage}.residual.{name}", f"{resnet}.{other}") for name, other in inside.items())
        if not isinstance(network.get_submodule(f"{stage}.residual.skip"), nn.Identity):
            yield f"{stage}.residual.skip", f"{resnet}.conv_shortcut"
        if isinstance(network.get_submodule(f"{stage}.attention"), Attention):
            yield f"{stage}.attention.norm", f"{attention}.group_norm"
            yield f"{stage}.attention.projection", f"{attention}.to_out.0"


def diffusers_splits(network: UNet) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Our fused layers: name, and the (name, rows) of the layers that UNet2DModel has in their place."""
    stages = list(diffusers_stages(network))
    widths = [network.get_submodule(f"{stage}.residual.conv_in").weight.shape[0] for stage, _, _ in stages]
    resnets = [f"{resnet}.time_emb_proj" for _, resnet, _ in stages]
    yield "time.shifts", list(zip(resnets, widths, strict=True))
    for (stage, _, attention), width in zip(stages, widths, strict=True):
        if isinstance(network.get_submodule(f"{stage}.attention"), Attention):
            yield f"{stage}.attention.query_key_value", [(f"{attention}.to_{part}", width) for part in "qkv"]
