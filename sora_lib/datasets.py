"""Data to learn from: sets of 2-D points whose exact law is known, and real handwritten digits."""

import math

import torch
from torch import Tensor

from .oracle import GaussianMixture
from .validate import check_choice, check_tensor

POINT_SETS = ("moons", "swiss_roll", "gaussians")
PARTS = {"all": slice(None), "train": slice(898), "test": slice(898, None)}  # of the digits


def points(name: str) -> GaussianMixture:
    """A 2-D point set as a distribution: draw from it with `.sample(n)`, denoise exactly with `.denoiser(schedule)`.

    "moons" and "swiss_roll" are scikit-learn's curves, strung with 256 Gaussian beads closer together than they are
    wide; "gaussians" is a ring of eight. Each is shifted and scaled to mean 0 and variance 1 (averaged over x and y).
    Raises ValueError for another name.
    """
    check_choice("name", name, POINT_SETS)
    if name == "moons":
        angle = math.pi * _even(128)
        upper = torch.stack([angle.cos(), angle.sin()], dim=1)
        lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
        return _standardised(torch.cat([upper, lower]), 0.07)
    if name == "swiss_roll":
        angle = 1.5 * math.pi * (1 + 2 * _even(256))
        return _standardised(torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1), 0.5)
    angle = math.pi / 4 * torch.arange(8)
    return _standardised(torch.stack([angle.cos(), angle.sin()], dim=1), 0.1)


def drawing(xy: Tensor) -> GaussianMixture:
    """A hand-drawn shape as a distribution: a Gaussian bead on each of the points `[N, 2]`, 7 % of the spread wide.

    Like `points`, it is shifted and scaled to mean 0 and variance 1. Raises ValueError for fewer than 20 places.
    """
    xy = check_tensor("xy", xy, [None, 2])
    places = len(xy.unique(dim=0))
    if places < 20:
        raise ValueError(
            f"a drawing needs points at 20 places or more, got {places}; draw a longer line, or pick a shape"
        )
    return _standardised(xy, 0.07 * xy.std(dim=0, correction=0).square().mean().sqrt().item())


def _even(n: int) -> Tensor:
    """The middles of n equal parts of [0, 1], `[n]`."""
    return (torch.arange(n) + 0.5) / n


def _standardised(means: Tensor, std: float) -> GaussianMixture:
    """The mixture of equal beads, moved to mean 0 and scaled to variance 1, averaged over the coordinates."""
    scale = math.sqrt(means.var(dim=0, correction=0).mean().item() + std**2)
    return GaussianMixture((means - means.mean(0)) / scale, std / scale)


def digits(part: str = "all") -> tuple[Tensor, Tensor]:
    """The real handwritten digits that scikit-learn ships: images `[N, 1, 8, 8]` in [0, 1] and labels `[N]`.

    part: "all" 1797, or "train", the first 898 rows, or "test", the others. The rows are not shuffled: the two halves
    come, for the most part, from different writers. Raises ValueError for another part.
    """
    from sklearn.datasets import load_digits  # imported here: it costs more than the rest of the library together

    check_choice("part", part, PARTS)
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16  # [1797, 1, 8, 8]
    return images[PARTS[part]], torch.tensor(bunch.target)[PARTS[part]]
