"""RefineNet: as many parameters as the papers', and the paper's appendix written out by hand gives its outputs."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as f

from models.networks.initialization import initialize
from models.networks.instance_norm import InstanceNormPlus
from models.networks.refinenet import Pooling, RefineNet, RefineNetConfig

V2 = {"conditional": False, "pooling": Pooling.maximum}
DEEPER = {"multipliers": [1, 2, 2, 4, 4], "dilations": [1, 1, 1, 2, 4]}


@pytest.mark.parametrize(
    ("config", "channels", "resolution", "levels", "parameters"),
    [
        (RefineNetConfig(128), 3, 32, 10, 30_117_635),
        (RefineNetConfig(64), 1, 28, 10, 7_638_657),
        (RefineNetConfig(128, **V2), 3, 32, 232, 29_694_083),
        (RefineNetConfig(128, **DEEPER, **V2), 3, 96, 788, 83_445_379),
    ],
    ids=["cifar10", "mnist", "v2_cifar10", "v2_church"],
)
def test_the_parameters_are_as_many_as_the_official_codes(config, channels, resolution, levels, parameters):
    with torch.device("meta"):
        network = config.build(channels, resolution, steps=levels)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def randomized(config: RefineNetConfig, levels: int = 5) -> RefineNet:
    network = config.build(3, 16, steps=levels)
    initialize(network, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


class ByHand:
    """Song & Ermon 2019, appendix A, on the weights of a network, in plain functions."""

    def __init__(self, network: RefineNet, config: RefineNetConfig, t: Tensor) -> None:
        self.weights, self.config, self.t = dict(network.named_parameters()), config, t

    def conv(self, name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return f.conv2d(x, weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)

    def norm(self, name: str, x: Tensor) -> Tensor:
        if f"{name}.weight" not in self.weights:
            return x
        rows = self.weights[f"{name}.weight"][self.t - 1 if self.config.conditional else 0 * self.t]
        gamma, alpha, beta = rows[:, :, :, None, None].unbind(1)
        mu = x.mean((2, 3), keepdim=True)
        m, v = mu.mean(1, keepdim=True), mu.var(1, keepdim=True, unbiased=True)
        centred = (x - mu) / (x.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        return gamma * (centred + alpha * (mu - m) / (v + 1e-5).sqrt()) + beta

    def residual(self, name: str, x: Tensor, dilation: int, enters: bool) -> Tensor:
        h = self.conv(f"{name}.conv_in", f.elu(self.norm(f"{name}.norm_in", x)), dilation)
        h = self.conv(f"{name}.conv_out", f.elu(self.norm(f"{name}.norm_out", h)), dilation)
        if not enters:
            return x + h
        if dilation > 1:
            return self.conv(f"{name}.skip", x, dilation) + h
        return f.interpolate(self.conv(f"{name}.skip", x), scale_factor=0.5, mode="area") + f.interpolate(
            h, scale_factor=0.5, mode="area"
        )

    def units(self, name: str, x: Tensor, count: int) -> Tensor:
        for unit in range(count):
            h = x
            for layer in (2 * unit, 2 * unit + 1):
                h = self.conv(f"{name}.convs.{layer}", f.elu(self.norm(f"{name}.norms.{layer}", h)))
            x = x + h
        return x

    def refine(self, name: str, sources: list[Tensor], last: bool) -> Tensor:
        sources = [self.units(f"{name}.adapt.{i}", source, 2) for i, source in enumerate(sources)]
        h = sources[0]
        if len(sources) > 1:
            size = h.shape[2:]
            h = 0
            for i, source in enumerate(sources):
                part = self.conv(f"{name}.fuse_convs.{i}", self.norm(f"{name}.fuse_norms.{i}", source))
                h = h + f.interpolate(part, size, mode="bilinear", align_corners=True)
        total = path = f.elu(h)
        pool = f.avg_pool2d if self.config.pooling is Pooling.average else f.max_pool2d
        for i in range(2):
            path = self.conv(f"{name}.pool.convs.{i}", pool(self.norm(f"{name}.pool.norms.{i}", path), 5, 1, 2))
            total = total + path
        return self.units(f"{name}.refine", total, 3 if last else 1)

    def __call__(self, x: Tensor) -> Tensor:
        h, levels = self.conv("conv_in", 2 * x - 1), []
        for number, dilation in enumerate(self.config.dilations):
            h = self.residual(f"down.{2 * number}", h, dilation, enters=number > 0)
            h = self.residual(f"down.{2 * number + 1}", h, dilation, enters=False)
            levels.insert(0, h)
        h = self.refine("up.0", levels[:1], last=len(levels) == 1)
        for number, level in enumerate(levels[1:], start=1):
            h = self.refine(f"up.{number}", [level, h], last=number == len(levels) - 1)
        return self.conv("conv_out", f.elu(self.norm("norm_out", h)))


LAYOUTS = {
    "ncsn": RefineNetConfig(8),
    "ncsnv2": RefineNetConfig(8, **V2),
    "deeper": RefineNetConfig(4, **DEEPER, **V2),
    "digits": RefineNetConfig(8, [1, 2], [1, 2]),
    "one level": RefineNetConfig(8, [1], [1]),
}


@pytest.mark.parametrize("config", LAYOUTS.values(), ids=LAYOUTS)
def test_outputs_are_those_of_the_appendix_by_hand(config):
    network, t = randomized(config), torch.tensor([1, 3, 5, 2])
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found, expected = network(x, t), ByHand(network, config, t)(x)
    assert expected.abs().mean() > 0.1, "an output of nothing would prove nothing"
    assert float((found - expected).abs().max()) <= 3e-5


def test_only_a_conditional_network_sees_t():
    x = torch.rand(2, 3, 16, 16)
    for config, same in ((LAYOUTS["ncsn"], False), (LAYOUTS["ncsnv2"], True)):
        network = randomized(config)
        outputs = [network(x, torch.tensor([t, t])) for t in (1, 4)]
        assert torch.equal(*outputs) is same


def test_stages_are_all_that_runs_between_the_first_and_the_last_convolution():
    network = randomized(LAYOUTS["ncsn"])
    inside = sum(parameter.numel() for stage in network.stages() for parameter in stage.parameters())
    rest = [network.conv_in, network.norm_out, network.conv_out]
    assert inside + sum(p.numel() for layer in rest for p in layer.parameters()) == sum(
        p.numel() for p in network.parameters()
    )


def test_convolutions_start_as_torchs_own_and_norms_near_the_identity():
    network = RefineNetConfig(16).build(3, 32, steps=10)
    initialize(network, seed=0)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            weight = module.weight.detach().flatten().double().numpy()
            assert stats.kstest(weight, "uniform", (-bound, 2 * bound)).pvalue > 1e-5, name
            if module.bias is not None:
                bias = module.bias.detach().double()
                assert float(bias.abs().max()) <= bound, name
                assert float(bias.std()) > 0, name
        if isinstance(module, InstanceNormPlus):
            scales, shifts = module.weight.detach().double().split((2, 1), dim=1)
            assert stats.kstest(scales.flatten().numpy(), "norm", (1, 0.02)).pvalue > 1e-5, name
            assert torch.count_nonzero(shifts) == 0, name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"multipliers": []}, r"network\.multipliers"),
        ({"channels": 1}, r"network\.channels times each of network\.multipliers must be at least 2, got 1 times"),
        ({"dilations": [1, 2]}, r"network\.dilations must be as many as network\.multipliers.*got \[1, 2\]"),
        ({"dilations": [1, 1, 2, 0]}, r"network\.dilations.*each at least 1"),
        ({"dilations": [2, 1, 2, 4]}, r"network\.dilations must begin with 1, got \[2, 1, 2, 4\]"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        RefineNetConfig(**values)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match=r"data\.resolution must be a multiple of 4.*got 30"):
        RefineNetConfig(4, **DEEPER).build(3, 30, steps=10)
    with pytest.raises(ValueError, match=r"network\.conditional needs the number of noise levels, got 0"):
        RefineNetConfig(4).build(3, 32)
    network = RefineNetConfig(4).build(3, 32, steps=2)
    with pytest.raises(ValueError, match="takes no condition"):
        network(torch.zeros(1, 3, 32, 32), torch.ones(1, dtype=torch.int64), torch.zeros(1))
