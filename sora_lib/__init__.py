"""The shared module of "Sora, step by step". Importing it costs little more than importing torch.

Plots, controls and exercise checks are imported from their own files: sora_lib.plotting, .explore, .checks.
"""

from .article import SoraDiffusionModel
from .datasets import digits, points
from .denoisers import MLPDenoiser, as_denoiser
from .metrics import real_floor, sliced_wasserstein
from .oracle import EmpiricalDenoiser, GaussianMixture
from .samplers import ancestral, ddim, euler, guided, heun
from .schedules import Cosine, LinearBeta, RectifiedFlow, Schedule, convert
from .training import EMA, denoising_loss, load_checkpoint, save_checkpoint, train

__all__ = [
    "EMA",
    "Cosine",
    "EmpiricalDenoiser",
    "GaussianMixture",
    "LinearBeta",
    "MLPDenoiser",
    "RectifiedFlow",
    "Schedule",
    "SoraDiffusionModel",
    "ancestral",
    "as_denoiser",
    "convert",
    "ddim",
    "denoising_loss",
    "digits",
    "euler",
    "guided",
    "heun",
    "load_checkpoint",
    "points",
    "real_floor",
    "save_checkpoint",
    "sliced_wasserstein",
    "train",
]
