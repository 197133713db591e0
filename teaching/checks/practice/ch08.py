"""Checks of the practice notebook of chapter 08."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def tokens_in_balance(answer: object) -> None:
    """Chapter 08: the number of tokens N at which pairs, 2 N^2 d, cost as much as 12 N d^2, for d = 64."""
    mistakes = [
        (64.0, "N = d would need equal factors; here they are 12 and 2"),
        (768.0, "a pair of tokens costs 2 d, not d"),
        (math.sqrt(384), "every token passes the linear layers: their cost grows with N as well"),
        (24576.0, "divide both sides by 2 N d; one d is left over in yours"),
        (6.0, "that is N / d; the number of tokens is asked for"),
    ]
    mark_number("tokens_in_balance", answer, 384.0, mistakes)


def first_to_learn(answer: object) -> None:
    """Chapter 08: how many of the 30 weight tensors of a new DiT of depth 2 get a gradient in the first step."""
    mistakes = [
        (30.0, "a gradient goes back through the last layer, and that multiplies it by 0"),
        (0.0, "a weight of 0 can have a gradient: error times input, and this input is not 0"),
        (1.0, "the last layer has a bias too"),
        (4.0, "the last scale and shift act through the last layer, whose weights are still 0"),
        (10.0, "that is the second step, when the last layer is no longer 0"),
    ]
    mark_number("first_to_learn", answer, 2.0, mistakes)


def linear_baseline(answer: object) -> None:
    """Chapter 08: `linear_baseline(images [N, D], t)`, the best linear answer's error of x0 at the time t, a number."""

    def error(x: Tensor, t: float, centre: int = 1, power: float = 1, top: float | None = None, n: int = 0) -> Tensor:
        x = (x - centre * x.mean(0)).double()
        lam = torch.linalg.eigvalsh(x.T @ x / (len(x) - n)).clamp(min=0) ** power
        return ((t**2 if top is None else top) * lam / ((1 - t) ** 2 * lam + t**2)).mean()

    def by_pixels(x: Tensor, t: float) -> Tensor:
        lam = x.var(0, correction=0)
        return (t**2 * lam / ((1 - t) ** 2 * lam + t**2)).mean()

    def unsquared(x: Tensor, t: float) -> Tensor:
        lam = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).clamp(min=0)
        return (t**2 * lam / ((1 - t) * lam + t)).mean()

    def of_columns(x: Tensor, t: float) -> Tensor:
        lam = torch.linalg.eigvalsh(torch.cov(x.double(), correction=0)).clamp(min=0)
        return (t**2 * lam / ((1 - t) ** 2 * lam + t**2)).mean()

    mistakes = [
        (by_pixels, "those are the pixels' own variances; first turn the axes so that nothing is correlated"),
        (lambda x, t: error(x, t, centre=0), "subtract the mean image: a linear answer may hold a constant"),
        (lambda x, t: error(x, t, power=0.5), "lambda is a variance, not a standard deviation"),
        (unsquared, "both factors are squared: variances add"),
        (lambda x, t: error(x, t) * x.shape[1], "the error is a mean over the directions; that sums them"),
        (lambda x, t: error(x, t, top=1), "that is the loss on v; asked is the error of x0"),
        (lambda x, t: error(x, t, top=t), "the errors are squared, so the factor is squared as well"),
        (lambda x, t: error(x, t, top=1 / t**2), "the factor goes the other way: the loss on v is the larger one"),
        (lambda x, t: error(x, t, top=(1 - t) ** 2), "that is the loss on eps; asked is the error of x0"),
        (of_columns, "cov takes variables in rows; here the images are the rows"),
        (lambda x, t: error(x, t, n=1), "cov divides by N - 1 unless told otherwise; here divide by N (correction=0)"),
    ]
    mix = torch.tensor([[2.0, 1.0, 0.0, 0.0], [0.0, 0.5, 1.0, 0.0], [0.0, 0.0, 0.3, 0.2], [0.0, 0.0, 0.0, 0.1]])
    inputs = [(random_tensor(12, 4, seed=1) @ mix + 1, 0.3), (random_tensor(9, 4, seed=2) @ mix - 0.5, 0.8)]
    mark_function("linear_baseline", answer, error, inputs, mistakes)


def coloured_patches(answer: object) -> None:
    """Chapter 08: `coloured_patches(tokens [B, rows columns, p p C], p, rows, columns, C)`, `[B, C, rows p, ...]`."""

    def put(order: tuple[int, ...], swapped: bool = False, colour_first: bool = False) -> Callable:
        def back(x: Tensor, p: int, rows: int, columns: int, c: int) -> Tensor:
            grid = (columns, rows) if swapped else (rows, columns)
            inner = (c, p, p) if colour_first else (p, p, c)
            return x.reshape(len(x), *grid, *inner).permute(order).reshape(len(x), c, rows * p, columns * p)

        return back

    mistakes = [
        (put((0, 3, 1, 4, 2, 5), colour_first=True), "still the buggy one: which of p, p and C changes fastest?"),
        (put((0, 5, 1, 4, 2, 3)), "the colours are right; rows and columns inside the patches are exchanged"),
        (put((0, 5, 2, 3, 1, 4), swapped=True), "the colours are right; rows and columns of the grid are exchanged"),
        (put((0, 5, 3, 1, 4, 2)), "in each axis the grid comes first and the place in the patch second"),
        (put((0, 1, 2, 3, 4, 5)), "a reshape alone does not move numbers; bring each axis's two parts together"),
    ]
    inputs = [(random_tensor(2, 12, 12, seed=1), 2, 3, 4, 3), (random_tensor(3, 10, 18, seed=2), 3, 5, 2, 2)]
    mark_function("coloured_patches", answer, put((0, 5, 1, 3, 2, 4)), inputs, mistakes)


def attention_with_padding(answer: object) -> None:
    """Chapter 08: `attention_with_padding(q [N, D], k [M, D], v [M, D], real [M])`, real is True where it counts."""

    def attend(q: Tensor, k: Tensor, v: Tensor, real: Tensor, fill: float = -torch.inf) -> Tensor:
        return torch.softmax((q @ k.T / math.sqrt(q.shape[1])).masked_fill(~real, fill), dim=1) @ v

    def afterwards(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        return torch.softmax(q @ k.T / math.sqrt(q.shape[1]), dim=1) * real @ v

    mistakes = [
        (lambda q, k, v, real: attend(q, k, v, ~real), "the mask is flipped: only the padding is looked at"),
        (lambda *z: attend(*z, fill=0.0), "a score of 0 (or 1e-9) is not 'never': the softmax makes exp(0) = 1 of it"),
        (afterwards, "the weights no longer sum to 1: the padding took its share before it was removed"),
        (lambda q, k, v, real: attend(q, k, v, real | True), "the mask is not used"),
        (lambda *z: attend(*z, fill=-1.0), "-1 is an ordinary score; what may not be seen needs minus infinity"),
        (
            lambda *z: attend(*z, fill=-10.0),
            "-10 is small, but not 'never': a little of the padding leaks through; it needs minus infinity",
        ),
    ]
    masks = torch.tensor([True, True, False, True, False]), torch.tensor([False, True, True, True])
    inputs = []
    for m in masks:
        q, k, v = random_tensor(3, 6, seed=1), random_tensor(len(m), 6, seed=2), random_tensor(len(m), 6, seed=3)
        v[~m] = 1e4  # loud, so that the smallest leak is heard
        inputs.append((q, k, v, m))
    mark_function("attention_with_padding", answer, attend, inputs, mistakes)


def rotate_halves(answer: object) -> None:
    """Chapter 08: `rotate_halves(x [N, D], angles [N, D / 2])`, numbers i and i + D / 2 turned as a pair."""

    def turn(x: Tensor, angles: Tensor, beside: bool = False, back: int = 1, dealt: bool = False) -> Tensor:
        a, b = (x[:, 0::2], x[:, 1::2]) if beside else x.chunk(2, dim=1)
        cos, sin = angles.cos(), back * angles.sin()
        pair = a * cos - b * sin, a * sin + b * cos
        return torch.stack(pair, dim=2).flatten(1) if beside or dealt else torch.cat(pair, dim=1)

    def one_sign(x: Tensor, angles: Tensor) -> Tensor:
        (a, b), cos, sin = x.chunk(2, dim=1), angles.cos(), angles.sin()
        return torch.cat([a * cos + b * sin, a * sin + b * cos], dim=1)

    def overwritten(x: Tensor, angles: Tensor) -> Tensor:
        (a, b), cos, sin = x.chunk(2, dim=1), angles.cos(), angles.sin()
        a = a * cos - b * sin
        return torch.cat([a, a * sin + b * cos], dim=1)

    mistakes = [
        (
            lambda *z: turn(*z, beside=True),
            "that pairs 2 i and 2 i + 1, as the library does; here i and i + D / 2 are pairs",
        ),
        (lambda *z: turn(*z, dealt=True), "the pairs are turned, but not put back into their own places"),
        (lambda *z: turn(*z, back=-1), "that turns the other way: the minus belongs to the first number of a pair"),
        (one_sign, "a turn keeps lengths; one of the two sines needs a minus"),
        (
            overwritten,
            "the second number of a pair was computed from the first one already turned; keep the old values",
        ),
        (lambda x, a: turn(x, a % 1), "the angles are in radians, not in turns"),
    ]
    inputs = [(random_tensor(n, d, seed=n), 3 * random_tensor(n, d // 2, seed=n + 5)) for n, d in ((3, 6), (5, 8))]
    mark_function("rotate_halves", answer, turn, inputs, mistakes)
