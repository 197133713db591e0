"""A small network that learns to denoise points, and the step from any network to a denoiser."""

import math

import torch
from torch import Tensor, nn

from .oracle import Denoiser
from .schedules import PREDICTIONS, Schedule, check_schedule, convert
from .validate import check_choice, check_count, check_memory, check_tensor, check_times


class TimeEmbedding(nn.Module):
    """Times `[B]` to features `[B, dim]`: sines and cosines of t, from 1/2 to 64 turns, evenly in the log.

    The idea of a sinusoidal embedding is from arXiv 1706.03762, section 3.5; the frequencies suit t in [0, 1].
    """

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        if check_count("time_dim", dim, 2) % 2:
            raise ValueError(f"time_dim must be even, a sine and a cosine for each frequency, got {dim}")
        check_memory(f"time_dim: {dim} features", 4 * dim)
        frequencies = torch.logspace(-1, 6, dim // 2, base=2)
        self.register_buffer("frequencies", 2 * math.pi * frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies  # [B, dim / 2]
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # [B, dim]


class ResidualBlock(nn.Module):
    """h + MLP(norm(h) + time): each block reads the time afresh and adds a correction to h `[B, width]`."""

    def __init__(self, width: int, time_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.time = nn.Linear(time_dim, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        return h + self.mlp(self.norm(h) + self.time(time))


class MLPDenoiser(nn.Module):
    """The article's MLP made into a denoiser: noisy points `[B, dim]` and times `[B]` in, a prediction `[B, dim]` out.

    What it predicts (eps, x0 or v) is decided by the training loss. Raises ValueError or TypeError for bad arguments.
    """

    def __init__(self, dim: int = 2, width: int = 128, depth: int = 3, time_dim: int = 32) -> None:
        super().__init__()
        for name, value in {"dim": dim, "width": width, "depth": depth}.items():
            check_count(name, value)
        self.dim = dim
        check_memory(f"weights of width {width} and depth {depth}", 8 * width**2 * depth + 8 * dim * width)
        self.embed_time = TimeEmbedding(time_dim)
        self.inp = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, time_dim) for _ in range(depth))
        self.out = nn.Linear(width, dim)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        x_t = check_tensor("x_t", x_t, [None, self.dim], self.inp.weight.dtype)
        time = self.embed_time(check_times(t, len(x_t)).to(x_t))  # [B, time_dim]
        h = self.inp(x_t)  # [B, width]
        for block in self.blocks:
            h = block(h, time)
        return self.out(h)  # [B, dim]


def as_denoiser(model: nn.Module, schedule: Schedule, prediction: str = "eps", cond: object = None) -> Denoiser:
    """The denoiser (x_t, t) -> x0_hat of a network that predicts "eps", "x0", "v" or "score" from (x_t, t).

    cond: what a conditional network is told of each sample, its third argument (labels `[B]`, or a `Told`); the same at
    all times.
    Raises ValueError where the prediction says nothing of x0 (see `convert`), and for an unknown prediction.
    """
    check_schedule(schedule)
    check_choice("prediction", prediction, PREDICTIONS)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        output = model(x_t, t) if cond is None else model(x_t, t, cond)
        return convert(output, x_t, t, schedule, source=prediction, target="x0")

    return denoise
