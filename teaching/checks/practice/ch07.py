"""Checks of the practice notebook of chapter 07."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def one_stride(answer: object) -> None:
    """Chapter 07: where one Euler step from z = 0.6 at t = 1 ends; the data is -1 (chance 1/4) or 3 (3/4)."""
    mistakes = [
        (3.0, "that is the likelier value alone; at t = 1 nothing in z tells which of the two it will be"),
        (1.0, "that is the middle of the two values; they are not equally likely"),
        (0.6, "that is the start; the velocity there is not 0"),
        (-1.4, "that is the velocity; walk along it for the whole time, backwards"),
        (-0.8, "that walks with the velocity; sampling runs against the clock, from t = 1 to t = 0"),
        (2.6, "that leaves the noise in: the mean velocity at t = 1 holds z itself"),
    ]
    mark_number("one_stride", answer, 2.0, mistakes)


def error_in_velocity(answer: object) -> None:
    """Chapter 07: the loss on v at t = 0.2 on the straight path, where x0_hat has the mean squared error 0.2."""
    mistakes = [
        (0.2, "v is another unit: an error in x0 is divided by something to become one in v"),
        (1.0, "the errors are squared, so the factor is squared as well"),
        (3.2, "that is the loss on eps: an error of x0 is multiplied by 1 - t and divided by t there"),
        (0.008, "that multiplies by t^2; at small t a small error of x0 is a large one of v"),
        (0.2 / 0.64, "1 / (1 - t)^2 leads from the loss on eps to that on v; here the error of x0 is given"),
    ]
    mark_number("error_in_velocity", answer, 5.0, mistakes)


def cosine_time(answer: object) -> None:
    """Chapter 07: `cosine_time(t [B])`, the time `[B]` at which alpha = cos(pi u / 2) has the flow's sigma / alpha."""
    turn = 2 / math.pi
    mistakes = [
        (lambda t: t, "that is the flow's own time; at the same time the two schedules have different noise levels"),
        (lambda t: turn * t.asin(), "that makes sigma equal; alpha then differs, and so does the ratio"),
        (lambda t: turn * (1 - t).acos(), "that makes alpha equal; sigma then differs, and so does the ratio"),
        (lambda t: (t / (1 - t)).atan(), "that is the angle; the time is the angle divided by pi / 2"),
        (lambda t: turn * ((1 - t) / t).atan(), "the ratio is upside down: it must grow with t"),
        (lambda t: turn * (t / (1 - t)).sqrt().atan(), "the cosine is alpha itself, not alpha_bar: no root is needed"),
    ]
    inputs = [(torch.tensor([0.1, 0.3, 0.5, 0.9]),), (torch.tensor([0.02, 0.75]),)]
    mark_function("cosine_time", answer, lambda t: turn * (t / (1 - t)).atan(), inputs, mistakes)


def rescued_velocity(answer: object) -> None:
    """Chapter 07: `rescued_velocity(model, x [B, D], t [B])`, this course's velocity `[B, D]`, from a network of the
    buggy loss, with x_t = t x0 + (1 - t) eps and the target eps - x0."""

    def exact(model: Callable, x: Tensor, t: Tensor) -> Tensor:
        return model(x, 1 - t)

    mistakes = [
        (lambda m, x, t: m(x, t), "that is what the sampler does now: at t = 1 the network takes its input for data"),
        (lambda *z: -exact(*z), "the place and time are right; which way did the target in the buggy loss point?"),
        (lambda m, x, t: -m(x, t), "turned round, the answer is still one for another noise level; see what x_t holds"),
        (lambda m, x, t: m(x, -t), "the network never saw a negative time; its clock, too, runs between 0 and 1"),
        (lambda m, x, t: exact(m, -x, t), "x lies where it should: the buggy path mixes the same x0 and eps, unturned"),
        (lambda m, x, t: m((1 - t)[:, None] * x, 1 - t), "the place needs no factor: both paths are the same line"),
        (lambda m, x, t: x - t[:, None] * exact(m, x, t), "that is a guess of x0; the velocity is asked for"),
        (
            lambda m, x, t: (x - exact(m, x, t)) / t[:, None],
            "that takes the answer for a guess of x0; what was the network's target?",
        ),
    ]
    inputs = [
        (lambda x, t: (1 + t[:, None]) * (x + 1).sin(), random_tensor(n, d, seed=s), t)
        for n, d, s, t in ((4, 2, 1, torch.tensor([0.1, 0.4, 0.7, 0.9])), (3, 5, 2, torch.tensor([0.2, 0.3, 0.95])))
    ]
    mark_function("rescued_velocity", answer, exact, inputs, mistakes)


def path_with_floor(answer: object) -> None:
    """Chapter 07: `path_with_floor(x0 [B, D], eps [B, D], t [B], sigma_min)`, place and velocity `[2, B, D]`."""

    def path(x0: Tensor, eps: Tensor, t: Tensor, m: float, back: int = 1, place: float = 1, speed: float = 1) -> Tensor:
        s = (1 - t if back else t)[:, None]  # the paper's time
        x = (1 - (1 - place * m) * s) * eps + s * x0
        return torch.stack([x, (-1 if back else 1) * (x0 - (1 - speed * m) * eps)])

    def sign(*z: object) -> Tensor:
        return path(*z) * torch.tensor([1.0, -1.0])[:, None, None]

    def place_late(*z: object) -> Tensor:
        return torch.stack([path(*z, back=0)[0], path(*z)[1]])

    def floor_under_noise(x0: Tensor, e: Tensor, t: Tensor, m: float) -> Tensor:
        return torch.stack([(1 - (1 - m) * t[:, None]) * x0 + t[:, None] * e, e - (1 - m) * x0])

    mistakes = [
        (lambda *z: path(*z, back=0), "that is right on the paper's clock; here t = 0 is data"),
        (sign, "the place is right; the velocity is its derivative by OUR time"),
        (lambda *z: path(*z, speed=0), "the place is right; the velocity too feels sigma_min"),
        (lambda *z: path(*z, place=0), "the velocity is right; at t = 0 a little noise must be left"),
        (lambda *z: path(*z, place=0, speed=0), "that is the path with sigma_min = 0"),
        (place_late, "the velocity is right; the place still runs on the paper's clock"),
        (
            floor_under_noise,
            "that leaves a little data at the noise end; a little noise has to be left at the data end",
        ),
        (lambda x0, e, t, m: path(e, x0, t, m), "data and noise are exchanged: the paper's x0 is our eps"),
    ]
    inputs = [
        (random_tensor(4, 2, seed=1), random_tensor(4, 2, seed=2), torch.tensor([0.0, 0.2, 0.6, 1.0]), 0.1),
        (random_tensor(3, 5, seed=3), random_tensor(3, 5, seed=4), torch.tensor([0.3, 0.5, 0.9]), 0.3),
    ]
    mark_function("path_with_floor", answer, path, inputs, mistakes)


def nearest_pairs(answer: object) -> None:
    """Chapter 07: `nearest_pairs(x0 [B], eps [B])`, x0 `[B]` rearranged: the least mean of (eps - x0)^2."""

    def exact(x0: Tensor, eps: Tensor) -> Tensor:
        return x0.sort().values[eps.argsort().argsort()]

    mistakes = [
        (lambda x0, e: x0, "nothing is rearranged: these are the random pairs"),
        (lambda x0, e: x0.sort().values, "x0 is sorted, but eps is not: entry i must be the partner of eps[i]"),
        (
            lambda x0, e: x0.sort().values[e.argsort()],
            "argsort says which eps comes at each rank; you need the rank of each eps",
        ),
        (lambda x0, e: x0[e.argsort()], "x0 has to be in order before ranks can pick from it"),
        (
            lambda x0, e: x0[(e[:, None] - x0).abs().argmin(1)],
            "some points are used twice and some never, so the data's law is changed",
        ),
        (lambda x0, e: exact(x0, -e), "the smallest noise belongs to the smallest point, not to the largest"),
    ]
    inputs = [(random_tensor(n, seed=s) + 0.5, random_tensor(n, seed=s + 10)) for n, s in ((6, 1), (9, 2))]
    mark_function("nearest_pairs", answer, exact, inputs, mistakes)
