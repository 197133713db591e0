"""Checks of the practice notebook of chapter 06."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def flow_end(answer: object) -> None:
    """Chapter 06: where the flow from x_1 = -0.6 ends, for data of mean 2 and standard deviation 0.5."""
    mistakes = [
        (2.0, "that is the mean, where a single Euler step ends; the exact flow keeps the starts apart"),
        (1.4, "the distance from the middle shrinks on the way, since the data is narrower than the noise"),
        (2.3, "paths on a line cannot cross, so a start below the middle ends below the middle"),
        (1.85, "the distance from the middle scales with the standard deviation, not with the variance"),
        (-0.3, "the middle of the crowd moves as well, from 0 to the data's mean"),
        (-0.6, "that is the start; the flow moves it"),
    ]
    mark_number("flow_end", answer, 1.7, mistakes)


def two_step_spread(answer: object) -> None:
    """Chapter 06: the standard deviation after Euler steps 1 to 0.6 to 0, where data and noise have 1."""
    mistakes = [
        (1.0, "that is the data's, which the exact flow reaches; two steps make errors"),
        (0.0, "that is after one step from 1 to 0; after the first of two, x0_hat is no longer the mean"),
        (0.6, "that is after the first step only"),
        (0.55, "the last step is right, but it starts from Euler's points, not from the exact crowd"),
        (0.36, "the second step is not like the first: it ends on x0_hat"),
        (0.77, "that is the factor of the second step alone"),
        (0.72, "that is the exact crowd's at t = 0.6; how large is Euler's after its first step?"),
        (0.21, "that is a variance; the standard deviation is its root"),
    ]
    mark_number("two_step_spread", answer, 0.4 / 0.52 * 0.6, mistakes)


def steps_to_visit(answer: object) -> None:
    """Chapter 06: `steps_to_visit(total, n)` to `[n]`: where n equal strides from total to 0 begin, rounded."""

    def exact(total: int, n: int) -> Tensor:
        return torch.tensor([round(total * (n - i) / n) for i in range(n)])

    mistakes = [
        (
            lambda total, n: total // n * torch.arange(n - 1, -1, -1) + 1,
            "still the given bug: what does the sampler start from, and what is the network told at its first call?",
        ),
        (lambda total, n: exact(total, n) - 1, "the steps count from 1 to total here, and total is pure noise"),
        (
            lambda total, n: torch.linspace(total, 1, n).round(),
            "that calls at step 1 as well, for a last stride of 1 only; all strides are equally long",
        ),
        (lambda total, n: torch.linspace(total, 0, n).round(), "at 0 there is nothing left to denoise"),
        (lambda total, n: exact(total, n).flip(0), "right steps, but a sampler goes down from noise to data"),
        (
            lambda total, n: total - total // n * torch.arange(n),
            "the stride itself is rounded down, and the lost parts add up; round the steps",
        ),
        (
            lambda total, n: torch.tensor([total * (n - i) // n for i in range(n)]),
            "rounded down; round to the nearest whole number",
        ),
        (
            lambda total, n: total // n * torch.arange(n, 0, -1),
            "the stride is rounded down, so the first call may miss total; round the steps, not the stride",
        ),
        (lambda total, n: total - total / n * torch.arange(n), "each step is to be rounded"),
    ]
    mark_function("steps_to_visit", answer, exact, [(1000, 10), (1000, 3), (50, 7)], mistakes)


def dice_step(answer: object) -> None:
    """Chapter 06: `dice_step(x0_hat [B, D], eps_hat [B, D], alpha_s, sigma_s, tau, z [B, D])` to x_s `[B, D]`."""

    def step(x0: Tensor, e: Tensor, a: float, s: float, tau: float, z: Tensor, kept: Callable | None = None) -> Tensor:
        return a * x0 + (kept(a, s, tau) if kept else (s**2 - tau**2) ** 0.5) * e + tau * z

    mistakes = [
        (
            lambda *args: step(*args, kept=lambda a, s, tau: s),
            "still the given bug: how large is the variance of both noises together, and how large should it be?",
        ),
        (lambda *args: step(*args, kept=lambda a, s, tau: s - tau), "standard deviations do not add; variances do"),
        (lambda *args: step(*args, kept=lambda a, s, tau: s**2 - tau**2), "the square root is missing"),
        (
            lambda *args: step(*args, kept=lambda a, s, tau: (1 - a**2 - tau**2) ** 0.5),
            "1 - alpha^2 is sigma^2 only on schedules that preserve the variance",
        ),
        (
            lambda *args: step(*args, kept=lambda a, s, tau: (1 - tau**2) ** 0.5),
            "the two noises together have the variance sigma_s^2, not 1",
        ),
        (
            lambda x0, e, a, s, tau, z: step(x0, e, a, s, tau, 0 * z),
            "the old noise makes room, but no fresh noise takes its place",
        ),
        (lambda x0, e, a, s, tau, z: step(x0, z, a, s, tau, e), "the guessed and the fresh noise are exchanged"),
    ]
    inputs = [
        (random_tensor(4, 2, seed=1), random_tensor(4, 2, seed=2), a, s, tau, random_tensor(4, 2, seed=3))
        for a, s, tau in ((0.6, 0.5, 0.3), (0.5, 0.4, 0.2))
    ]
    mark_function("dice_step", answer, step, inputs, mistakes)


def measured_order(answer: object) -> None:
    """Chapter 06: `measured_order(steps [K], errors [K])`, the order p of the best line ln(error) = ln C - p ln n."""

    def slope(a: Tensor, b: Tensor) -> Tensor:
        a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
        return (a * b).sum() / a.square().sum()

    mistakes = [
        (lambda n, e: slope(n.log(), e.log()), "the line falls, and an order is positive: the sign is exchanged"),
        (lambda n, e: -slope(n, e), "a power law is a straight line only on logarithmic axes"),
        (lambda n, e: -slope(n, e.log()), "the steps need the logarithm as well"),
        (lambda n, e: -slope(e.log(), n.log()), "steps and errors are exchanged: that is about 1 / p"),
        (
            lambda n, e: (e[:-1] / e[1:]).log2().mean(),
            "that is the number of halvings a row; it is the order only if the steps double each time",
        ),
        (
            lambda n, e: (e[0] / e[-1]).log() / (n[-1] / n[0]).log(),
            "that uses the first and the last error alone; all are to count",
        ),
        (
            lambda n, e: -(n.log() * e.log()).sum() / n.log().square().sum(),
            "that line is forced through the origin; subtract both means first",
        ),
        (
            lambda n, e: -(e.log().diff() / n.log().diff()).mean(),
            "not every pair counts alike in least squares",
        ),
    ]
    steps = torch.tensor([10.0, 25.0, 40.0, 160.0])
    inputs = [
        (steps, 0.7 / steps * torch.tensor([1.1, 0.8, 1.2, 0.9])),
        (steps[:3], 3 / steps[:3] ** 2 * torch.tensor([0.9, 1.2, 1.0])),
    ]
    mark_function("measured_order", answer, lambda n, e: -slope(n.log(), e.log()), inputs, mistakes)


def encode(answer: object) -> None:
    """Chapter 06: `encode(denoise, x [B, D], times [K])` to `[B, D]`: Euler's steps upwards on rectified flow."""

    def at(denoise: Callable, x: Tensor, t: Tensor) -> Tensor:
        return denoise(x, t.expand(len(x)))

    def walk(
        denoise: Callable, x: Tensor, times: Tensor, sign: int = 1, late: bool = False, wrong: bool = False
    ) -> Tensor:
        for t, s in pairwise(times):
            x = x + sign * (s - t) * (x - at(denoise, x, s if late else t)) / (s if late or wrong else t)
        return x

    def without(denoise: Callable, x: Tensor, times: Tensor, step: bool = True, time: bool = True) -> Tensor:
        for t, s in pairwise(times):
            x = x + (s - t if step else 1) * (x - at(denoise, x, t)) / (t if time else 1)
        return x

    def one_velocity(denoise: Callable, x: Tensor, times: Tensor) -> Tensor:
        return x + (times[-1] - times[0]) * (x - at(denoise, x, times[0])) / times[0]

    def with_guess(denoise: Callable, x: Tensor, times: Tensor) -> Tensor:
        return at(denoise, walk(denoise, x, times[:-1]), times[-2])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return x.tanh() * (1 - 0.5 * t[:, None]) + 0.1

    mistakes = [
        (lambda *z: walk(*z, sign=-1), "the clock runs upwards now, so s - t is positive"),
        (lambda *z: walk(*z, late=True), "the velocity belongs to the time where the step begins, t, not s"),
        (lambda *z: walk(*z, wrong=True), "the guess is made at t, but you divide by s"),
        (lambda *z: without(*z, step=False), "the velocity is not yet multiplied by the step"),
        (lambda *z: without(*z, time=False), "x - x0_hat is a way, not yet a velocity: over what time is it gone?"),
        (one_velocity, "the velocity must be looked up again at each step"),
        (lambda d, x, times: walk(d, x, times[:-1]), "the last step is missing: the walk ends at the last time"),
        (with_guess, "returning x0_hat belongs to the step that ends at t = 0; upwards all steps are alike"),
    ]
    inputs = [
        (denoise, random_tensor(4, 2, seed=1), torch.tensor([0.2, 0.35, 0.6, 1.0])),
        (denoise, random_tensor(3, 5, seed=2), torch.tensor([0.1, 0.15, 0.3])),
    ]
    mark_function("encode", answer, walk, inputs, mistakes)
