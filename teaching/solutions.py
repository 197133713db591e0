"""Solutions of the exercises in place, chapters 00 to 16: a value or function for each check in teaching/checks."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

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


# --- 06, fewer steps

# Two calls a step, but one for the last, which returns x0_hat: 2 * 20 - 1.
heun_calls = 39.0


def heun_step(velocity: Callable[[Tensor, float], Tensor], x: Tensor, t: float, s: float) -> Tensor:
    """Try Euler's step, look again at its end, and go with the mean of both velocities."""
    here = velocity(x, t)
    there = velocity(x + (s - t) * here, s)
    return x + (s - t) * (here + there) / 2


# --- 07, flow matching

# Only (x0, eps) = (-1, 1) and (1, -1) meet at 0, with equal density of eps: v = 2 with chance 1/4, -2 with chance 3/4.
crossing_velocity = -1.0


def reversed_clean(x_s: Tensor, s: float, u: Tensor) -> Tensor:
    """Walk on at velocity u for the time that is left."""
    return x_s + (1 - s) * u


def bending(start: Tensor, end: Tensor, velocities: Tensor) -> Tensor:
    """The mean squared deviation of the velocities from the straight way: `[B, D]` stretches over the K times."""
    return (start - end - velocities).square().mean()


# --- 08, images and DiT

# 64 tokens in place of 16, and a weight for each pair of tokens: 64^2 / 16^2.
weights_factor = 16.0


def patches_to_image(tokens: Tensor, p: int, rows: int, columns: int) -> Tensor:
    """Split the tokens into rows and columns of the grid and of the patch, then bring the two rows together."""
    x = tokens.reshape(len(tokens), rows, columns, p, p)
    return x.permute(0, 1, 3, 2, 4).reshape(len(tokens), rows * p, columns * p)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each query's weights over the keys sum to 1: `[N, M]`."""
    weights = torch.softmax(q @ k.T / math.sqrt(q.shape[1]), dim=1)
    return weights @ v


# --- 09, guidance

# The paper's w counts from the conditional answer: 0.8 + 2 * (0.8 - 0.2), the same as 0.2 + 3 * (0.8 - 0.2).
guided_value = 2.0


def dropped_labels(label: Tensor, u: Tensor, share: float, none: int) -> Tensor:
    """A uniform number lies below `share` with probability `share`."""
    return torch.where(u < share, none, label)


def interval_guidance(cond: Tensor, uncond: Tensor, t: Tensor, scale: float, low: float, high: float) -> Tensor:
    """Each sample has its own scale: `scale` inside the interval, 1 outside, which is the conditional answer."""
    factor = torch.where((t > low) & (t < high), scale, 1.0)
    return uncond + factor[:, None] * (cond - uncond)


# --- 10, latents

# What is left out: (2^2 + 1^2) / (5 * 4).
pca_error = 0.25


def kl_to_width(mean: Tensor, log_var: Tensor, c: float) -> Tensor:
    """In units of c the mean is mean / c and the variance var / c^2; the KL does not depend on units."""
    log_var = log_var - 2 * math.log(c)
    return ((mean / c) ** 2 + log_var.exp() - 1 - log_var) / 2


def normalise_video(z: Tensor) -> Tensor:
    """All axes but the channels'."""
    axes = (0, 2, 3, 4)
    return (z - z.mean(axes, keepdim=True)) / z.std(axes, correction=0, keepdim=True)


# --- 11, video and patches

# 33 frames make 1 + 8 latent frames, 48 x 64 pixels 12 x 16 places, and each of the 9 gives 6 x 8 patches.
video_tokens = 432.0


def patches_frames_first(x: Tensor, pf: int, ph: int, pw: int) -> Tensor:
    """Split frames, rows and columns in two; the outer parts make the token's place, the inner ones its numbers."""
    b, f, c, h, w = x.shape
    x = x.reshape(b, f // pf, pf, c, h // ph, ph, w // pw, pw)
    return x.permute(0, 1, 4, 6, 2, 5, 7, 3).reshape(b, -1, pf * ph * pw * c)


def space_then_time(x: Tensor, grid: tuple[int, int, int], attend: Callable[[Tensor], Tensor]) -> Tensor:
    """Frames join the batch while places attend to each other, then the other way round."""
    b, (f, h, w) = len(x), grid
    x = attend(x.reshape(b * f, h * w, -1)).reshape(b, f, h * w, -1)
    x = attend(x.transpose(1, 2).reshape(b * h * w, f, -1)).reshape(b, h * w, f, -1)
    return x.transpose(1, 2).reshape(b, f * h * w, -1)


# --- 12, a video autoencoder

# The block on latent frames sees three of them, 12 frames; the block before the grouping looks 2 frames further back.
frames_seen = 14.0


def causal_conv(x: Tensor, weight: Tensor) -> Tensor:
    """All padding on the left: k - 1 zeros before the first frame."""
    return functional.conv1d(functional.pad(x, (weight.shape[2] - 1, 0)), weight)


def encode_end(encode: Callable[[Tensor], Tensor], x: Tensor, last: int) -> Tensor:
    """The first of the given frames makes a group of its own: 1 + 4 (last - 1) frames."""
    return encode(x[:, :, -(4 * last - 3) :])


# --- 13, Mini-Sora

# Independent: 0.95 to the power of 4, in percent.
all_right = 81.45


def mean_of_words(h: Tensor, tokens: Tensor) -> Tensor:
    """Padding is left out of the sum and of the count; each caption has its own count."""
    real = (tokens != 0)[..., None].float()
    return (h * real).sum(1) / real.sum(1)


def known_channels(known: Tensor, mask: Tensor) -> Tensor:
    """The frames where they are known, else 0, and one channel more that says which."""
    mask = mask[:, None, :, None, None].expand_as(known[:, :1])
    return torch.cat([known * mask, mask], dim=1)


# --- 15, measuring video

# Off by the speed: 1 on average where something moves, 0 where it stands still, which is one way in nine.
frozen_error = 8 / 9


def keeps_subject(logits: Tensor, wanted: Tensor) -> Tensor:
    """Right in each frame, then in all frames of a video, then the share of videos."""
    return (logits.argmax(2) == wanted[:, None]).all(1).float().mean()


def nearest_other(x: Tensor) -> Tensor:
    """A row's distance to itself is made infinite, so that it is never the nearest."""
    return torch.cdist(x, x).fill_diagonal_(torch.inf).min(1).values


# --- 14, what Sora can do

# There and back through the room of 18 pixels, at 1.5 pixels a frame: 2 * 18 / 1.5.
lawful_loop = 24.0


def known_mask(frames: int, first: int, last: int) -> Tensor:
    """1 + 4k frames make 1 + k latent ones, 0 make none. Counted from the front, since a slice of -0 takes all."""
    n, start, end = ((count + 3) // 4 for count in (frames, first, last))
    mask = torch.zeros(n)
    mask[:start] = 1
    mask[n - end :] = 1
    return mask


def closed_loop(video: Tensor, new: Tensor, k: int) -> Tensor:
    """The video, and of `new` what is not in it already."""
    return torch.cat([video, new[:, :, k:-k]], dim=2)


# --- 16, scaling out

# Weights, gradients, two moments and the average: five numbers of 4 bytes for each of 2e9 parameters, on every device.
state_gigabytes = 40.0


def shared_mean(gradients: Tensor, rows: Tensor) -> Tensor:
    """Each mean times its rows is a sum over rows; these add up, and the number of all rows divides them."""
    return (rows[:, None] * gradients).sum(0) / rows.sum()


def merged_attention(outputs: Tensor, logsums: Tensor) -> Tensor:
    """A part counts by its share of the sum of all exponentials, query by query: a softmax over the parts."""
    return (logsums.softmax(0)[..., None] * outputs).sum(0)
