"""Noise schedules, and the conversions between what a network may predict.

Time is a float tensor `[B]` in [0, 1]: t = 0 is data, t = 1 is noise. Every schedule fixes two curves, and the noisy
sample is x_t = alpha(t) x0 + sigma(t) eps. So alpha is the square root of DDPM's alpha_bar.
"""

import math

import torch
from torch import Tensor

from .validate import (
    check_choice,
    check_count,
    check_memory,
    check_number,
    check_same_shape,
    check_tensor,
    check_times,
    shown,
)

PREDICTIONS = ("eps", "x0", "v", "score")


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape `[B]` to `[B, 1, ..., 1]`, so that one number a sample multiplies all of that sample."""
    return coefficient.reshape(-1, *[1] * (x.ndim - 1))


class Schedule:
    """The forward process x_t = alpha(t) x0 + sigma(t) eps, for t in [0, 1].

    A subclass gives `curves`; the four curves, `snr` and `add_noise` follow. All take a float tensor t `[B]` and return
    `[B]`, worked out in float64 and rounded to the dtype of t. Bad times raise TypeError or ValueError.
    """

    def curves(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha, sigma and their derivatives by t, each `[B]`, at float64 times t `[B]`."""
        raise NotImplementedError

    def growth(self, alpha: Tensor, sigma: Tensor, alpha_dot: Tensor, sigma_dot: Tensor) -> Tensor:
        """sigma sigma_dot, half the slope of the noise's variance, from the four curves: finite at t = 0 too."""
        return sigma * sigma_dot

    def _curve(self, index: int, t: Tensor) -> Tensor:
        t = check_times(t)
        return self.curves(t.detach().cpu().double())[index].to(t)

    def alpha(self, t: Tensor) -> Tensor:
        """How much of the data is left at time t."""
        return self._curve(0, t)

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at time t."""
        return self._curve(1, t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt."""
        return self._curve(2, t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """d sigma / dt (infinite at t = 0 for LinearBeta and Cosine)."""
        return self._curve(3, t)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio alpha^2 / sigma^2 (infinite at t = 0)."""
        return (self.alpha(t) / self.sigma(t)) ** 2

    def add_noise(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t = alpha(t) x0 + sigma(t) eps, for x0 and eps `[B, ...]` and t `[B]` (DDPM, arXiv 2006.11239, eq. 4)."""
        return self._mix(0, x0, t, eps)

    def velocity(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """v = dx_t/dt = alpha_dot(t) x0 + sigma_dot(t) eps, for x0 and eps `[B, ...]` and t `[B]`."""
        return self._mix(2, x0, t, eps)

    def _mix(self, first: int, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The curve numbered `first` times x0, plus the next one times eps."""
        check_noised(x0, t, eps)
        curves = self.curves(t.detach().cpu().double())
        a, b = (expand(curve.to(t), x0) for curve in curves[first : first + 2])
        return a * x0 + b * eps


def check_noised(x0: Tensor, t: Tensor, eps: Tensor) -> None:
    """Raise TypeError or ValueError unless x0 and eps are alike, `[B, ...]`, and t holds a time for each, `[B]`."""
    check_same_shape("eps", eps, "x0", check_tensor("x0", x0))
    check_times(t, len(x0))


def check_schedule(schedule: object) -> Schedule:
    """Return `schedule` if it is one: an instance, such as Cosine(), not its class or its name."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule such as RectifiedFlow(), got {shown(schedule)}")
    return schedule


class _VariancePreserving(Schedule):
    """alpha^2 + sigma^2 = 1, so that sigma d(sigma)/dt = -alpha d(alpha)/dt."""

    def _complete(self, alpha: Tensor, sigma: Tensor, alpha_dot: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return alpha, sigma, alpha_dot, -alpha * alpha_dot / sigma

    def growth(self, alpha: Tensor, sigma: Tensor, alpha_dot: Tensor, sigma_dot: Tensor) -> Tensor:
        return -alpha * alpha_dot


class LinearBeta(_VariancePreserving):
    """DDPM's schedule: alpha(i/steps)^2 = product of (1 - beta_j) for j = 1..i, with betas on a straight line.

    Between the nodes log alpha_bar is interpolated linearly. Source: DDPM, arXiv 2006.11239, section 4.
    """

    def __init__(self, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> None:
        self.steps = check_count("steps", steps)
        check_number("beta_start", beta_start, 1e-8, 0.999)
        check_number("beta_end", beta_end, 1e-8, 0.999)
        check_memory(f"steps: {steps} betas", 50 * steps)
        betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)  # [steps]
        self._log_alpha_bar = torch.cat([torch.zeros(1).double(), torch.log1p(-betas).cumsum(0)])  # [steps + 1]

    def curves(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        table = self._log_alpha_bar
        position = t * self.steps
        left = position.detach().floor().long().clamp(max=self.steps - 1)
        slope = table[left + 1] - table[left]
        log_alpha_bar = table[left] + slope * (position - left)
        alpha = torch.exp(log_alpha_bar / 2)
        return self._complete(alpha, torch.sqrt(-torch.expm1(log_alpha_bar)), alpha * slope * self.steps / 2)


class Cosine(_VariancePreserving):
    """alpha_bar(t) = f(t) / f(0), f(t) = cos^2(pi/2 (t + s) / (1 + s)), s = 0.008 (arXiv 2102.09672, eq. 17).

    cos(pi/2 (t + s) / (1 + s)) is written as sin(pi/2 (1 - t) / (1 + s)): the same, and exactly 0 at t = 1.
    """

    def __init__(self, s: float = 0.008) -> None:
        self.s = check_number("s", s, 0, 1)

    def curves(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rate = math.pi / 2 / (1 + self.s)
        alpha = torch.sin(rate * (1 - t)) / math.sin(rate)
        alpha_dot = -rate * torch.cos(rate * (1 - t)) / math.sin(rate)
        return self._complete(alpha, torch.sqrt((1 - alpha**2).clamp(min=0)), alpha_dot)


class RectifiedFlow(Schedule):
    """The straight line from data to noise: alpha = 1 - t, sigma = t (arXiv 2209.03003, whose time runs back)."""

    def curves(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)


def convert(prediction: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule, *, source: str, target: str) -> Tensor:
    """Rewrite one kind of prediction as another, for the same x_t.

    The kinds: "eps" (the noise), "x0" (the clean sample), "v" (the velocity dx_t/dt = alpha_dot x0 + sigma_dot eps) and
    "score" (the gradient of log p_t: -eps / sigma, for the expected eps). t is `[B]`, all others `[B, ...]` like x_t.
    At an end of time the answer is the limit for this x_t and prediction; where none is finite, and for bad arguments,
    raises ValueError.
    """
    x_t = check_tensor("x_t", x_t)
    prediction = check_same_shape("prediction", prediction, "x_t", x_t)
    t = check_times(t, len(x_t))
    check_choice("source", source, PREDICTIONS)
    check_choice("target", target, PREDICTIONS)
    if source == target:
        return prediction
    curves = check_schedule(schedule).curves(t.detach().cpu().double())
    growth = schedule.growth(*curves)
    alpha, sigma, alpha_dot, sigma_dot, growth = (expand(curve.to(t), x_t) for curve in (*curves, growth))

    def finite(value: Tensor, reason: str) -> Tensor:
        if not torch.isfinite(value).all():
            times = " to ".join(f"{time:.4g}" for time in sorted({t.min().item(), t.max().item()}))
            raise ValueError(f"cannot convert {source!r} to {target!r} at t = {times}: {reason}")
        return value

    if source == "v":
        d = alpha * sigma_dot - sigma * alpha_dot
        x0 = torch.where(sigma == 0, x_t, (sigma_dot * x_t - sigma * prediction) / d)  # at 0 the limit
        eps = (alpha * prediction - alpha_dot * x_t) / d
        score = (alpha_dot * x_t - alpha * prediction) / (alpha * growth - sigma**2 * alpha_dot)  # below is sigma d
    else:
        eps = {"eps": prediction, "score": -sigma * prediction}.get(source, (x_t - alpha * prediction) / sigma)
        x0 = prediction if source == "x0" else (x_t - sigma * eps) / alpha
        score = -eps / sigma
    if target == "x0":
        return finite(x0, "alpha is 0, so x_t holds nothing of x0; use t < 1")
    if target == "eps":
        return finite(eps, "sigma is 0, so x_t holds no noise; use t > 0")
    if target == "score":
        return finite(score, "sigma is 0, and the score cannot be read off; use t > 0")
    noise = -growth * prediction if source == "score" else sigma_dot * eps  # sigma_dot may be infinite, growth not
    return finite(alpha_dot * x0 + noise, "v needs x0 and eps, and one is lost at this end of time")
