"""Checks of the practice notebook of chapter 03."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def guess_spread(answer: object) -> None:
    """Chapter 03: the variance of x0_hat over all x_t, for x0 from N(0, 1), alpha = 0.8 and sigma = 0.6."""
    mistakes = [
        (1.0, "that is the variance of x_t; the guess is x_t times a gain"),
        (0.36, "that is the variance of x0 around the guess; how far do the guesses themselves spread?"),
        (0.8, "that is the gain, or the standard deviation of the guesses; the variance is asked for"),
        (0.0, "0 is the mean of the guesses; each x_t has its own"),
        (0.41, "that takes alpha^2 for the variance of x_t; x_t holds noise too"),
    ]
    mark_number("guess_spread", answer, 0.64, mistakes)


def tilted_guess(answer: object) -> None:
    """Chapter 03: `tilted_guess(x_t [B], alpha, sigma, p)` to `[B]`: E[x0 | x_t], x0 is +1 with chance p, else -1."""

    def guess(x: Tensor, alpha: float, sigma: float, p: float, power: int = 2, tilt: float = 0.5) -> Tensor:
        return torch.tanh(alpha * x / sigma**power + tilt * math.log(p / (1 - p)))

    def undivided(x: Tensor, alpha: float, sigma: float, p: float) -> Tensor:
        plus, minus = (torch.exp(-((x - alpha * x0) ** 2) / (2 * sigma**2)) for x0 in (1, -1))
        return p * plus - (1 - p) * minus

    mistakes = [
        (lambda *z: guess(*z, tilt=0.0), "p is not used: that is the guess for equal chances"),
        (
            lambda *z: guess(*z, tilt=1.0),
            "p counts too much: what should the guess at x_t = 0 be, where only p speaks?",
        ),
        (lambda *z: guess(*z, tilt=-0.5), "p is the chance of +1, not of -1"),
        (lambda *z: guess(*z, power=1), "the exponent of a Gaussian has the variance in it, not sigma"),
        (
            lambda x, a, s, p: guess(x, a, s, p, tilt=0.0) + 2 * p - 1,
            "in Bayes' rule the chances multiply the likelihoods; this sum leaves the range from -1 to 1",
        ),
        (
            lambda *z: (guess(*z) + 1) / 2,
            "that is the chance of +1; the guess is the mean of -1 and +1 with the chances",
        ),
        (undivided, "proportional is not equal: the two chances have to add up to 1"),
    ]
    x = random_tensor(7, seed=1)
    mark_function("tilted_guess", answer, guess, [(x, 0.8, 0.6, 0.8), (x[:4], 0.5, 0.9, 0.1)], mistakes)


def reverse_walk(answer: object) -> None:
    """Chapter 03: `reverse_walk(denoise, x [B, D], alphas [K + 1], sigmas [K + 1], noises [K, B, D])`, K steps back."""

    def walk(
        denoise: Callable,
        x: Tensor,
        alphas: Tensor,
        sigmas: Tensor,
        noises: Tensor,
        quiet: tuple = (-1,),
        stop: int = 0,
    ) -> Tensor:
        steps = len(noises)
        for k in range(steps - stop):
            a = alphas[k] / alphas[k + 1]
            v = sigmas[k] ** 2 - a**2 * sigmas[k + 1] ** 2
            x = (a * sigmas[k + 1] ** 2 * x + alphas[k + 1] * v * denoise(x, k)) / sigmas[k] ** 2
            if k not in [q % steps for q in quiet]:
                x = x + v.sqrt() * noises[k]
        return x

    def smaller(denoise: Callable, x: Tensor, alphas: Tensor, sigmas: Tensor, noises: Tensor) -> Tensor:
        scale = sigmas[1:] / sigmas[:-1]  # the posterior's standard deviation over sqrt(V)
        return walk(denoise, x, alphas, sigmas, scale[:, None, None] * noises)

    mistakes = [
        (
            lambda *z: walk(*z, quiet=()),
            "not mended yet: the walk ends at sigma = 0. How much noise may its result hold?",
        ),
        (lambda *z: walk(*z, quiet=(0,)), "that takes the noise from the first step; the grain comes from another one"),
        (lambda *z: walk(*z, quiet=(0, 1, 2, 3)), "now no step adds noise; all but one have to"),
        (lambda *z: walk(*z, stop=1), "a step is missing: the walk has to arrive at sigma = 0"),
        (smaller, "that is the smaller variance of the posterior; the task keeps V"),
    ]
    alphas, sigmas = torch.tensor([0.1, 0.5, 0.8, 1.0]), torch.tensor([0.99, 0.8, 0.6, 0.0])
    shorter = torch.tensor([0.2, 0.7, 1.0]), torch.tensor([0.8, 0.3, 0.0])
    inputs = [
        (lambda x, k: 0.5 * x.sin() + k, random_tensor(5, 2, seed=1), alphas, sigmas, random_tensor(3, 5, 2, seed=2)),
        (lambda x, k: 0.8 * x.cos(), random_tensor(4, 3, seed=3), *shorter, random_tensor(2, 4, 3, seed=4)),
    ]
    mark_function("reverse_walk", answer, walk, inputs, mistakes)


def sample_error(answer: object) -> None:
    """Chapter 03: E (x0' - x0)^2, x0' drawn from p(x0 | x_t), for x0 from N(0, 1), alpha = 0.8 and sigma = 0.6."""
    mistakes = [
        (0.36, "that is the error of the best guess; a sample has a deviation of its own"),
        (0.0, "the original is not restored: x_t leaves room for other values of x0"),
        (2.0, "that is for a sample that knows nothing of x_t; this one fits it"),
        (0.6, "that is the standard deviation of one of the two around the guess"),
        (0.85, "that is the root of the mean squared distance; leave the square"),
        (1.0, "that is the variance of the data; x_t tells a part of it"),
        (1.28, "0.64 is the variance of the guesses; what is left of x0 once x_t is known?"),
        (1.2, "standard deviations do not add, and the square is asked for"),
    ]
    mark_number("sample_error", answer, 0.72, mistakes)


def ancestral_spread(answer: object) -> None:
    """Chapter 03: `ancestral_spread(c, alphas [K + 1], sigmas [K + 1])`, spread after K steps, data N(0, c^2)."""

    def variance(
        c: float,
        alphas: Tensor,
        sigmas: Tensor,
        start: float | None = None,
        dice: str = "posterior",
        power: int = 2,
        squared: str = "sum",
    ) -> Tensor:
        v = alphas[0] ** 2 * c**2 + sigmas[0] ** 2 if start is None else torch.tensor(start)
        v = v ** (power / 2)
        for k in range(len(alphas) - 1):
            a, gain = alphas[k] / alphas[k + 1], alphas[k] * c**2 / (alphas[k] ** 2 * c**2 + sigmas[k] ** 2)
            extra = sigmas[k] ** 2 - a**2 * sigmas[k + 1] ** 2
            old, new = a * sigmas[k + 1] ** 2 / sigmas[k] ** 2, alphas[k + 1] * extra * gain / sigmas[k] ** 2
            by = {"sum": (old + new) ** power, "nothing": old + new, "terms": old**2 + new**2}[squared]
            fresh = {"posterior": sigmas[k + 1] ** 2 * extra / sigmas[k] ** 2, "v": extra, "none": 0 * extra}[dice]
            v = by * v + fresh ** (power / 2)
        return v

    mistakes = [
        (lambda *z: variance(*z), "that is the variance; the standard deviation is asked for"),
        (lambda *z: variance(*z, dice="none").sqrt(), "the fresh noise of the steps is missing"),
        (lambda *z: variance(*z, dice="v").sqrt(), "V is too much fresh noise; the posterior's variance is smaller"),
        (lambda *z: variance(*z, power=1), "variances add, and standard deviations do not"),
        (lambda *z: variance(*z, squared="nothing").sqrt(), "a factor multiplies a variance by its square"),
        (
            lambda *z: variance(*z, squared="terms").sqrt(),
            "x0_hat is a multiple of the same x_t: add the two factors before you square",
        ),
        (lambda *z: variance(*z, start=1.0).sqrt(), "at the first time x has the variance of x_t, which is not 1 here"),
        (
            lambda c, alphas, sigmas: torch.tensor(c),
            "that is the data's own spread; the steps take the guess for the truth, and some spread is lost",
        ),
    ]
    inputs = [
        (2.0, torch.tensor([0.5, 0.7, 0.9, 1.0]), torch.tensor([0.75, 0.51, 0.19, 0.0]).sqrt()),
        (0.5, torch.tensor([0.3, 0.8, 1.0]), torch.tensor([0.7, 0.2, 0.0])),
    ]
    mark_function("ancestral_spread", answer, lambda *z: variance(*z).sqrt(), inputs, mistakes)


def effective_number(answer: object) -> None:
    """Chapter 03: `effective_number(x_t [B, D], data [N, D], alpha, sigma)` to `[B]`: 1 / sum_i r_i^2."""

    def shares(x: Tensor, data: Tensor, alpha: float, width: float, dim: int = 1) -> Tensor:
        return torch.softmax(-(x[:, None] - alpha * data).square().sum(-1) / width, dim=dim)

    def exact(x: Tensor, data: Tensor, alpha: float, sigma: float) -> Tensor:
        return 1 / shares(x, data, alpha, 2 * sigma**2).square().sum(1)

    mistakes = [
        (lambda x, d, a, s: 1 / shares(x, d, a, s**2).square().sum(1), "a Gaussian has 2 sigma^2 in its exponent"),
        (lambda x, d, a, s: 1 / shares(x, d, a, 2 * s).square().sum(1), "sigma must be squared in the exponent"),
        (
            lambda x, d, a, s: 1 / torch.softmax(-torch.cdist(x, a * d) / (2 * s**2), 1).square().sum(1),
            "the exponent holds the squared distance",
        ),
        (lambda x, d, a, s: exact(x, d, 1.0, s), "x_t has shrunk by alpha: shrink the data points before comparing"),
        (lambda x, d, a, s: 1 / shares(x, d, a, 2 * s**2, 0).square().sum(1), "for each x_t the shares must sum to 1"),
        (lambda x, d, a, s: shares(x, d, a, 2 * s**2).square().sum(1), "that lies between 1 / N and 1; turn it over"),
        (lambda x, d, a, s: 1 / shares(x, d, a, 2 * s**2).amax(1), "square all shares and sum; this asks one only"),
    ]
    inputs = [
        (random_tensor(4, 2, seed=1), random_tensor(7, 2, seed=2), 0.8, 0.6),
        (random_tensor(3, 5, seed=3), random_tensor(6, 5, seed=4), 0.5, 1.4),
    ]
    mark_function("effective_number", answer, exact, inputs, mistakes)
