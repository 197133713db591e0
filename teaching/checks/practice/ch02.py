"""Checks of the practice notebook of chapter 02."""

import math

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def lost_root(answer: object) -> None:
    """Chapter 02: where the variance settles if each step is sqrt(1 - beta) x + beta eps, with beta = 0.3."""
    mistakes = [
        (1.0, "that holds with the square root of beta on the noise; what variance does this step add?"),
        (0.09, "that is what one step adds; the noise of earlier steps has not quite gone"),
        (
            0.55,
            "check the roots: a factor multiplies a variance by its square, and a variance is asked for, "
            "not a standard deviation",
        ),
        (0.18, "the factor on x is a root already; what is its square?"),
        (0.0, "the variance shrinks only until a step adds as much as it takes away"),
        (0.7, "that is the share a step keeps; ask for the variance at which keeping and adding balance"),
    ]
    mark_number("lost_root", answer, 0.3, mistakes)


def betas_from(answer: object) -> None:
    """Chapter 02: `betas_from(alpha_bar [T])` to `[T]`, betas of steps 1..T, at most 0.999; alpha_bar_0 is 1."""

    def before(a: Tensor) -> Tensor:
        return torch.cat([torch.ones(1), a[:-1]])

    mistakes = [
        (lambda a: 1 - a / before(a), "the limit 0.999 is missing: a beta of 1 leaves nothing to come back from"),
        (lambda a: (1 - a[1:] / a[:-1]).clamp(max=0.999), "the first beta is missing: before step 1, alpha_bar is 1"),
        (lambda a: (before(a) - a).clamp(max=0.999), "alpha_bar is a product: divide neighbours, do not subtract them"),
        (lambda a: (1 - (a / before(a)).sqrt()).clamp(max=0.999), "1 - beta is the ratio itself, without a root"),
        (lambda a: (1 - a).clamp(max=0.999), "that is the noise of all steps so far; beta is that of one step"),
        (lambda a: 1 - a, "that is the noise of all steps so far; beta is that of one step"),
        (
            lambda a: (1 - a / torch.cat([a[:1], a[:-1]])).clamp(max=0.999),
            "the first step loses something too: compare alpha_bar_1 with alpha_bar_0 = 1",
        ),
        (lambda a: (a / before(a)).clamp(max=0.999), "that is what a step keeps; beta is what it adds"),
    ]
    inputs = [(torch.tensor([0.9, 0.6, 0.54, 0.2, 0.0]),), ((1 - torch.linspace(0.01, 0.4, 7)).cumprod(0),)]
    mark_function("betas_from", answer, lambda a: (1 - a / before(a)).clamp(max=0.999), inputs, mistakes)


def cosine_log_snr(answer: object) -> None:
    """Chapter 02: `cosine_log_snr(t [B], s)` to `[B]`, the log of alpha_bar / (1 - alpha_bar), cosine schedule."""

    def log_snr(t: Tensor, s: float, power: int = 2, start: float = 1) -> Tensor:
        def f(t: Tensor) -> Tensor:
            return torch.cos(math.pi / 2 * (t + s) / (1 + s)) ** power

        a = f(t) / f(torch.zeros(1)) ** start
        return (a / (1 - a)).log()

    mistakes = [
        (lambda t, s: log_snr(t, s, power=1), "the formula of alpha_bar in the chapter has one thing more. Compare"),
        (lambda t, s: log_snr(t, s) / 2, "that is log(alpha / sigma); the ratio is of their squares"),
        (lambda t, s: -log_snr(t, s), "that is the log of noise over signal; the log-SNR falls as t grows"),
        (lambda t, s: log_snr(t, s, start=0), "divide by f(0), or some signal is lost at t = 0 already"),
        (lambda t, s: log_snr(t, s, start=0.5), "f(0) is f at t = 0: change it in the same way as f(t)"),
        (lambda t, s: log_snr(t, 0 * s), "s is not used"),
        (lambda t, s: log_snr(t, s).exp(), "that is the ratio; its logarithm is asked for"),
    ]
    inputs = [(torch.tensor([0.1, 0.3, 0.6, 0.8]), 0.05), (torch.tensor([0.25, 0.5]), 0.008)]
    mark_function("cosine_log_snr", answer, log_snr, inputs, mistakes)


def jump_on(answer: object) -> None:
    """Chapter 02: `jump_on(x_s [B, D], alpha_s, sigma_s, alpha_t, sigma_t, eps [B, D])`, x_t from x_s where s < t."""

    def jump(x: Tensor, a_s: float, s_s: float, a_t: float, s_t: float, e: Tensor) -> Tensor:
        a = a_t / a_s
        return a * x + (s_t**2 - a**2 * s_s**2) ** 0.5 * e

    mistakes = [
        (lambda x, a_s, s_s, a_t, s_t, e: a_t * x + s_t * e, "that is the jump from x_0; x_s has shrunk already"),
        (
            lambda x, a_s, s_s, a_t, s_t, e: a_t / a_s * x + s_t * e,
            "too much noise: a part of the noise at t is in x_s already",
        ),
        (
            lambda x, a_s, s_s, a_t, s_t, e: a_t / a_s * x + (s_t**2 - s_s**2) ** 0.5 * e,
            "the noise that is in x_s already shrinks on the way, like the signal",
        ),
        (
            lambda x, a_s, s_s, a_t, s_t, e: a_t / a_s * x + (s_t - a_t / a_s * s_s) * e,
            "variances add, and standard deviations do not",
        ),
        (
            lambda x, a_s, s_s, a_t, s_t, e: a_t / a_s * x + (s_t**2 - (a_t / a_s * s_s) ** 2) * e,
            "that is the variance of the new noise; eps is multiplied by its square root",
        ),
        (
            lambda x, a_s, s_s, a_t, s_t, e: a_t / a_s * x + (1 - (a_t / a_s) ** 2) ** 0.5 * e,
            "that holds only where alpha^2 + sigma^2 = 1; take sigma_s and sigma_t as they are given",
        ),
        (
            lambda x, a_s, s_s, a_t, s_t, e: a_t / a_s * x + (s_t**2 - a_t / a_s * s_s**2) ** 0.5 * e,
            "a factor multiplies a variance by its square",
        ),
    ]
    inputs = [
        (random_tensor(6, 2, seed=1), 0.8, 0.6, 0.6, 0.8, random_tensor(6, 2, seed=2)),
        (random_tensor(4, 3, seed=3), 0.7, 0.3, 0.2, 0.8, random_tensor(4, 3, seed=4)),
    ]
    mark_function("jump_on", answer, jump, inputs, mistakes)


def excess_kurtosis(answer: object) -> None:
    """Chapter 02: `excess_kurtosis(x [N, D])` to `[D]`: fourth moment about the mean over variance squared, minus 3."""

    def kurtosis(x: Tensor, power: int = 2, correction: int = 0, middle: bool = True) -> Tensor:
        z = x - x.mean(0) if middle else x
        v = x.var(0, correction=correction) if middle else z.square().mean(0)
        return z.pow(4).mean(0) / v**power - 3

    mistakes = [
        (lambda x: kurtosis(x) + 3, "subtract 3, the value of a Gaussian, so that a Gaussian has 0"),
        (lambda x: kurtosis(x, power=1), "square the variance, or the result depends on the unit of x"),
        (lambda x: kurtosis(x, middle=False), "subtract each column's mean first"),
        (lambda x: kurtosis(x, correction=1), "var divides by N - 1 unless told otherwise; here every mean is over N"),
        (lambda x: kurtosis(x.reshape(-1, 1))[0], "one value for each column; you took all numbers together"),
        (
            lambda x: ((x - x.mean(0)) ** 3).mean(0) / x.var(0, correction=0) ** 1.5,
            "that is the third moment, which measures lopsidedness; here the power is 4",
        ),
    ]
    inputs = [(random_tensor(12, 3, seed=1).exp(),), (random_tensor(7, 2, seed=2) * 2 + torch.tensor([1.0, -3.0]),)]
    mark_function("excess_kurtosis", answer, kurtosis, inputs, mistakes)
