"""Checks of the practice notebook of chapter 13."""

import math

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def hidden_as_well(answer: object) -> None:
    """Chapter 13: the time at which 256 places hide a number as well as 64 places do at t = 0.5."""
    mistakes = [
        (0.8, "four times as many places do not make the mean four times as exact; how does the noise of a mean fall?"),
        (1 / 3, "more places see through more noise, so the time is later, not earlier"),
        (0.5, "at the same time the mean over more places is more exact, so the number is hidden less"),
        (2.0, "that is t' / (1 - t'), noise over signal; asked for is the time t' itself"),
        (1.0, "at t' = 1 nothing of the number is left; twice the noise over the signal is not twice the time"),
    ]
    mark_number("hidden_as_well", answer, 2 / 3, mistakes)


def read_words(answer: object) -> None:
    """Chapter 13: `read_words(scores [B, L, L], values [B, L, D], tokens [B, L])`, real words only, `[B, L, D]`."""

    def seen(tokens: Tensor, first: bool = True) -> Tensor:
        real = tokens != 0
        if first:
            real = real | (torch.arange(tokens.shape[1]) == 0)
        return real[:, None]  # [B, 1, L]

    def right(s: Tensor, v: Tensor, k: Tensor) -> Tensor:
        return s.masked_fill(~seen(k), -torch.inf).softmax(2) @ v

    rows = "that keeps padding from looking; it must not be looked AT. Which axis of the scores is that?"
    mistakes = [
        (
            lambda s, v, k: (s * seen(k, first=False)).softmax(2) @ v,
            "a score of 0 still has the weight e^0 = 1: padding is looked at. Which score has no weight?",
        ),
        (lambda s, v, k: (s * seen(k)).softmax(2) @ v, "a score of 0 still has the weight e^0 = 1. Which has none?"),
        (lambda s, v, k: s.softmax(2) @ v, "padding is looked at as if it were a word"),
        (
            lambda s, v, k: (s.softmax(2) * seen(k)) @ v,
            "padding is taken out after the softmax, so the weights of the words no longer sum to 1",
        ),
        (
            lambda s, v, k: (s.softmax(2) * seen(k, first=False)) @ v,
            "padding is taken out after the softmax, so the weights of the words no longer sum to 1",
        ),
        (
            lambda s, v, k: s.masked_fill(~seen(k).mT, -1e9).softmax(2) @ v,
            rows,
        ),
        (lambda s, v, k: s.masked_fill(~seen(k).mT, -torch.inf).softmax(2) @ v, rows),
        (lambda s, v, k: s.masked_fill(~seen(k, first=False).mT, -1e9).softmax(2) @ v, rows),
        (lambda s, v, k: s.masked_fill(~seen(k, first=False).mT, -torch.inf).softmax(2) @ v, rows),
        (
            lambda s, v, k: s.masked_fill(~seen(k, first=False), -1e9).softmax(2) @ v,
            "right where there are words; a caption without any should see its first place alone",
        ),
        (
            lambda s, v, k: s.masked_fill(~seen(k, first=False), -torch.inf).softmax(2) @ v,
            "right where there are words; a caption without any gives 0/0, not a number: what should it see?",
        ),
    ]
    tokens = torch.tensor([[3, 1, 2, 0, 0], [4, 9, 0, 0, 0], [0, 0, 0, 0, 0]])
    inputs = [(random_tensor(3, 5, 5, seed=s), random_tensor(3, 5, d, seed=s + 5), tokens) for s, d in ((1, 4), (2, 2))]
    mark_function("read_words", answer, right, inputs, mistakes)


def muon_direction(answer: object) -> None:
    """Chapter 13: `muon_direction(grad [n, m], rounds)`, Muon's rounds on the gradient over its norm, `[n, m]`."""

    def turn(x: Tensor) -> Tensor:
        square = x @ x.T
        return 3.4445 * x - 4.775 * square @ x + 2.0315 * square @ square @ x

    def repeat(x: Tensor, rounds: int) -> Tensor:
        for _ in range(rounds):
            x = turn(x)
        return x

    def every_time(x: Tensor, rounds: int) -> Tensor:
        for _ in range(rounds):
            x = turn(x / x.norm())
        return x

    def by_entry(x: Tensor, rounds: int) -> Tensor:
        x = x / x.norm()
        for _ in range(rounds):
            x = 3.4445 * x - 4.775 * x**3 + 2.0315 * x**5
        return x

    def fixed(x: Tensor, rounds: int) -> Tensor:
        x = x / x.norm()
        square = x @ x.T
        for _ in range(rounds):
            x = 3.4445 * x - 4.775 * square @ x + 2.0315 * square @ square @ x
        return x

    def squared_entries(x: Tensor, rounds: int) -> Tensor:
        x = x / x.norm()
        for _ in range(rounds):
            square = x @ x.T
            x = 3.4445 * x - 4.775 * square @ x + 2.0315 * square**2 @ x
        return x

    def cubic(x: Tensor, rounds: int) -> Tensor:
        x = x / x.norm()
        for _ in range(rounds):
            x = 3.4445 * x + (2.0315 - 4.775) * x @ x.T @ x
        return x

    mistakes = [
        (repeat, "the start is not divided by its norm, and singular values above 1 may fly off"),
        (lambda m, k: repeat(m / m.abs().max(), k), "divide by the Frobenius norm, not by the largest entry"),
        (
            lambda m, k: repeat(m / torch.linalg.matrix_norm(m, 2), k),
            "that divides by the largest singular value, which costs an SVD; asked for is the Frobenius norm",
        ),
        (fixed, "X changes in each round, and X X^T with it"),
        (squared_entries, "that squares the entries; (X X^T)^2 is a product of matrices"),
        (by_entry, "these are powers of the single entries; the formula has products of matrices"),
        (cubic, "the last term has X X^T twice"),
        (every_time, "divide by the norm once, before the first round"),
        (lambda m, k: repeat(m / m.norm(), 1), "that is one round, however many are asked for"),
        (lambda m, k: repeat(m / m.norm(), k + 1), "that is one round too many"),
        (lambda m, k: m / m.norm(), "that is the start; the rounds are missing"),
    ]
    inputs = [(0.5 * random_tensor(4, 6, seed=1), 2), (0.7 * random_tensor(5, 3, seed=2), 3)]
    mark_function("muon_direction", answer, lambda m, k: repeat(m / m.norm(), k), inputs, mistakes)


def uniform_loss(answer: object) -> None:
    """Chapter 13: `uniform_loss(errors [N], t [N], mean)`, the loss at uniform times, from logit-normal ones."""

    def bell(t: Tensor, mean: float) -> Tensor:
        return (-0.5 * (t.logit() - mean) ** 2).exp() / math.sqrt(2 * math.pi)

    def density(t: Tensor, mean: float) -> Tensor:
        return bell(t, mean) / (t * (1 - t))

    mistakes = [
        (lambda e, t, m: e.mean(), "that is the loss at the times as they were drawn"),
        (lambda e, t, m: (e * density(t, m)).mean(), "a time that is drawn too often must count less, not more"),
        (lambda e, t, m: (e / bell(t, m)).mean(), "the density has a factor 1 / (t (1 - t)) as well"),
        (
            lambda e, t, m: (e / density(t, m)).mean() / math.sqrt(2 * math.pi),
            "the root of 2 pi is missing: without it p is no density",
        ),
        (lambda e, t, m: (e / density(t, 0.0)).mean(), "the mean is not used: that fits m = 0 alone"),
        (lambda e, t, m: (e / density(t, -m)).mean(), "the mean has the wrong sign"),
        (
            lambda e, t, m: (e / density(t, m)).sum() / (1 / density(t, m)).sum(),
            "that divides by the sum of the weights; a plain mean divides by N",
        ),
        (lambda e, t, m: (e / density(t, m)).sum(), "that is the sum; asked for is the mean"),
        (lambda e, t, m: e / density(t, m), "those are the single terms; asked for is their mean, one number"),
    ]
    inputs = []
    for seed, n, mean in ((1, 6, 0.8), (2, 9, -0.4)):
        t = (mean + random_tensor(n, seed=seed)).sigmoid()
        inputs.append((random_tensor(n, seed=seed + 5).square() + 0.5, t, mean))
    mark_function("uniform_loss", answer, lambda e, t, m: (e / density(t, m)).mean(), inputs, mistakes)


def shifted_grid(answer: object) -> None:
    """Chapter 13: `shifted_grid(steps, shift)`, times from 1 to 0 for a sampler, equal steps shifted, `[steps + 1]`."""

    def shifted(t: Tensor, a: float) -> Tensor:
        return a * t / (1 + (a - 1) * t)

    def grid(n: int) -> Tensor:
        return torch.linspace(1, 0, n + 1)

    mistakes = [
        (lambda n, a: shifted(grid(n), 1 / a), "shifted towards the data: a large shift means more noise"),
        (lambda n, a: shifted(grid(n).flip(0), a), "a sampler walks from noise, t = 1, to data, t = 0"),
        (lambda n, a: shifted(grid(n - 1), a), "n steps have n + 1 ends"),
        (lambda n, a: shifted(grid(n), a)[:-1], "the last time, 0, is missing: the walk ends before the data"),
        (lambda n, a: shifted(grid(n), a)[1:], "the first time, 1, is missing: the walk starts at pure noise"),
        (lambda n, a: grid(n), "those are the equal steps; the shift is missing"),
        (lambda n, a: a * grid(n) / (1 + a * grid(n)), "t = 1 must stay 1: look at the denominator again"),
        (lambda n, a: (a * grid(n)).clamp(max=1), "the denominator is missing"),
        (lambda n, a: shifted(grid(n), math.exp(a)), "`shift` is alpha itself, not its logarithm"),
    ]
    mark_function("shifted_grid", answer, lambda n, a: shifted(grid(n), a), [(5, 3.0), (8, 1.5)], mistakes)
