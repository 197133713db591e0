"""Exact denoisers. Where the law of the data is known, the best possible guess E[x0 | x_t] is a formula."""

from collections.abc import Callable

import torch
from torch import Tensor

from .schedules import Schedule, check_schedule, expand
from .validate import check_many, check_memory, check_number, check_tensor, check_times

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, ...], t [B]) -> x0_hat [B, ...]


class GaussianMixture:
    """A mixture of K round Gaussians: p(x0) = sum_k weights_k N(x0; means_k, std^2 I).

    means: `[K, D]`; std: one number for all; weights: `[K]`, positive, summing to 1 (equal where None).
    Raises TypeError or ValueError for anything else.
    """

    def __init__(self, means: Tensor, std: float, weights: Tensor | None = None) -> None:
        self.means = check_tensor("means", means, [None, None])
        self.std = check_number("std", std, 1e-6, 1e6)
        k = len(means)
        self.weights = torch.full([k], 1 / k) if weights is None else check_tensor("weights", weights, [k])
        if self.weights.min() <= 0 or abs(self.weights.sum().item() - 1) > 1e-5:
            raise ValueError(f"weights must be positive and sum to 1, got {self.weights.tolist()}")

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n independent samples `[n, D]`: pick a component, add its noise."""
        check_many("n", n, 8 + 12 * self.means.shape[1])
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)  # [n]
        means = self.means[which]  # [n, D]
        return means + self.std * torch.randn(means.shape, generator=generator)

    def responsibilities(self, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """p(component k | x_t), `[B, K]`, by Bayes' rule: component k is now N(alpha m_k, (alpha^2 std^2 + sigma^2) I).

        In -|x_t - alpha m_k|^2 / (2 variance) the term |x_t|^2 is the same for every k, and the softmax drops it.
        """
        x_t = check_tensor("x_t", x_t, [None, self.means.shape[1]])
        t = check_times(t, len(x_t))
        check_schedule(schedule)
        check_memory(f"x_t: {len(x_t)} samples of {len(self.means)} components", 8 * len(x_t) * len(self.means))
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]  # [B, 1]
        means = self.means.to(x_t)
        variance = (alpha * self.std) ** 2 + sigma**2  # [B, 1]
        # log weight + (alpha x_t . m - alpha^2 |m|^2 / 2) / variance, as one matrix product: three times as fast
        query = torch.cat([alpha * x_t, -(alpha**2) / 2], dim=1) / variance  # [B, D + 1]
        key = torch.cat([means, means.square().sum(1, keepdim=True)], dim=1)  # [K, D + 1]
        logits = torch.addmm(self.weights.log().to(x_t), query.to(x_t), key.T)  # [B, K]
        return torch.softmax(logits, dim=1)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """The exact denoiser (x_t `[B, D]`, t `[B]`) -> E[x0 | x_t] `[B, D]`.

        E[x0 | x_t, k] = m_k + gain (x_t - alpha m_k) with gain = alpha std^2 / (alpha^2 std^2 + sigma^2), averaged
        over k by `responsibilities`. At t = 0 this is x_t itself; where alpha = 0 it is the mean of the data.
        """
        check_schedule(schedule)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            mean = self.responsibilities(x_t, t, schedule) @ self.means.to(x_t)  # [B, D], of the likely ones
            alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]  # [B, 1]
            gain = alpha * self.std**2 / ((alpha * self.std) ** 2 + sigma**2)  # [B, 1]
            return mean + gain * (x_t - alpha * mean)

        return denoise


class EmpiricalDenoiser:
    """The exact denoiser of a finite data set `[N, ...]`: an average of the data points, the near ones weighing most.

    E[x0 | x_t] = sum_i w_i x_i, w = softmax_i(-|x_t - alpha x_i|^2 / (2 sigma^2)). At t = 0 it returns x_t.
    """

    def __init__(self, data: Tensor, schedule: Schedule) -> None:
        self.data = check_tensor("data", data)
        self.schedule = check_schedule(schedule)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        x_t = check_tensor("x_t", x_t, [None, *self.data.shape[1:]])
        t = check_times(t, len(x_t))
        check_memory(f"x_t: {len(x_t)} samples, each against {len(self.data)} points", 8 * len(x_t) * self.data.numel())
        alpha, sigma = (curve(t).to(x_t)[:, None] for curve in (self.schedule.alpha, self.schedule.sigma))  # [B, 1]
        data, x = self.data.to(x_t).flatten(1), x_t.flatten(1)  # [N, D], [B, D]
        distance = (x[:, None] - alpha[..., None] * data).square().sum(-1)  # [B, N]
        x0_hat = torch.softmax(-distance / (2 * sigma**2).clamp(min=1e-12), dim=1) @ data
        return torch.where(expand(sigma == 0, x_t), x_t, x0_hat.reshape(x_t.shape))
