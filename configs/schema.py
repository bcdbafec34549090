"""The schema of every door, registered with Hydra: what the yaml files and the command line may say.

A part with variants is a group: `parameterization=velocity` picks one, `parameterization.variance=small` sets a
field of it. A wrong key, type or choice is refused by name before anything runs. A variant may have a group inside
it, as process=gaussian has process/schedule.
"""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from configs.doors import (
    BitsConfig,
    CheckpointConfig,
    CompressConfig,
    DecompressConfig,
    EvaluateConfig,
    LadderConfig,
    OwnSampler,
    PlanConfig,
    SampleConfig,
)
from configs.packing import PackConfig
from data_pipeline.config import DataConfig
from data_pipeline.dead_leaves import DeadLeaves
from data_pipeline.synthetic import Heartbeat, Mixture, SwissRoll
from models.ladder import NoiseLadder
from models.langevin import AnnealedLangevin, Langevin
from models.networks.dense import MlpConfig, RadialBasisConfig
from models.networks.multiscale import MultiScaleConfig
from models.networks.refinenet import RefineNetConfig
from models.networks.unet import UNetConfig
from models.objectives import LowerBound, SimpleLoss
from models.parameterizations import Data, Epsilon, PosteriorMean, ScaledScore, Score, Velocity
from models.predictor_corrector import PredictorCorrector
from models.processes import BinomialProcess, GaussianProcess
from models.reverse import DataProbability, FlipProbability, GaussianKernel
from models.samplers import Ancestral, Ddim
from models.schedules import Constant, Cosine, Geometric, Learned, Linear, Quadratic, Reciprocal, Sigmoid
from models.score_matching import DenoisingScoreMatching, ImplicitScoreMatching, SlicedScoreMatching
from models.solvers import DpmSolver2M, Heun
from models.variational import Hybrid, VariationalBound
from trainer.engines.ddp import DdpConfig
from trainer.engines.fsdp import FsdpConfig
from trainer.engines.local import LocalConfig
from trainer.engines.zero import Zero1Config, Zero2Config, Zero3Config
from trainer.run import Run

GROUPS: dict[str, dict[str, type]] = {
    "data": {
        "shards": DataConfig,
        "swiss_roll": SwissRoll,
        "heartbeat": Heartbeat,
        "dead_leaves": DeadLeaves,
        "mixture": Mixture,
    },
    "process": {"gaussian": GaussianProcess, "binomial": BinomialProcess, "ladder": NoiseLadder},
    "process/schedule": {
        "linear": Linear,
        "quadratic": Quadratic,
        "sigmoid": Sigmoid,
        "cosine": Cosine,
        "constant": Constant,
        "reciprocal": Reciprocal,
        "geometric": Geometric,
        "learned": Learned,
    },
    "parameterization": {
        "epsilon": Epsilon,
        "data": Data,
        "posterior_mean": PosteriorMean,
        "velocity": Velocity,
        "score": Score,
        "scaled_score": ScaledScore,
        "dpm_gaussian": GaussianKernel,
        "dpm_binomial": FlipProbability,
        "dpm_binomial_data": DataProbability,
    },
    "objective": {
        "simple": SimpleLoss,
        "variational_bound": VariationalBound,
        "hybrid": Hybrid,
        "denoising": DenoisingScoreMatching,
        "implicit": ImplicitScoreMatching,
        "sliced": SlicedScoreMatching,
        "bound": LowerBound,
    },
    "network": {
        "unet": UNetConfig,
        "refinenet": RefineNetConfig,
        "rbf": RadialBasisConfig,
        "mlp": MlpConfig,
        "multiscale": MultiScaleConfig,
    },
    "engine": {
        "local": LocalConfig,
        "ddp": DdpConfig,
        "fsdp": FsdpConfig,
        "zero1": Zero1Config,
        "zero2": Zero2Config,
        "zero3": Zero3Config,
    },
    "sampler": {
        "ancestral": Ancestral,
        "ddim": Ddim,
        "heun": Heun,
        "dpm_solver_2m": DpmSolver2M,
        "langevin": Langevin,
        "annealed_langevin": AnnealedLangevin,
        "predictor_corrector": PredictorCorrector,
    },
}

# Where each group's choice lies in a configuration. A place inside another comes after it.
PLACES = {**{group.replace("/", "."): group for group in GROUPS}, "preview.sampler": "sampler"}

# What is chosen in the groups inside a variant unless something else is: (group, variant) → group inside → choice.
INSIDE = {
    ("process", "gaussian"): {"schedule": "linear"},
    ("process", "binomial"): {"schedule": "linear"},
}


def open_run(kind: type[Run] = Run) -> DictConfig:
    """The schema of a run in which each part with variants is still to be chosen.

    A default would fix the type of its place: another variant could not be merged over it.
    """
    schema = OmegaConf.structured(kind)
    for place in PLACES:
        if place.rpartition(".")[0] not in PLACES:
            OmegaConf.update(schema, place, MISSING)
    return schema


def open_part(group: str, name: str) -> DictConfig:
    """The schema of a variant, in which the parts with variants of its own are still to be chosen."""
    schema = OmegaConf.structured(GROUPS[group][name])
    for field in INSIDE.get((group, name), {}):
        schema[field] = MISSING
    return schema


def with_defaults(group: str, name: str) -> DictConfig:
    """A variant as Hydra knows it: with a list of what is chosen inside it."""
    schema = open_part(group, name)
    if (group, name) in INSIDE:
        with open_dict(schema):
            schema["defaults"] = ["_self_", INSIDE[group, name]]
    return schema


def register() -> None:
    """Makes the schema known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=open_run())
    store.store(name="plan_schema", node=open_run(PlanConfig))
    store.store(name="pack_schema", node=PackConfig)
    store.store(name="sample_schema", node=SampleConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="bits_schema", node=BitsConfig)
    store.store(name="ladder_schema", node=LadderConfig)
    store.store(name="compress_schema", node=CompressConfig)
    store.store(name="decompress_schema", node=DecompressConfig)
    store.store(name="checkpoint_schema", node=CheckpointConfig)
    for group, choices in GROUPS.items():
        for name in choices:
            store.store(group=group, name=name, node=with_defaults(group, name))
    store.store(group="sampler", name="own", node=OwnSampler)  # of the doors that draw from a run
