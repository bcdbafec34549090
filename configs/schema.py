"""The schema of every door, registered with Hydra: what the yaml files and the command line may say.

A part with variants is a group: `parameterization=velocity` picks one, `parameterization.variance=small` sets a
field of it. A wrong key, type or choice is refused by name before anything runs.
"""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from configs.doors import BitsConfig, EvaluateConfig, OwnSampler, PackConfig, SampleConfig
from models.networks.unet import UNetConfig
from models.objectives import SimpleLoss
from models.parameterizations import Data, Epsilon, PosteriorMean, Velocity
from models.samplers import Ancestral, Ddim
from models.schedules import Constant, Cosine, Linear, Quadratic, Reciprocal, Sigmoid
from models.solvers import DpmSolver2M, Heun
from models.variational import Hybrid, VariationalBound
from trainer.run import Run

GROUPS: dict[str, dict[str, type]] = {
    "process/schedule": {
        "linear": Linear,
        "quadratic": Quadratic,
        "sigmoid": Sigmoid,
        "cosine": Cosine,
        "constant": Constant,
        "reciprocal": Reciprocal,
    },
    "parameterization": {"epsilon": Epsilon, "data": Data, "posterior_mean": PosteriorMean, "velocity": Velocity},
    "objective": {"simple": SimpleLoss, "variational_bound": VariationalBound, "hybrid": Hybrid},
    "network": {"unet": UNetConfig},
    "sampler": {"ancestral": Ancestral, "ddim": Ddim, "heun": Heun, "dpm_solver_2m": DpmSolver2M},
}

# Where each group's choice lies in a configuration.
PLACES = {**{group.replace("/", "."): group for group in GROUPS}, "preview.sampler": "sampler"}


def open_run() -> DictConfig:
    """The schema of a run in which each part with variants is still to be chosen.

    A default would fix the type of its place: another variant could not be merged over it.
    """
    schema = OmegaConf.structured(Run)
    for place in PLACES:
        OmegaConf.update(schema, place, MISSING)
    return schema


def register() -> None:
    """Makes the schema known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=open_run())
    store.store(name="pack_schema", node=PackConfig)
    store.store(name="sample_schema", node=SampleConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="bits_schema", node=BitsConfig)
    for group, choices in GROUPS.items():
        for name, node in choices.items():
            store.store(group=group, name=name, node=node)
    store.store(group="sampler", name="own", node=OwnSampler)  # of the doors that draw from a run
