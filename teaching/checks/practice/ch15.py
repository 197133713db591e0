"""Checks of the practice notebook of chapter 15."""

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def twelve_of_twelve(answer: object) -> None:
    """Chapter 15: the lower end of Wilson's interval for 12 of 12 right, with z = 2: n / (n + z^2)."""
    mistakes = [
        (
            1.0,
            "p = 1 is no surprise, but is not the smallest such p; the usual interval stops there, "
            "since it puts the measured share under the root",
        ),
        (12 / 14, "square both sides: z enters as z^2 = 4"),
        (1 - 4 / 12, "near, but the p under the root is not 1: keep it"),
        (0.0, "p = 0 would make twelve right clips impossible"),
        (0.25, "that is 1 - p, how far below 1 it lies"),
    ]
    mark_number("twelve_of_twelve", answer, 0.75, mistakes)


def distance_from_nothing(answer: object) -> None:
    """Chapter 15: the mean of |m_a - m_b|^2 for two sets of 32 with 64 features of variance 1: 64 * 2 / 32."""
    mistakes = [
        (0.0, "the true means are the same, those of 32 clips are not"),
        (2.0, "both means vary, not one alone, and variances add"),
        (2 / 32, "that is one feature; there are 64"),
        (1 / 32, "that is one feature of one set"),
        (128.0, "that is for single clips; a mean of 32 varies less"),
        (64.0, "that is for single clips; a mean of 32 varies less"),
        (2 * 64 / 32**0.5, "the variance of a mean falls with 32, its standard deviation with the root"),
    ]
    mark_number("distance_from_nothing", answer, 4.0, mistakes)


def frechet_by_feature(answer: object) -> None:
    """Chapter 15: `frechet_by_feature(a [N, D], b [M, D])`, the Frechet distance with diagonal covariances."""

    def parts(a: Tensor, b: Tensor, correction: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        return (a.mean(0) - b.mean(0)).square(), a.var(0, correction=correction), b.var(0, correction=correction)

    def right(a: Tensor, b: Tensor, correction: int = 1, power: float = 1, cross: float = 2) -> Tensor:
        gap, p, q = parts(a, b, correction)
        p, q = p**power, q**power
        return (gap + p + q - cross * (p * q).sqrt()).sum()

    def without_cross(a: Tensor, b: Tensor) -> Tensor:
        gap, p, q = parts(a, b)
        return gap + p + q

    def mixed_of_stds(a: Tensor, b: Tensor) -> Tensor:
        return (without_cross(a, b) - 2 * (a.std(0) * b.std(0)).sqrt()).sum()

    def no_root(a: Tensor, b: Tensor) -> Tensor:
        return (without_cross(a, b) - 2 * a.var(0) * b.var(0)).sum()

    mistakes = [
        (mixed_of_stds, "two terms are variances; which unit has the mixed one?"),
        (no_root, "the root of the mixed term is missing"),
        (lambda a, b: right(a, b, power=0.5), "what stands on the diagonal of a covariance matrix?"),
        (lambda a, b: right(a, b, cross=1), "the factor 2 of the mixed term is missing"),
        (lambda a, b: right(a, b, cross=0), "the mixed term is missing: a set would be far from itself"),
        (lambda a, b: right(a, b, power=2), "the variance is the square already"),
        (lambda a, b: right(a, b, correction=0), "variances divide by N - 1 here, as in torch.cov"),
        (lambda a, b: right(a, b) / a.shape[1], "sum over the features, do not average"),
        (lambda a, b: right(a, b).sqrt(), "the distance is left squared, as FID is"),
        (lambda a, b: parts(a, b)[0].sum(), "that is the part of the means alone"),
        (
            lambda a, b: right(a, b) - parts(a, b)[0].sum(),
            "that is the part of the variances alone; the means differ too",
        ),
        (
            lambda a, b: (right(a, b) - parts(a, b)[0].sum()) + parts(a, b)[0].sqrt().sum(),
            "the difference of the means is squared",
        ),
    ]
    scale = torch.tensor([0.5, 1.0, 3.0])
    inputs = [
        (random_tensor(9, 3, seed=1), random_tensor(6, 3, seed=2) * scale + 1),
        (random_tensor(5, 3, seed=3) * scale, 2 * random_tensor(8, 3, seed=4)),
    ]
    mark_function("frechet_by_feature", answer, right, inputs, mistakes)


def clip_interval(answer: object) -> None:
    """Chapter 15: `clip_interval(hits [B, F])`, share of frames and its interval of 95 % over clips: low, high."""

    def around(middle: Tensor, half: Tensor) -> Tensor:
        return torch.stack([middle - 1.96 * half, middle + 1.96 * half])

    def right(x: Tensor, count: int | None = None, correction: int = 1) -> Tensor:
        return around(x.mean(), x.mean(1).std(correction=correction) / (count or len(x)) ** 0.5)

    def binomial(x: Tensor, count: int) -> Tensor:
        return around(x.mean(), (x.mean() * (1 - x.mean()) / count).sqrt())

    def middle_and_half(x: Tensor) -> Tensor:
        each, half = x.mean(1), 1.96 * x.mean(1).std() / len(x) ** 0.5
        return torch.stack([each.mean(), half])

    mistakes = [
        (lambda x: binomial(x, x.numel()), "each frame counts as a draw of its own; frames of one clip go together"),
        (
            lambda x: around(x.mean(), x.std() / x.numel() ** 0.5),
            "each frame counts as a draw of its own; frames of one clip go together",
        ),
        (lambda x: binomial(x, len(x)), "that takes each clip as all or nothing; use how the clips' shares vary"),
        (lambda x: right(x, x.numel()), "the spread of the clips is right; but how many clips are there?"),
        (lambda x: right(x, x.shape[1]), "the root is of the number of clips, not of the frames in each"),
        (lambda x: right(x, 1), "that is the spread of single clips; the mean of B clips varies less"),
        (lambda x: right(x, correction=0), "std divides by the number of clips less one"),
        (lambda x: right(x, len(x) ** 2), "divide by the root of the number of clips"),
        (lambda x: right(x.T), "that takes the frames as what was drawn: average over each clip, not over each frame"),
        (
            lambda x: right(x) + 0.96 / 1.96 * (x.mean() - right(x)),
            "that is one standard error to each side; for 95 % it takes 1.96 of them",
        ),
        (lambda x: right(x).clamp(0, 1), "do not cut off at 0 and 1 here"),
        (middle_and_half, "asked for are the two ends, low and high"),
    ]
    inputs = []
    for seed, (clips, frames) in enumerate(((6, 4), (9, 5))):
        level = random_tensor(clips, 1, seed=seed)
        inputs.append(((level + 0.8 * random_tensor(clips, frames, seed=seed + 5) > 0).float(),))
    mark_function("clip_interval", answer, right, inputs, mistakes)


def distance_at_infinity(answer: object) -> None:
    """Chapter 15: `distance_at_infinity(counts [K], distances [K])`, the line over 1 / N at 1 / N = 0."""

    def line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        return y.mean() - slope * x.mean(), slope

    def ends(x: Tensor, y: Tensor) -> Tensor:
        slope = (y[-1] - y[0]) / (x[-1] - x[0])
        return y[0] - slope * x[0]

    mistakes = [
        (lambda n, d: line(n, d)[0], "a line over N, read off at N = 0: the bias is straight over 1 / N"),
        (lambda n, d: line(1 / n, d)[1], "that is the slope c; asked for is the value at 1 / N = 0"),
        (lambda n, d: line(n**-0.5, d)[0], "the bias falls with N, not with its root"),
        (lambda n, d: d[n.argmax()], "that is the distance at the largest N, which still has its bias"),
        (lambda n, d: d.mean(), "that is the mean over all N, bias and all"),
        (lambda n, d: ends(1 / n, d), "a line through the first and the last point alone; use all of them"),
        (lambda n, d: (d / n).sum() / (1 / n**2).sum(), "that line is forced through 0, and it is the slope"),
    ]
    inputs = []
    for seed, counts in enumerate(([12.0, 16, 24, 48], [20.0, 30, 45, 80, 160])):
        n = torch.tensor(counts)
        inputs.append((n, 6 + 40 * seed + 120 / n + random_tensor(len(n), seed=seed)))
    mark_function("distance_at_infinity", answer, lambda n, d: line(1 / n, d)[0], inputs, mistakes)


def covered(answer: object) -> None:
    """Chapter 15: `covered(real [N, D], made [M, D], k)`, the share of real points with a made point in their ball."""

    def radius(x: Tensor, k: int) -> Tensor:
        return torch.cdist(x, x).kthvalue(k + 1, dim=1).values

    def inside(real: Tensor, made: Tensor, k: int) -> Tensor:
        return torch.cdist(real, made) <= radius(real, k)[:, None]  # [N, M]

    def right(real: Tensor, made: Tensor, k: int) -> Tensor:
        return inside(real, made, k).any(1).float().mean()

    mistakes = [
        (lambda r, m, k: inside(r, m, k).any(0).float().mean(), "that is precision: the share of the generated points"),
        (
            lambda r, m, k: inside(m, r, k).any(0).float().mean(),
            "that is recall: its balls lie around the generated points",
        ),
        (
            lambda r, m, k: inside(m, r, k).any(1).float().mean(),
            "real and generated points are exchanged",
        ),
        (lambda r, m, k: right(r, m, k - 1), "each point is nearest to itself, at distance 0; leave it out"),
        (lambda r, m, k: right(r, m, k + 1), "one neighbour too many"),
        (lambda r, m, k: inside(r, m, k).all(1).float().mean(), "one generated point in the ball is enough"),
        (lambda r, m, k: inside(r, m, k).float().mean(), "count each real point once, however many lie in its ball"),
        (
            lambda r, m, k: inside(r, m, k).float().sum() / (k * len(m)),
            "that is density; count each real point once",
        ),
        (
            lambda r, m, k: (torch.cdist(r, m) < radius(r, k)[:, None]).any(1).float().mean(),
            "a point on the border belongs to the ball",
        ),
        (lambda r, m, k: inside(r, m, k).any(1).sum(), "that is how many; divide by the number of real points"),
        (lambda r, m, k: inside(r, m, k).any(1), "those are the single points; asked for is their share, one number"),
        (
            lambda r, m, k: (
                (torch.cdist(r, m) <= torch.cdist(r, m).kthvalue(k, dim=1).values[:, None]).any(1).float().mean()
            ),
            "the ball reaches to a real neighbour, not to a generated one",
        ),
    ]
    inputs = []
    for seed, n, m, k in ((9, 23, 13, 3), (10, 17, 29, 2)):
        inputs.append((random_tensor(n, 2, seed=seed), 0.4 + 1.4 * random_tensor(m, 2, seed=seed + 50), k))
    inputs.append(
        (torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([[2.0], [40.0]]), 1)
    )  # on the border of a ball
    mark_function("covered", answer, right, inputs, mistakes)
