"""Checks of the practice notebook of chapter 05."""

import math

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def start_left(answer: object) -> None:
    """Chapter 05: the share of its start that an average with constant decay 0.99 still holds after 50 steps."""
    mistakes = [
        (0.395, "that is the share of all later weights together; asked for is what is left of the start"),
        (0.5, "each step takes one per cent of what is left, not of the whole"),
        (0.99, "that is what one step keeps; there are 50"),
        (61.0, "a share between 0 and 1, not per cent"),
        (60.5, "a share between 0 and 1, not per cent"),
        (0.01, "that is what one step takes in"),
        (0.0, "an average that only ever shrinks its start by a factor never loses all of it"),
    ]
    mark_number("start_left", answer, 0.99**50, mistakes)


def middle_loss(answer: object) -> None:
    """Chapter 05: the best possible v loss of a coordinate at t = 0.5, for data of mean 0 and variance 1."""
    mistakes = [
        (0.0, "that needs v to be read off x_t; can x0 and eps be told apart there?"),
        (1.0, "that holds at the two ends, where one of x0 and eps can be read off x_t"),
        (
            0.5,
            "that is the variance of x_t, or the best loss on x0; an error in v is 1/t times as large as one in x0",
        ),
        (1.3, "that is the chapter's mean over all times, for other data"),
        (4.0, "variances add; the standard deviations do not"),
        (1.41, "that is a standard deviation; the loss is its square"),
    ]
    mark_number("middle_loss", answer, 2.0, mistakes)


def pair_on_schedule(answer: object) -> None:
    """Chapter 05: `pair_on_schedule(x0, eps [B, ...], alpha, sigma, alpha_dot, sigma_dot [B])` to `[2, B, ...]`."""

    def wide(curve: Tensor, x: Tensor) -> Tensor:
        return curve.reshape(-1, *[1] * (x.ndim - 1))

    def pair(x0: Tensor, e: Tensor, *curves: Tensor) -> Tensor:
        a, s, a_dot, s_dot = (wide(curve, x0) for curve in curves)
        return torch.stack([a * x0 + s * e, a_dot * x0 + s_dot * e])

    mistakes = [
        (
            lambda x0, e, a, s, a_dot, s_dot: torch.stack([pair(x0, e, a, s, a_dot, s_dot)[0], e - x0]),
            "still the given bug: is eps - x0 the speed of x_t on a schedule that is not straight?",
        ),
        (
            lambda x0, e, a, s, a_dot, s_dot: pair(x0, e, a, s, -s, a),
            "that is the v of Salimans and Ho; ours is the derivative of x_t by t, another scaling of it",
        ),
        (
            lambda x0, e, a, s, a_dot, s_dot: pair(x0, e, a, s, -a_dot, s_dot),
            "alpha_dot is negative already; the minus sign counts twice",
        ),
        (
            lambda x0, e, a, s, a_dot, s_dot: pair(x0, e, a, s, s_dot, a_dot),
            "the two derivatives are exchanged: x0 is multiplied by alpha, eps by sigma",
        ),
        (
            lambda x0, e, a, s, a_dot, s_dot: torch.stack([pair(x0, e, a, s, a_dot, s_dot)[0], e]),
            "that is the target of a network that predicts eps",
        ),
        (
            lambda x0, e, a, s, a_dot, s_dot: pair(x0, e, a_dot, s_dot, a, s),
            "x_t comes first, then the target",
        ),
        (
            lambda x0, e, *curves: pair(x0, e, *(curve[:1].expand(len(x0)) for curve in curves)),
            "all rows got the time of the first one; each has its own",
        ),
    ]
    t = torch.tensor([0.1, 0.35, 0.7, 0.9])
    quarter = math.pi / 2  # a cosine schedule, and one that neither is straight nor preserves the variance
    cosine = [(quarter * t).cos(), (quarter * t).sin(), -quarter * (quarter * t).sin(), quarter * (quarter * t).cos()]
    inputs = [
        (random_tensor(4, 2, seed=1), random_tensor(4, 2, seed=2), *cosine),
        (
            random_tensor(3, 2, 5, seed=3),
            random_tensor(3, 2, 5, seed=4),
            1 - t[1:] ** 2,
            t[1:],
            -2 * t[1:],
            0 * t[1:] + 1,
        ),
    ]
    mark_function("pair_on_schedule", answer, pair, inputs, mistakes)


def loss_per_bin(answer: object) -> None:
    """Chapter 05: `loss_per_bin(error [B, D], t [B], bins)` to `[bins]`, the mean squared error of each bin of t."""

    def binned(error: Tensor, t: Tensor, bins: int, how: str = "mean", which: Tensor | None = None) -> Tensor:
        which = (t * bins).long().clamp(max=bins - 1) if which is None else which
        return torch.stack([getattr(error[which == k].square(), how)() for k in range(bins)])

    def rows(error: Tensor) -> Tensor:
        return error.square().mean(1, keepdim=True)

    mistakes = [
        (lambda e, t, k: binned(rows(e), t, k, "sum"), "that sums over the rows of a bin; take their mean"),
        (
            lambda e, t, k: binned(rows(e).sqrt(), t, k, "sum") * k / len(t),
            "you divide by the mean number of rows; each bin holds its own number",
        ),
        (
            lambda e, t, k: binned(e, t, k, which=(t * (k - 1)).round().long()),
            "times are rounded to the nearest bin, so the first and the last are half as wide",
        ),
        (
            lambda e, t, k: binned(e, t, k, which=(t * k).long()),
            "t = 1 belongs to the last bin, but your last bin leaves it out",
        ),
        (
            lambda e, t, k: binned(rows(e).sqrt() * e.shape[1] ** 0.5, t, k),
            "average over the coordinates as well; that sums them",
        ),
        (lambda e, t, k: binned(e.mean(1), t, k), "square first: averaged over coordinates, errors cancel"),
        (
            lambda e, t, k: binned(e, t, k, which=(t * k).ceil().long().sub(1).clamp(min=0)),
            "a time on an edge belongs to the bin that begins there",
        ),
        (
            lambda e, t, k: binned(e, t, k, which=t.argsort().argsort() * k // len(t)),
            "the bins are equally wide, not equally full",
        ),
        (lambda e, t, k: binned(e.abs().sqrt(), t, k), "that is the mean absolute error; the loss squares it"),
    ]
    times = torch.tensor([0.05, 0.9, 0.45, 0.7, 1.0, 0.3, 0.12, 0.2, 0.55, 0.97, 0.83, 0.0, 0.25, 0.5, 0.75])
    inputs = [
        (random_tensor(15, 2, seed=1) + 0.3, times, 4),
        (random_tensor(8, 3, seed=2) - 0.2, torch.tensor([0.1, 0.25, 0.6, 0.4, 0.8, 0.95, 1.0, 0.72]), 3),
    ]
    mark_function("loss_per_bin", answer, binned, inputs, mistakes)


def smooth_curve(answer: object) -> None:
    """Chapter 05: `smooth_curve(losses [N], decay)` to `[N]`: the running average from 0, divided by 1 - decay^n."""

    def smooth(x: Tensor, d: float, start: float = 0, new: float | None = None, shift: int | None = 0) -> Tensor:
        mean, out = start, []
        for n, value in enumerate(x, start=1):
            mean = d * mean + (1 - d if new is None else new) * value
            out.append(mean if shift is None else mean / (1 - d ** (n + shift)))
        return torch.stack(out)

    def overwritten(x: Tensor, d: float) -> Tensor:
        mean, out = 0, []
        for n, value in enumerate(x, start=1):
            mean = (d * mean + (1 - d) * value) / (1 - d**n)
            out.append(mean)
        return torch.stack(out)

    def exchanged(x: Tensor, d: float) -> Tensor:
        return smooth(x, 1 - d)

    mistakes = [
        (lambda x, d: smooth(x, d, shift=None), "not divided yet: the first values are pulled towards the start at 0"),
        (
            lambda x, d: smooth(x, d, start=x[0], shift=None),
            "that starts from the first loss, which then weighs far more than the others",
        ),
        (exchanged, "the two factors are exchanged: a decay near 1 keeps most of the old average"),
        (lambda x, d: smooth(x, d, shift=1), "the exponent is off by one: after the first loss it is 1"),
        (lambda x, d: smooth(x, d, shift=-1), "n starts at 1; at n = 0 you divide by 0"),
        (overwritten, "keep the uncorrected average for the next step"),
        (lambda x, d: smooth(x, d, shift=None) / (1 - d), "the divisor changes from step to step; yours is constant"),
        (
            lambda x, d: smooth(x, d, shift=None) / (1 - d ** len(x)),
            "the divisor changes from step to step; you took the last one for all",
        ),
        (
            lambda x, d: x.cumsum(0) / torch.arange(1, len(x) + 1),
            "that is the mean of all losses so far; decay is not used",
        ),
    ]
    inputs = [(1 + random_tensor(6, seed=1).square(), 0.9), (2 + random_tensor(4, seed=2), 0.7)]
    mark_function("smooth_curve", answer, smooth, inputs, mistakes)


def adam_change(answer: object) -> None:
    """Chapter 05: `adam_change(grads [N, D], lr)` to `[D]`, the change of the weights by N steps of Adam."""

    def adam(
        grads: Tensor,
        lr: float,
        b1: float = 0.9,
        b2: float = 0.999,
        correct: bool = True,
        power: float = 0.5,
        small: float = 1e-8,
        inside: float = 0.0,
        overwrite: str = "",
    ) -> Tensor:
        m, s, change = (torch.zeros(grads.shape[1]) for _ in range(3))
        for n, g in enumerate(grads, start=1):
            m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g.square()
            first, second = (1 - b1**n, 1 - b2**n) if correct else (1, 1)
            change = change - lr * (m / first) / ((s / second + inside) ** power + small)
            m = m / first if "m" in overwrite else m
            s = s / second if "s" in overwrite else s
        return change

    mistakes = [
        (
            lambda g, lr: -lr * g.sum(0),
            "that is plain gradient descent; Adam divides by the usual size of a gradient",
        ),
        (lambda g, lr: adam(g, lr, correct=False), "the averages are not corrected for their start at 0"),
        (lambda g, lr: adam(g, lr, power=1), "the square root on the average of the squares is missing"),
        (lambda g, lr: adam(g, lr, small=0.0, inside=1e-8), "the small number belongs outside the root"),
        (
            lambda g, lr: adam(g, lr, small=0.0),
            "the small number is missing: where all gradients are 0, you divide 0 by 0",
        ),
        (lambda g, lr: adam(g, lr, overwrite="m, s"), "keep the uncorrected averages for the next step"),
        (lambda g, lr: adam(g, lr, overwrite="m"), "keep the uncorrected average m for the next step"),
        (lambda g, lr: -adam(g, lr), "the step goes against the gradient: the sign is exchanged"),
        (lambda g, lr: adam(g, lr, b1=0.999, b2=0.9), "beta_1 and beta_2 are exchanged"),
        (lambda g, lr: adam(g, lr, b1=0.0), "the gradient itself takes the step; its running average should"),
        (lambda g, lr: adam(g, lr) - adam(g[:-1], lr), "that is the last step alone; asked for is the whole change"),
    ]
    inputs = [
        (random_tensor(5, 3, seed=1) + 0.4, 0.1),
        (random_tensor(3, 4, seed=2) * torch.arange(1, 5), 0.5),
        (1e-4 * random_tensor(4, 3, seed=3) * torch.tensor([1.0, 1.0, 0.0]), 0.1),  # tiny, and none at all
    ]
    mark_function("adam_change", answer, adam, inputs, mistakes)
