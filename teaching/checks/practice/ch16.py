"""Checks of the practice notebook of chapter 16."""

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu

from sora_lib.marking import mark_function, mark_number, random_tensor


def stuck_at(answer: object) -> None:
    """Chapter 16: where a bfloat16 weight ends that starts at 0 and gets 0.001 added a thousand times."""
    mistakes = [
        (1.0, "that is exact arithmetic; how far apart are a weight of 0.9 and its neighbours?"),
        (0.25, "from 0.25 on the numbers lie 1/512 apart; 0.001 is just more than half of that, so it still moves"),
        (0.125, "from 0.125 on the numbers lie 1/1024 apart, about 0.001: each step moves to the next one"),
        (0.0, "near 0 the numbers lie close together: at first nothing is lost"),
        (0.75, "it moves as long as 0.001 is more than half the distance to the next number; is it, at 0.6?"),
        (2.0, "that is more than in exact arithmetic"),
    ]
    mark_number("stuck_at", answer, 0.5, mistakes)


def own_rows(answer: object) -> None:
    """Chapter 16: `own_rows(size, processes, process)`, the rows of one process, each row once, in order."""

    def right(size: int, n: int, i: int) -> Tensor:
        each, more = divmod(size, n)
        first = i * each + min(i, more)
        return torch.arange(first, first + each + (i < more))

    def run(first: int, length: int) -> Tensor:
        return torch.arange(first, first + length)

    def last_takes_rest(size: int, n: int, i: int) -> Tensor:
        return run(i * (size // n), size // n + (size % n if i == n - 1 else 0))

    def longer_last(size: int, n: int, i: int) -> Tensor:
        each, short = size // n, n - size % n
        return run(i * each + max(0, i - short), each + (i >= short))

    mistakes = [
        (lambda s, n, i: run(i * (s // n), s // n), "the last size % processes rows are nobody's"),
        (
            lambda s, n, i: torch.arange(s)[i * math.ceil(s / n) : (i + 1) * math.ceil(s / n)],
            "rounded up for all, so the last process has far less to do, or nothing",
        ),
        (lambda s, n, i: torch.arange(s)[i::n], "every n-th row: each once, but a process has neighbouring rows here"),
        (last_takes_rest, "the last process takes all that is left over, and the others wait for it"),
        (
            lambda s, n, i: run(i * math.ceil(s / n), math.ceil(s / n)) % s,
            "filled up with rows from the start, which count twice in a score",
        ),
        (longer_last, "the longer runs belong to the first processes"),
        (
            lambda s, n, i: run(i * (s // n + 1), s // n + (i < s % n)),
            "not all runs before yours are of the longer kind",
        ),
        (
            lambda s, n, i: run(i * (s // n), s // n + (i < s % n)),
            "runs of the right length that overlap: of the runs before yours some are longer by one, too",
        ),
        (
            lambda s, n, i: run(i * (s // n) + min(i, s % n), s // n),
            "right start; the first size % processes runs are longer by one",
        ),
        (lambda s, n, i: len(right(s, n, i)), "that is how many rows it has; asked for are their numbers"),
        (lambda s, n, i: 1 + right(s, n, i), "rows are counted from 0"),
    ]
    inputs = [(11, 4, 0), (11, 4, 1), (11, 4, 3), (12, 4, 2), (3, 5, 3), (50, 8, 1), (50, 8, 5)]
    mark_function("own_rows", answer, right, inputs, mistakes)


def clip_shards(answer: object) -> None:
    """Chapter 16: `clip_shards(shards [n, P / n], limit)`, clipped by the length of the whole gradient."""

    def scaled(shards: Tensor, limit: float, length: Tensor) -> Tensor:
        return shards * (limit / length).clamp(max=1)

    def right(shards: Tensor, limit: float) -> Tensor:
        return scaled(shards, limit, shards.norm())

    def each(shards: Tensor) -> Tensor:
        return shards.norm(dim=1)

    mistakes = [
        (
            lambda s, c: scaled(s, c, each(s)[:, None]),
            "each shard is clipped by its own length, so the direction of the whole changes",
        ),
        (
            lambda s, c: scaled(s, c / len(s) ** 0.5, each(s)[:, None]),
            "never longer than the limit; but each shard is clipped by its own length, and the direction changes",
        ),
        (lambda s, c: s * c / s.norm(), "a gradient that is short enough stays as it is"),
        (lambda s, c: s * (c / s.norm()).clamp(min=1), "that makes short gradients longer and leaves the long ones"),
        (lambda s, c: scaled(s, c, each(s).sum()), "lengths do not add up; their squares do"),
        (lambda s, c: scaled(s, c, each(s).mean()), "that is a mean of lengths; their squares add up"),
        (lambda s, c: scaled(s, c, each(s).max()), "that is the longest shard alone; the whole is longer"),
        (lambda s, c: scaled(s, c, s.square().sum()), "the root is missing: that is the square of the length"),
        (lambda s, c: scaled(s, c, s.square().mean().sqrt()), "the length has a sum under the root, not a mean"),
        (lambda s, c: scaled(s, c, s.abs().sum()), "that is the sum of sizes; the length is a root of squares"),
        (lambda s, c: s.clamp(-c, c), "that cuts off single numbers, and the direction changes"),
        (lambda s, c: scaled(s, 1.0, s.norm()), "the limit is not used"),
        (lambda s, c: s, "nothing is clipped"),
    ]
    uneven = torch.tensor([[0.3], [1.0], [4.0], [2.0]])
    inputs = [
        (random_tensor(4, 3, seed=1) * uneven, 1.0),
        (2 * random_tensor(2, 5, seed=2), 2.5),
        (0.2 * random_tensor(3, 4, seed=3), 3.0),
    ]
    mark_function("clip_shards", answer, right, inputs, mistakes)


def mlp_parts(answer: object) -> None:
    """Chapter 16: `mlp_parts(x, A, a, B, b, n)`, what n devices have before they add up, `[n, N, d]`."""

    def parts(hidden: list[Tensor], B: Tensor) -> Tensor:
        return torch.stack([h @ w for h, w in zip(hidden, B.chunk(len(hidden)), strict=True)])

    def hidden(x: Tensor, A: Tensor, a: Tensor, n: int) -> list[Tensor]:
        return [gelu(x @ w + c) for w, c in zip(A.chunk(n, dim=1), a.chunk(n), strict=True)]

    def first(b: Tensor, n: int) -> Tensor:
        return torch.eye(n)[0][:, None, None] * b  # b at device 0, 0 at the others

    def right(x: Tensor, A: Tensor, a: Tensor, B: Tensor, b: Tensor, n: int) -> Tensor:
        return parts(hidden(x, A, a, n), B) + first(b, n)

    def whole(x: Tensor, A: Tensor, a: Tensor, B: Tensor, b: Tensor, n: int) -> Tensor:
        return gelu(x @ A + a) @ B + b

    def by_rows(x: Tensor, A: Tensor, a: Tensor, B: Tensor, b: Tensor, n: int) -> Tensor:
        pieces = zip(x.chunk(n, dim=1), A.chunk(n), strict=True)
        return torch.stack([gelu(part @ w + a) @ B for part, w in pieces]) + first(b, n)

    def every_nth(x: Tensor, A: Tensor, a: Tensor, B: Tensor, b: Tensor, n: int) -> Tensor:
        return torch.stack([gelu(x @ A[:, i::n] + a[i::n]) @ B[i::n] for i in range(n)]) + first(b, n)

    def second_by_columns(x: Tensor, A: Tensor, a: Tensor, B: Tensor, b: Tensor, n: int) -> Tensor:
        return torch.stack([gelu(x @ A + a) @ w for w in B.chunk(n, dim=1)])

    def no_gelu(x: Tensor, A: Tensor, a: Tensor, B: Tensor, b: Tensor, n: int) -> Tensor:
        linear = [x @ w + c for w, c in zip(A.chunk(n, dim=1), a.chunk(n), strict=True)]
        return parts(linear, B) + first(b, n)

    mistakes = [
        (lambda x, A, a, B, b, n: right(x, A, a, B, 0 * b, n) + b, "each device adds b, so the sum has it n times"),
        (lambda x, A, a, B, b, n: right(x, A, a, B, 0 * b, n), "b is missing: device 0 adds it"),
        (
            lambda x, A, a, B, b, n: right(x, A, a, B, 0 * b, n) + b / n,
            "the sum is right; but here device 0 alone adds b",
        ),
        (lambda x, A, a, B, b, n: right(x, A, 0 * a, B, b, n), "a is missing: each device adds its part of it"),
        (by_rows, "A is cut by rows: GELU gets parts of sums, and the GELU of a sum is no sum of GELUs"),
        (every_nth, "each device has every n-th hidden number; asked for is one run of them"),
        (second_by_columns, "B is cut by columns: each device would need all hidden numbers, a message more"),
        (no_gelu, "the GELU is missing"),
        (
            lambda *args: whole(*args)[None].expand(args[-1], -1, -1) / args[-1],
            "each device computes everything; nothing is cut",
        ),
        (
            lambda *args: whole(*args)[None].expand(args[-1], -1, -1),
            "each device computes everything, and the sum is n times too large",
        ),
        (whole, "that is y, after the adding up; asked for is what each device has before"),
    ]
    inputs = []
    for seed, N, d, m, n in ((1, 5, 6, 8, 2), (2, 3, 4, 12, 4)):
        shapes = ((N, d), (d, m), (m,), (m, d), (d,))
        inputs.append((*(random_tensor(*shape, seed=9 * seed + k) for k, shape in enumerate(shapes)), n))
    mark_function("mlp_parts", answer, right, inputs, mistakes)


def gpu_days(answer: object) -> None:
    """Chapter 16: `gpu_days(tokens, width, depth, clips, peak, utilisation)`, with blocks computed twice."""

    def forward(tokens: int, width: int, depth: int, clips: float) -> float:
        return clips * depth * (24 * tokens * width**2 + 4 * tokens**2 * width)

    def right(N: int, d: int, depth: int, clips: float, peak: float, share: float, times: float = 4) -> float:
        return times * forward(N, d, depth, clips) / (peak * share) / 86400

    def matrices(N: int, d: int, depth: int, clips: float, peak: float, share: float) -> float:
        return 4 * clips * depth * 24 * N * d**2 / (peak * share) / 86400

    mistakes = [
        (lambda *p: right(*p, times=3), "the forward pass is computed a second time, which costs once more"),
        (lambda *p: right(*p, times=1), "that is the forward pass alone"),
        (lambda *p: right(*p, times=6), "what is computed a second time is the forward pass, not all of it"),
        (lambda *p: right(*p, times=2), "half of it: forward, forward again, and backward, twice as dear, make four"),
        (matrices, "the pairs are missing"),
        (
            lambda N, *p: matrices(N, *p) + (right(N, *p) - matrices(N, *p)) / N,
            "the pairs of tokens grow with N squared",
        ),
        (lambda *p: right(*p) * p[5] ** 2, "a GPU that reaches less of its peak needs longer, not shorter"),
        (lambda *p: right(*p) * p[5], "that is at the full peak; divide by the utilisation as well"),
        (lambda *p: right(*p) * 24, "those are hours"),
        (lambda *p: right(*p) * 86400, "those are seconds"),
        (lambda *p: right(*p) / p[2], "that is one block; there are `depth` of them"),
        (lambda *p: right(*p) / p[3], "that is one clip; there are `clips` of them"),
    ]
    inputs = [(2000, 512, 8, 1e8, 1e14, 0.4), (500, 256, 6, 4e8, 5e13, 0.25)]
    mark_function("gpu_days", answer, right, inputs, mistakes)


def from_the_start(answer: object) -> None:
    """Chapter 16: mean time of a run that starts again at each failure, over what it needs; failure rate 1: e - 1."""
    mistakes = [
        (math.e, "that is how many tries there are; those that fail are shorter than 100 hours"),
        (1 / (1 - 1 / math.e), "e^-1 is the chance to get through, not the chance to fail"),
        (
            1 + (math.e - 1) / 2,
            "the tries that fail do not last 50 hours on average: the longer a try, the fewer get there",
        ),
        (2.0, "one failure in 100 hours is the mean; how many failures come before the first try that gets through?"),
        (1.0, "that is a run without any failure"),
        (1.5, "a single failure, half-way, would give that; how many failures are there on average?"),
        (171.83, "right in hours; asked for is how many times 100 hours"),
    ]
    mark_number("from_the_start", answer, math.e - 1, mistakes)
