"""Checks of the exercises in chapters 00 to 05."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def video_numbers(answer: object) -> None:
    """Chapter 00: how many numbers a video of shape [1, 3, 17, 32, 32] holds."""
    mistakes = [(3 * 32 * 32, "that is one frame; there are 17"), (17 * 32 * 32, "that is one colour; there are 3")]
    mark_number("video_numbers", answer, 3 * 17 * 32 * 32, mistakes)


def fresh_error(answer: object) -> None:
    """Chapter 01: the best expected MSE on fresh targets drawn from randn, whatever the inputs."""
    mistakes = [
        (0.0, "0 would need the targets in advance; they are drawn after the network has answered"),
        (2.0, "that is the squared error of a row; MSE averages over the two outputs as well"),
        (1.5, "that is about what the trained network scores; answering always 0 does better"),
    ]
    mark_number("fresh_error", answer, 1.0, mistakes)


def best_constant(answer: object) -> None:
    """Chapter 01: `best_constant(targets [N, D])`, the MSE of the best answer that ignores the input."""
    mistakes = [
        (
            lambda y: y.square().mean(),
            "that is the error of always answering 0; the best constant is each column's mean",
        ),
        (lambda y: y.var(0).mean(), "var divides by N - 1 unless told otherwise; a mean squared error divides by N"),
        (lambda y: y.var(0, correction=0).sum(), "that sums over the columns; MSE is the mean over all entries"),
        (lambda y: y.std(0, correction=0).mean(), "that is a standard deviation; the squared error is its square"),
        (lambda y: (y - y.mean()).square().mean(), "each column may have its own constant; you took one for all"),
    ]
    inputs = [(random_tensor(16, 2, seed=1) + torch.tensor([1.0, -2.0]),), (3 * random_tensor(5, 3, seed=2),)]
    mark_function("best_constant", answer, lambda y: (y - y.mean(0)).square().mean(), inputs, mistakes)


def middle_variance(answer: object) -> None:
    """Chapter 02: the variance of x_t at t = 0.5 on the straight path, for data of variance 1."""
    mistakes = [
        (1.0, "that holds for variance-preserving schedules; here alpha^2 + sigma^2 is not 1"),
        (0.25, "that is the signal's part alone; add the noise's"),
        (0.71, "that is the standard deviation; the variance is its square"),
    ]
    mark_number("middle_variance", answer, 0.5, mistakes)


def alpha_bar(answer: object) -> None:
    """Chapter 02: `alpha_bar(betas [T], i)`, the product of (1 - beta_j) for j = 1..i."""
    mistakes = [
        (lambda b, i: (1 - b).prod(), "that multiplies to the last step T, whatever i is"),
        (lambda b, i: (1 - b[: i - 1]).prod(), "one factor is missing: the product runs to i, i included"),
        (lambda b, i: (1 - b[: i + 1]).prod(), "one factor too many: betas[0] is beta_1"),
        (lambda b, i: b[:i].prod(), "that multiplies the betas; what is kept at each step is 1 - beta"),
        (lambda b, i: (1 - b[:i]).sqrt().prod(), "that is alpha, the square root of alpha_bar"),
        (lambda b, i: 1 - b[:i].sum(), "the steps multiply; subtracting the sum only works while betas are tiny"),
    ]
    betas = torch.linspace(0.01, 0.4, 10)
    mark_function("alpha_bar", answer, lambda b, i: (1 - b[:i]).prod(), [(betas, 1), (betas, 4), (betas, 10)], mistakes)


def jump(answer: object) -> None:
    """Chapter 02: `jump(x0 [B, D], alpha_bar, eps [B, D])`, x_t in one go from x0."""
    mistakes = [
        (lambda x0, a, e: a * x0 + (1 - a) * e, "both square roots are missing"),
        (lambda x0, a, e: a**0.5 * x0 + (1 - a) * e, "the square root on 1 - alpha_bar is missing"),
        (lambda x0, a, e: a * x0 + (1 - a) ** 0.5 * e, "the square root on alpha_bar is missing"),
        (lambda x0, a, e: a**0.5 * e + (1 - a) ** 0.5 * x0, "data and noise are exchanged"),
        (lambda x0, a, e: x0 + (1 - a) ** 0.5 * e, "the signal has to shrink too, or the variance grows without bound"),
    ]
    inputs = [(random_tensor(8, 2, seed=1), a, random_tensor(8, 2, seed=2)) for a in (0.9, 0.5, 0.04)]
    mark_function("jump", answer, lambda x0, a, e: a**0.5 * x0 + (1 - a) ** 0.5 * e, inputs, mistakes)


def best_guess(answer: object) -> None:
    """Chapter 03: E[x0 | x_t = 0] where x0 is -1 or +1 with equal chance."""
    mistakes = [
        (1.0, "+1 is no likelier than -1 here; the best guess under squared error is a mean"),
        (-1.0, "-1 is no likelier than +1 here; the best guess under squared error is a mean"),
    ]
    mark_number("best_guess", answer, 0.0, mistakes)


def gaussian_denoiser(answer: object) -> None:
    """Chapter 03: `gaussian_denoiser(x_t [B, 2], alpha, sigma, mean [2], std)`, E[x0 | x_t], x0 ~ N(mean, std^2 I)."""

    def with_gain(gain: Callable, center: Callable = lambda a, m: a * m) -> Callable:
        return lambda x, a, s, m, d: m + gain(a, s, d) * (x - center(a, m))

    right = with_gain(lambda a, s, d: a * d**2 / (a**2 * d**2 + s**2))
    mistakes = [
        (with_gain(lambda a, s, d: a * d**2 / (a**2 * d**2 + s**2), lambda a, m: m), "x_t is centred on alpha mean"),
        (with_gain(lambda a, s, d: d**2 / (a**2 * d**2 + s**2)), "the gain has a factor alpha in its numerator"),
        (with_gain(lambda a, s, d: a * d**2 / (d**2 + s**2)), "the variance of x_t is alpha^2 std^2 + sigma^2"),
        (
            with_gain(lambda a, s, d: a * d / (a * d + s)),
            "the gain is a ratio of variances, not of standard deviations",
        ),
        (with_gain(lambda a, s, d: a * d / (a**2 * d**2 + s**2)), "std must be squared in the gain's numerator"),
        (lambda x, a, s, m, d: right(x, a, s, m, d) - m, "the guess starts from the mean: add it"),
        (
            with_gain(lambda a, s, d: a * d**2 / (a**2 * d**2 + s**2), lambda a, m: 0 * m),
            "subtract alpha mean from x_t",
        ),
        (lambda x, a, s, m, d: x / a, "x_t / alpha only undoes the shrinking; the noise is still in it"),
        (lambda x, a, s, m, d: m.expand_as(x), "that is the prior mean; x_t tells more"),
    ]
    mean = torch.tensor([1.0, -2.0])
    inputs = [(random_tensor(6, 2), 0.8, 0.6, mean, 0.5), (random_tensor(6, 2), 0.3, 0.95, mean, 2.0)]
    mark_function("gaussian_denoiser", answer, right, inputs, mistakes)


def posterior_mean(answer: object) -> None:
    """Chapter 03: `posterior_mean(x_t, x0_hat, alpha_t, sigma_t, alpha_s, sigma_s)`, mean of q(x_s | x_t, x0_hat)."""

    def mean(x: Tensor, x0: Tensor, at: float, st: float, a_s: float, ss: float, power: int = 2) -> Tensor:
        a = at / a_s
        v = st**power - a**power * ss**power
        return (a * ss**power * x + a_s * v * x0) / st**power

    mistakes = [
        (lambda *z: mean(*z, power=1), "the weights are ratios of variances: square the sigmas"),
        (lambda x, x0, at, st, a_s, ss: a_s * x0, "that forgets x_t: it holds the noise that x_s still contains"),
        (lambda x, x0, at, st, a_s, ss: a_s * x0 + ss * (x - at * x0) / st, "that is the step of DDIM, without noise"),
        (lambda x, x0, at, st, a_s, ss: mean(x0, x, at, st, a_s, ss), "x_t and x0_hat are exchanged"),
    ]
    x, x0 = random_tensor(6, 2, seed=1), random_tensor(6, 2, seed=2)
    mark_function(
        "posterior_mean", answer, mean, [(x, x0, 0.5, 0.75**0.5, 0.8, 0.6), (x, x0, 0.2, 0.8, 0.6, 0.4)], mistakes
    )


def blind_guess(answer: object) -> None:
    """Chapter 04: the x coordinate of the exact x0_hat at t = 1 on standardised data, whatever x_t is."""
    mistakes = [(1.0, "1 is the spread of the data; with nothing but noise to see, the best guess is the data's mean")]
    mark_number("blind_guess", answer, 0.0, mistakes)


def time_features(answer: object) -> None:
    """Chapter 04: `time_features(t [B], frequencies [K])` to `[B, 2 K]`: sines, then cosines, of 2 pi t frequencies."""

    def exact(t: Tensor, f: Tensor, turn: float = 2 * math.pi) -> Tensor:
        angles = turn * t[:, None] * f
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    mistakes = [
        (lambda t, f: exact(t, f, 1.0), "the factor 2 pi is missing, so a frequency of 1 makes less than one turn"),
        (
            lambda t, f: 2 * math.pi * t[:, None] * f,
            "these are the angles; without sine and cosine they are linear in t",
        ),
        (lambda t, f: exact(t, f).roll(len(f), 1), "sines come first, then cosines"),
        (
            lambda t, f: exact(t, f).reshape(len(t), 2, len(f)).transpose(1, 2).flatten(1),
            "sine and cosine alternate, as in the Transformer paper; here all sines come first",
        ),
        (
            lambda t, f: (2 * math.pi * t[:, None] * f).sin(),
            "sines alone cannot tell some times apart; add the cosines",
        ),
    ]
    inputs = [
        (torch.tensor([0.0, 0.13, 0.5, 0.9]), torch.tensor([0.5, 1.0, 3.0])),
        (torch.tensor([0.3, 0.7]), torch.tensor([2.0])),
    ]
    mark_function("time_features", answer, exact, inputs, mistakes)


def zero_velocity_loss(answer: object) -> None:
    """Chapter 05: the expected loss of a network that answers 0, where v = eps - x0 and the data has variance 4."""
    mistakes = [
        (2.0, "that is for data of variance 1; here it is 4"),
        (10.0, "that is the sum over both coordinates; the loss is their mean"),
        (3.0, "variances of independent parts add, also in a difference"),
        (4.0, "that is the data's part alone; the noise adds its own"),
        (1.0, "that is the noise's part alone; the data adds its own"),
        (0.0, "the target is not 0, so the error is not"),
    ]
    mark_number("zero_velocity_loss", answer, 5.0, mistakes)


def velocity_target(answer: object) -> None:
    """Chapter 05: `velocity_target(x0 [B, D], eps [B, D])`, dx_t/dt on the straight path with noise at t = 1."""
    mistakes = [
        (lambda x0, e: x0 - e, "that points from noise to data; in this course t grows towards noise"),
        (lambda x0, e: e, "that is the eps target"),
        (lambda x0, e: e + x0, "1 - t falls as t grows, so x0 enters with a minus sign"),
    ]
    inputs = [(random_tensor(4, 2, seed=s), random_tensor(4, 2, seed=s + 9)) for s in (1, 2)]
    mark_function("velocity_target", answer, lambda x0, e: e - x0, inputs, mistakes)


def ema_update(answer: object) -> None:
    """Chapter 05: `ema_update(average, weight, decay)`, the new average of the weights."""
    mistakes = [
        (lambda a, w, d: (1 - d) * a + d * w, "the two factors are exchanged: a decay near 1 keeps the average"),
        (lambda a, w, d: (a + w) / 2, "decay is not used"),
        (lambda a, w, d: a, "the new weights are not used"),
        (lambda a, w, d: w, "the old average is not used"),
        (lambda a, w, d: d * a + w, "the factors must sum to 1, or the average grows without bound"),
    ]
    inputs = [(random_tensor(3, 4, seed=1), random_tensor(3, 4, seed=2), d) for d in (0.9, 0.99)]
    mark_function("ema_update", answer, lambda a, w, d: d * a + (1 - d) * w, inputs, mistakes)
