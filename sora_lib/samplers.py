"""From noise to samples. Each sampler needs only `denoise(x_t [B, ...], t [B]) -> x0_hat [B, ...]` and a schedule.

All share one signature: x_start `[B, ...]` is the sample at the first time; `steps` is a number of equal steps from
t = 1 to t = 0, or a decreasing float tensor of times. They return the sample at the last time, `[B, ...]`, or with
trajectory=True all of them, `[steps + 1, B, ...]`. A step that ends at t = 0 returns x0_hat.
"""

from collections.abc import Callable
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor

from .oracle import Denoiser
from .schedules import Schedule, check_schedule
from .validate import check_flag, check_many, check_memory, check_number, check_same_shape, check_tensor, check_times


def time_grid(steps: int | Tensor) -> Tensor:
    """The times a sampler visits, `[steps + 1]`, decreasing, in float64."""
    if not isinstance(steps, Tensor):
        return torch.linspace(1, 0, check_many("steps", steps, 50) + 1, dtype=torch.float64)
    times = check_times(steps, name="steps").double()
    if len(times) < 2 or (times.diff() >= 0).any():
        raise ValueError(f"steps as a tensor must hold at least two decreasing times, got {steps.tolist()[:8]}")
    return times


def _walk(
    step: Callable[[Tensor, float, float], Tensor], x_start: Tensor, steps: int | Tensor, trajectory: bool
) -> Tensor:
    """Apply `step(x_t, t, s) -> x_s` from each time t to the next, s."""
    times = time_grid(steps).tolist()
    x = check_tensor("x_start", x_start)
    if check_flag("trajectory", trajectory):
        check_memory(f"a trajectory of {len(times)} times {list(x.shape)}", 3 * len(times) * x.nbytes)
    path = [x]
    with torch.no_grad():
        for t, s in pairwise(times):
            x = step(x, t, s)
            if trajectory:
                path.append(x)
    return torch.stack(path) if trajectory else x


def _at(schedule: Schedule, time: float) -> list[float]:
    """alpha, sigma, alpha_dot and sigma_dot at one time, as float64 numbers."""
    return [curve.item() for curve in check_schedule(schedule).curves(torch.tensor([time], dtype=torch.float64))]


def _guess(denoise: Denoiser, x: Tensor, time: float) -> Tensor:
    t = torch.full([len(x)], time, dtype=x.dtype, device=x.device)
    return check_same_shape("denoise(x_t, t)", denoise(x, t), "x_t", x)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def ancestral(
    denoise: Denoiser,
    schedule: Schedule,
    x_start: Tensor,
    steps: int | Tensor,
    *,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    """Draw each x_s from the Gaussian posterior q(x_s | x_t, x0_hat): p(x_s | x_t), as the steps get small.

    With a = alpha_t / alpha_s and V = sigma_t^2 - a^2 sigma_s^2, its mean is
    (a sigma_s^2 x_t + alpha_s V x0_hat) / sigma_t^2 and its variance sigma_s^2 V / sigma_t^2
    (VDM, arXiv 2107.00630, appendix A; on LinearBeta's own grid these are eq. 7 of DDPM, arXiv 2006.11239).
    """

    def step(x: Tensor, t: float, s: float) -> Tensor:
        x0_hat = _guess(denoise, x, t)
        if s == 0:
            return x0_hat
        (alpha_t, sigma_t, *_), (alpha_s, sigma_s, *_) = _at(schedule, t), _at(schedule, s)
        a = alpha_t / alpha_s
        v = sigma_t**2 - a**2 * sigma_s**2
        mean = (a * sigma_s**2 * x + alpha_s * v * x0_hat) / sigma_t**2
        return mean + sigma_s * sqrt(v) / sigma_t * _noise_like(x, generator)

    return _walk(step, x_start, steps, trajectory)


def ddim(
    denoise: Denoiser,
    schedule: Schedule,
    x_start: Tensor,
    steps: int | Tensor,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - tau^2) eps_hat + tau z (DDIM, arXiv 2010.02502, eq. 12 and 16).

    tau is eta times the posterior's standard deviation: eta = 0 adds no noise, eta = 1 is `ancestral`. On schedules
    that do not preserve the variance this tau is our extension of eq. 16.
    """
    check_number("eta", eta, 0, 1)

    def step(x: Tensor, t: float, s: float) -> Tensor:
        x0_hat = _guess(denoise, x, t)
        if s == 0:
            return x0_hat
        (alpha_t, sigma_t, *_), (alpha_s, sigma_s, *_) = _at(schedule, t), _at(schedule, s)
        eps_hat = (x - alpha_t * x0_hat) / sigma_t
        tau = eta * sigma_s * sqrt(1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2)
        mean = alpha_s * x0_hat + sqrt(sigma_s**2 - tau**2) * eps_hat
        return mean if eta == 0 else mean + tau * _noise_like(x, generator)

    return _walk(step, x_start, steps, trajectory)


def _velocity(denoise: Denoiser, schedule: Schedule, x: Tensor, time: float) -> Tensor:
    """dx/dt of the probability-flow ODE at one time: alpha_dot x0_hat + sigma_dot eps_hat."""
    alpha, sigma, alpha_dot, sigma_dot = _at(schedule, time)
    x0_hat = _guess(denoise, x, time)
    return alpha_dot * x0_hat + sigma_dot * (x - alpha * x0_hat) / sigma


def euler(
    denoise: Denoiser,
    schedule: Schedule,
    x_start: Tensor,
    steps: int | Tensor,
    *,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    """x_s = x_t + (s - t) v: the probability-flow ODE (arXiv 2011.13456, eq. 13) by straight strides, order 1."""

    def step(x: Tensor, t: float, s: float) -> Tensor:
        return _guess(denoise, x, t) if s == 0 else x + (s - t) * _velocity(denoise, schedule, x, t)

    return _walk(step, x_start, steps, trajectory)


def heun(
    denoise: Denoiser,
    schedule: Schedule,
    x_start: Tensor,
    steps: int | Tensor,
    *,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    """The same ODE, striding with the mean of the velocities at both ends, order 2 (EDM, arXiv 2206.00364, alg. 1).

    Two evaluations a step but for the last: 2 steps - 1 in all.
    """

    def step(x: Tensor, t: float, s: float) -> Tensor:
        if s == 0:
            return _guess(denoise, x, t)
        v_t = _velocity(denoise, schedule, x, t)
        v_s = _velocity(denoise, schedule, x + (s - t) * v_t, s)
        return x + (s - t) * (v_t + v_s) / 2

    return _walk(step, x_start, steps, trajectory)


def guided(cond_denoise: Denoiser, uncond_denoise: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance: uncond + scale (cond - uncond), on x0_hat (arXiv 2207.12598, eq. 6, w = scale - 1).

    scale = 0 ignores the condition, 1 is the plain conditional denoiser, more goes beyond it. At one x_t and t, x0_hat,
    eps, v and score follow from each other by a straight line, so guiding any of them guides all.
    """
    check_number("scale", scale, 0, 1000)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        uncond = uncond_denoise(x_t, t)
        return uncond + scale * (cond_denoise(x_t, t) - uncond)

    return denoise
