"""Checks of the exercises in chapters 06 to 10."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def heun_calls(answer: object) -> None:
    """Chapter 06: how often `heun` calls the denoiser in 20 steps from 1 to 0."""
    mistakes = [(40.0, "the last step returns x0_hat and needs one call"), (20.0, "Heun looks at both ends of a step")]
    mark_number("heun_calls", answer, 39.0, mistakes)


def heun_step(answer: object) -> None:
    """Chapter 06: `heun_step(velocity, x [B, D], t, s)`, one step of Heun's method from t to s."""

    def step(v: Callable, x: Tensor, t: float, s: float, sign: int = 1, mean: float = 0.5, late: int = 1) -> Tensor:
        h, here = sign * (s - t), v(x, t)
        return x + mean * h * (here + v(x + h * here, t + late * (s - t)))

    mistakes = [
        (lambda v, x, t, s: x + (s - t) * v(x, t), "that is Euler's step; the second velocity is missing"),
        (lambda *z: step(*z, sign=-1), "the clock runs back: the step is s - t, which is negative"),
        (lambda *z: step(*z, mean=1), "take the mean of the two velocities, not their sum"),
        (lambda *z: step(*z, late=0), "the second velocity belongs to the time s, not t"),
        (lambda v, x, t, s: x + (s - t) * (v(x, t) + v(x, s)) / 2, "look again at the end of Euler's step, not at x"),
    ]
    inputs = [(lambda x, t: (1 + t) * x.sin(), random_tensor(4, 2, seed=1), t, s) for t, s in ((0.9, 0.6), (0.5, 0.1))]
    mark_function("heun_step", answer, step, inputs, mistakes)


def crossing_velocity(answer: object) -> None:
    """Chapter 07: E[eps - x0 | x_t = 0] at t = 0.5, straight path, where x0 is -1 (chance 1/4) or +1 (3/4)."""
    mistakes = [
        (0.0, "the two pairs that meet there are not equally likely"),
        (-2.0, "that is the likelier pair alone; the best answer is a mean over both"),
        (1.0, "the sign is exchanged: v = eps - x0 leads from data to noise"),
        (-0.5, "that is -E[x0]; eps differs between the two pairs as well"),
    ]
    mark_number("crossing_velocity", answer, -1.0, mistakes)


def reversed_clean(answer: object) -> None:
    """Chapter 07: `reversed_clean(x_s [B, D], s, u [B, D])`, x0 from u = x0 - eps where s = 1 is data."""
    mistakes = [
        (lambda x, s, u: x + s * u, "s is the way behind you; to the data 1 - s is left"),
        (lambda x, s, u: x - s * u, "that is our x0 = x_t - t v; here both time and velocity are reversed"),
        (lambda x, s, u: x - (1 - s) * u, "u points to the data already, so it is added"),
        (lambda x, s, u: x + u, "from s to 1 you walk for the time 1 - s, not 1"),
    ]
    inputs = [(random_tensor(4, 2, seed=1), s, random_tensor(4, 2, seed=2)) for s in (0.2, 0.9)]
    mark_function("reversed_clean", answer, lambda x, s, u: x + (1 - s) * u, inputs, mistakes)


def bending(answer: object) -> None:
    """Chapter 07: `bending(start [B, D], end [B, D], velocities [K, B, D])`, the straightness S of 2209.03003."""
    mistakes = [
        (lambda a, b, v: (a - b - v.mean(0)).square().mean(), "square first: averaged over time, all bends cancel"),
        (lambda a, b, v: (b - a - v).square().mean(), "time 1 is noise, so the mean velocity is start - end"),
        (lambda a, b, v: (a - b - v).square().sum(-1).mean(), "average over the coordinates as well; that sums them"),
        (lambda a, b, v: (a - b - v).abs().mean(), "the deviation is squared"),
        (lambda a, b, v: v.square().mean(), "that is the mean squared speed; subtract the straight way, start - end"),
    ]
    inputs = [
        (random_tensor(5, 2, seed=s), random_tensor(5, 2, seed=s + 1), random_tensor(6, 5, 2, seed=s + 2))
        for s in (1, 4)
    ]
    mark_function("bending", answer, lambda a, b, v: (a - b - v).square().mean(), inputs, mistakes)


def weights_factor(answer: object) -> None:
    """Chapter 08: with patches of 1 x 1, not 2 x 2, how many times more entries the N x N matrices of a block have."""
    mistakes = [
        (4.0, "that is how many times more tokens there are; every token attends to every token"),
        (2.0, "the patch halves along both axes, so there are 4 times as many tokens; and the entries?"),
        (256.0, "that is the number of entries for one head with 2 x 2; the factor is asked for"),
        (4096.0, "that is the number of entries for one head with 1 x 1; divide by that with 2 x 2"),
    ]
    mark_number("weights_factor", answer, 16.0, mistakes)


def patches_to_image(answer: object) -> None:
    """Chapter 08: `patches_to_image(tokens [B, rows columns, p p], p, rows, columns)`, `[B, rows p, columns p]`."""

    def put(order: tuple[int, ...], swapped: bool = False) -> Callable:
        def back(x: Tensor, p: int, rows: int, columns: int) -> Tensor:
            grid = (columns, rows) if swapped else (rows, columns)
            return x.reshape(len(x), *grid, p, p).permute(order).reshape(len(x), rows * p, columns * p)

        return back

    mistakes = [
        (put((0, 1, 2, 3, 4)), "a reshape alone lays each token out along a row; bring its rows under each other"),
        (put((0, 2, 3, 1, 4), swapped=True), "rows and columns of the grid are exchanged: tokens come row by row"),
        (put((0, 1, 4, 2, 3)), "rows and columns inside the patches are exchanged"),
        (put((0, 2, 4, 1, 3), swapped=True), "rows and columns are exchanged, of the grid and inside the patches"),
    ]
    inputs = [(random_tensor(2, 12, 4, seed=1), 2, 3, 4), (random_tensor(1, 10, 9, seed=2), 3, 5, 2)]
    mark_function("patches_to_image", answer, put((0, 1, 3, 2, 4)), inputs, mistakes)


def attention(answer: object) -> None:
    """Chapter 08: `attention(q [N, D], k [M, D], v [M, D])`, softmax(q k^T / sqrt(D)) v."""

    def attend(q: Tensor, k: Tensor, v: Tensor, power: float = 0.5, axis: int = -1) -> Tensor:
        return torch.softmax(q @ k.T / q.shape[1] ** power, dim=axis) @ v

    mistakes = [
        (lambda q, k, v: attend(q, k, v, power=0), "the scores are not divided by the root of D"),
        (lambda q, k, v: attend(q, k, v, power=1), "divide by the root of D, not by D"),
        (lambda q, k, v: attend(q, k, v, power=-0.5), "divide by the root of D; you multiplied"),
        (lambda q, k, v: attend(q, k, v, axis=0), "the weights of each query sum to 1: the softmax runs over the keys"),
        (lambda q, k, v: q @ k.T / q.shape[1] ** 0.5 @ v, "the softmax is missing"),
        (lambda q, k, v: attend(q, k, k), "what is collected are the values, not the keys"),
        (lambda q, k, v: attend(q, v, k), "keys and values are exchanged"),
        (
            lambda q, k, v: torch.softmax(q @ k.T / len(k) ** 0.5, dim=-1) @ v,
            "the root is of D, the numbers of a query, not of the number of keys",
        ),
    ]
    inputs = [tuple(2 * random_tensor(n, 8, seed=s + i) for i, n in enumerate((3, 5, 5))) for s in (1, 4)]
    mark_function("attention", answer, attend, inputs, mistakes)


def guided_value(answer: object) -> None:
    """Chapter 09: guidance of strength w = 2, as the paper counts it, where uncond says 0.2 and cond 0.8."""
    mistakes = [
        (1.4, "that is scale 2; the paper's w = 2 is scale 3"),
        (2.6, "that adds 1 too often: scale 3 counts from uncond, w = 2 from cond"),
        (0.8, "that is the plain conditional answer, w = 0"),
    ]
    mark_number("guided_value", answer, 2.0, mistakes)


def dropped_labels(answer: object) -> None:
    """Chapter 09: `dropped_labels(label [B], u [B], share, none)`, u uniform: `none` for that share of the labels."""
    mistakes = [
        (lambda y, u, p, n: torch.where(u < p, y, n), "the mask is flipped: this keeps only that share"),
        (lambda y, u, p, n: torch.where(u < p, 0, y), "0 is a class of its own; `none` stands for no label"),
        (lambda y, u, p, n: y, "every label is still there"),
    ]
    inputs = [(torch.arange(10), random_tensor(10, seed=s).sigmoid(), p, 10) for s, p in ((1, 0.4), (2, 0.6))]
    mark_function("dropped_labels", answer, lambda y, u, p, n: torch.where(u < p, n, y), inputs, mistakes)


def interval_guidance(answer: object) -> None:
    """Chapter 09: `interval_guidance(cond [B, D], uncond, t [B], scale, low, high)`: guided where low < t < high."""

    def mix(c: Tensor, u: Tensor, t: Tensor, s: float, low: float, high: float, outside: float = 1.0) -> Tensor:
        return u + torch.where((low < t) & (t < high), s, outside)[:, None] * (c - u)

    mistakes = [
        (lambda *z: mix(*z, outside=0.0), "outside the interval use the plain conditional answer, scale 1, not 0"),
        (lambda c, u, t, s, a, b: u + s * (c - u), "the interval is not used"),
        (lambda c, u, t, s, a, b: mix(c, u, t, 1.0, a, b, s), "guided outside and plain inside: the other way round"),
        (lambda c, u, t, s, a, b: mix(c, u, t, 1 + s, a, b), "off by one: scale counts from uncond, not from cond"),
    ]
    times = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    inputs = [(random_tensor(5, 2, seed=s), random_tensor(5, 2, seed=9), times, s, s / 20, 0.8) for s in (2, 5)]
    mark_function("interval_guidance", answer, mix, inputs, mistakes)


def pca_error(answer: object) -> None:
    """Chapter 10: the mean squared error of PCA with 2 numbers on a 5 x 4 matrix with singular values 6, 3, 2, 1."""
    mistakes = [
        (2.25, "that is what the two components keep; the error is what they leave out"),
        (0.15, "the singular values enter squared"),
        (5.0, "that is the sum over all entries; the error is their mean, over 5 times 4"),
        (1.0, "that is the error of a row; a mean squared error divides by the columns as well"),
        (0.7, "that leaves out three directions; two are kept"),
    ]
    mark_number("pca_error", answer, 0.25, mistakes)


def kl_to_width(answer: object) -> None:
    """Chapter 10: `kl_to_width(mean, log_var, c)`, the KL of N(mean, var) from N(0, c^2), entry by entry."""

    def kl(m: Tensor, v: Tensor, c: float) -> Tensor:
        return (m**2 / c**2 + v.exp() / c**2 - 1 - v + 2 * math.log(c)) / 2

    mistakes = [
        (lambda m, v, c: kl(m, v, 1.0), "c is not used"),
        (lambda m, v, c: kl(m, v, c) - math.log(c), "the logarithm too is of var / c^2"),
        (lambda m, v, c: kl(m, v, c) - 2 * math.log(c), "log(var / c^2) is log var MINUS log c^2"),
        (lambda m, v, c: kl(m, v, c**0.5), "c is a standard deviation: divide by its square"),
        (lambda m, v, c: kl(m, 2 * v, c), "log_var is the log of the variance: exp(log_var) needs no further square"),
        (lambda m, v, c: 2 * kl(m, v, c), "the factor 1/2 is missing"),
        (lambda m, v, c: -kl(m, v, c), "the sign: a divergence is never negative"),
        (lambda m, v, c: kl(m, v, c).sum(), "entry by entry: do not sum"),
        (lambda m, v, c: kl(m, v, c).mean(), "entry by entry: do not average"),
    ]
    inputs = [(random_tensor(4, 3, seed=1), random_tensor(4, 3, seed=2), c) for c in (2.0, 0.5)]
    mark_function("kl_to_width", answer, kl, inputs, mistakes)


def normalise_video(answer: object) -> None:
    """Chapter 10: `normalise_video(z [N, C, F, H, W])`, each channel with mean 0 and variance 1 over all the rest."""

    def over(z: Tensor, *axes: int, power: float = 0.5, shift: int = 1) -> Tensor:
        mean, var = z.mean(axes, keepdim=True), z.var(axes, correction=0, keepdim=True)
        return (z - shift * mean) / var**power

    mistakes = [
        (lambda z: over(z, 0, 1, 2, 3, 4), "that takes one mean and spread for all channels; each has its own"),
        (lambda z: over(z, 0), "that treats every place by itself; a channel is one mean and one spread"),
        (lambda z: over(z, 2, 3, 4), "that treats every clip by itself, and loses how clips differ"),
        (lambda z: over(z, 0, 3, 4), "the frames belong to the average as well"),
        (lambda z: over(z, 0, 2, 3, 4, power=1.0), "divide by the standard deviation, not by the variance"),
        (lambda z: over(z, 0, 2, 3, 4, shift=0), "the mean is still in it"),
        (lambda z: over(z, 0, 2, 3, 4, power=0.0), "the mean is gone; the spread is still as it was"),
        (
            lambda z: over(z, 0, 2, 3, 4) * (1 - z.shape[1] / z.numel()) ** 0.5,
            "std divides by N - 1 unless told otherwise; here divide by N (correction=0)",
        ),
    ]
    scale = torch.tensor([0.2, 1.0, 5.0]).view(1, 3, 1, 1, 1)
    inputs = [((random_tensor(4, 3, 2, 3, 3, seed=s) + s) * scale,) for s in (1, 2)]
    mark_function("normalise_video", answer, lambda z: over(z, 0, 2, 3, 4), inputs, mistakes)
