"""Checks of the exercises in chapter 16."""

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def state_gigabytes(answer: object) -> None:
    """Chapter 16: GB of weights, gradients, Adam's two moments and average of 2e9 parameters, 4 bytes each."""
    mistakes = [
        (8.0, "those are the weights alone; training also holds gradients, two moments and the average"),
        (16.0, "weights and gradients; Adam keeps two more numbers for each weight, and the average one"),
        (24.0, "Adam keeps two moments, not one; the average counts, too"),
        (32.0, "one kind is missing: weights, gradients, two moments and the running average make five"),
        (20.0, "right kinds, but two bytes a number; here every number takes four"),
        (10.0, "that is how many billion numbers there are; each takes four bytes"),
        (5.0, "each device holds all of it: without sharding, eight devices do not make the share smaller"),
        (40e9, "in GB, please: 1e9 bytes are one"),
        (37.25, "these are GiB of 2^30 bytes; a GB is 1e9 bytes"),
        (64.0, "those are the weights alone on all eight devices; asked for is everything on one"),
        (160.0, "20 bytes for each parameter is right; but asked for is one device, with 2 billion parameters"),
        (320.0, "that is what all eight devices hold together; asked for is one of them"),
    ]
    mark_number("state_gigabytes", answer, 40.0, mistakes)


def shared_mean(answer: object) -> None:
    """Chapter 16: `shared_mean(gradients [n, P], rows [n])`, of the whole batch, from means over unequal shares."""

    def right(gradients: Tensor, rows: Tensor) -> Tensor:
        return (rows[:, None] * gradients).sum(0) / rows.sum()

    mistakes = [
        (lambda g, r: g.sum(0), "that is the sum, as all-reduce leaves it; the step would be n times too long"),
        (lambda g, r: g.sum(0) / r.sum(), "each row is a mean over its rows; multiply by `rows` before you add"),
        (lambda g, r: g.mean(0), "a process with few rows would count as much as one with many; weigh by rows"),
        (lambda g, r: (r[:, None] * g).sum(0), "weighed right; now divide by the number of all rows"),
        (lambda g, r: (r[:, None] * g).mean(0), "divide by the number of all rows, not of the processes"),
        (lambda g, r: (g / r[:, None]).sum(0), "each row of `gradients` is a mean already; multiply by its rows"),
        (lambda g, r: g[0], "that is the first process alone: nobody talked to the others"),
        (lambda g, r: g[r.argmax()], "that is the process with the most rows; the others learned something, too"),
    ]
    inputs = [
        (random_tensor(3, 5, seed=1), torch.tensor([2.0, 5.0, 9.0])),
        (random_tensor(2, 4, seed=2), torch.tensor([1.0, 7.0])),
    ]
    mark_function("shared_mean", answer, right, inputs, mistakes)


def merged_attention(answer: object) -> None:
    """Chapter 16: `merged_attention(outputs [n, N, D], logsums [n, N])`, of all keys, from softmaxes over n parts."""

    def right(outputs: Tensor, logsums: Tensor) -> Tensor:
        return (logsums.softmax(0)[..., None] * outputs).sum(0)

    mistakes = [
        (lambda o, s: o.mean(0), "parts count by the sum of their exponentials, not equally"),
        (lambda o, s: o.sum(0), "the weights of a softmax add up to 1; those of n parts, added, to n"),
        (lambda o, s: (s.exp()[..., None] * o).sum(0), "weighed right; now divide by the sum over all parts"),
        (
            lambda o, s: (s.exp()[..., None] * o).sum(0) / s.sum(0)[..., None],
            "divide by the sum of the exponentials, s.exp().sum(0), not of their logarithms",
        ),
        (
            lambda o, s: (s.softmax(0)[..., None] * o).mean(0),
            "the weights add up to 1 already: add over the parts, do not average",
        ),
        (lambda o, s: (s[..., None] * o).sum(0) / s.sum(0)[..., None], "logsums are logarithms; take exp first"),
        (lambda o, s: (s.softmax(1)[..., None] * o).sum(0), "the weights add up to 1 over the parts, dim 0"),
        (
            lambda o, s: o.gather(0, s.argmax(0)[None, :, None].expand(1, *o.shape[1:]))[0],
            "that is the part with the largest sum alone; the others still count",
        ),
        (
            lambda o, s: ((s - s.amax()).exp() / (s - s.amax()).exp().sum())[..., None].mul(o).sum(0),
            "each query, a row of N, has its own sum over the parts",
        ),
    ]
    inputs = [(random_tensor(n, 6, 3, seed=n), 2 * random_tensor(n, 6, seed=9 + n)) for n in (2, 4)]
    mark_function("merged_attention", answer, right, inputs, mistakes)
