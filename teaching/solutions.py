"""Solutions of the exercises in place, chapters 00 to 05: a value or function for each check in sora_lib/checks.py."""

import math

import torch
from torch import Tensor

# --- 00, start here

# batch * channels * frames * height * width
video_numbers = 1.0 * 3 * 17 * 32 * 32

# --- 01, the article

# Targets are fresh draws of variance 1, so nothing beats the answer 0, their mean, and it errs by that variance.
fresh_error = 1.0


def best_constant(targets: Tensor) -> Tensor:
    """The mean of each column is the best constant; what remains is the variance around it, divided by N, not N - 1."""
    return (targets - targets.mean(dim=0)).square().mean()


# --- 02, forward diffusion

# alpha^2 Var(x0) + sigma^2 = 0.5^2 * 1 + 0.5^2: on the straight path the variance dips in the middle.
middle_variance = 0.5


def alpha_bar(betas: Tensor, i: int) -> Tensor:
    """The product of (1 - beta_j) for j = 1..i; betas[0] is beta_1, so the slice ends at i."""
    return torch.prod(1 - betas[:i])


def jump(x0: Tensor, alpha_bar: float, eps: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
    return math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * eps


# --- 03, reverse denoising

# -1 and +1 are equally likely given x_t = 0, and the best guess under squared error is their mean.
best_guess = 0.0


def gaussian_denoiser(x_t: Tensor, alpha: float, sigma: float, mean: Tensor, std: float) -> Tensor:
    """E[x0 | x_t] = mean + gain (x_t - alpha mean): the gain is Cov(x0, x_t) / Var(x_t)."""
    gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
    return mean + gain * (x_t - alpha * mean)


def posterior_mean(
    x_t: Tensor, x0_hat: Tensor, alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float
) -> Tensor:
    """(a sigma_s^2 x_t + alpha_s V x0_hat) / sigma_t^2, with a = alpha_t / alpha_s, V = sigma_t^2 - a^2 sigma_s^2."""
    a = alpha_t / alpha_s
    variance = sigma_t**2 - a**2 * sigma_s**2
    return (a * sigma_s**2 * x_t + alpha_s * variance * x0_hat) / sigma_t**2


# --- 04, a denoiser

# At t = 1 nothing of x0 is left to see, so the best guess is the mean of the data, and standardised data has mean 0.
blind_guess = 0.0


def time_features(t: Tensor, frequencies: Tensor) -> Tensor:
    """Sines, then cosines, of 2 pi t f: `[B]` and `[K]` to `[B, 2 K]`."""
    angles = 2 * math.pi * t[:, None] * frequencies
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


# --- 05, the training loop

# v = eps - x0 with independent parts of variance 1 and 4: E[v^2] = 1 + 4.
zero_velocity_loss = 5.0


def velocity_target(x0: Tensor, eps: Tensor) -> Tensor:
    """d/dt of (1 - t) x0 + t eps."""
    return eps - x0


def ema_update(average: Tensor, weight: Tensor, decay: float) -> Tensor:
    """A decay near 1 keeps nearly all of the average."""
    return decay * average + (1 - decay) * weight
