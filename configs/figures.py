"""The figures by name, as `launch.figure` knows them."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from configs.doors import FigureConfig
from trainer.figures.denoising import Denoising
from trainer.figures.figure import Figure
from trainer.figures.forward_reverse import Drift, ForwardReverse
from trainer.figures.heartbeat import Heartbeat
from trainer.figures.inpainting import Inpainting
from trainer.figures.interpolation import CoarseToFine, Interpolation
from trainer.figures.langevin_modes import LangevinModes
from trainer.figures.langevin_steps import LangevinSteps
from trainer.figures.losses import Losses
from trainer.figures.neighbours import Neighbours
from trainer.figures.progressive import Progressive
from trainer.figures.rate_distortion import RateDistortion
from trainer.figures.score_field import ScoreField
from trainer.figures.shared_latents import SharedLatents

FIGURES: dict[str, type[Figure]] = {
    "forward_reverse": ForwardReverse,
    "drift": Drift,
    "heartbeat": Heartbeat,
    "denoising": Denoising,
    "inpainting": Inpainting,
    "losses": Losses,
    "score_field": ScoreField,
    "langevin_modes": LangevinModes,
    "langevin_steps": LangevinSteps,
    "rate_distortion": RateDistortion,
    "progressive": Progressive,
    "shared_latents": SharedLatents,
    "interpolation": Interpolation,
    "coarse_to_fine": CoarseToFine,
    "neighbours": Neighbours,
}


def register_figures() -> None:
    """Makes them known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="figure_schema", node=FigureConfig)
    for name, figure in FIGURES.items():
        store.store(group="figure", name=name, node=figure)
