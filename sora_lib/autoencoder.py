"""A variational autoencoder: a network that makes latents of data, and one that makes data of latents.

Images `[B, C, H, W]` and video `[B, C, F, H, W]` alike: the axes after the channels are the networks' own business.
Source: Auto-Encoding Variational Bayes, arXiv 1312.6114.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from .validate import check_count, check_memory, check_number, check_tensor


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL of N(mean, var) from N(0, 1), number by number: (mean^2 + var - 1 - log var) / 2 (1312.6114, appendix B)."""
    return (mean.square() + log_var.exp() - 1 - log_var) / 2


class Autoencoder(nn.Module):
    """An encoder and a decoder, trained together; then a frame around them that gives latents of mean 0, variance 1.

    encoder: x `[B, C, ...]` to `[B, 2 channels, ...]`, mean and log variance of each latent number. decoder: a latent
    `[B, channels, ...]` back to the shape of x. Raises ValueError or TypeError for bad arguments and wrong shapes.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, channels: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.channels = encoder, decoder, check_count("channels", channels)
        check_memory(f"channels: {channels} means", 8 * channels)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents of x, each `[B, channels, ...]`, not normalised."""
        output = self.encoder(check_tensor("x", x))  # [B, 2 channels, ...]
        if output.shape[:2] != (len(x), 2 * self.channels):
            wanted = f"[{len(x)}, {2 * self.channels}, ...], mean and log variance of {self.channels} channels"
            raise ValueError(f"encoder must give {wanted}, for x of {list(x.shape)}, got {list(output.shape)}")
        mean, log_var = output.chunk(2, dim=1)
        return mean, log_var

    def loss(self, x: Tensor, kl_weight: float, *, generator: torch.Generator | None = None) -> Tensor:
        """Reconstruction error of one draw of the latents, a mean over all of x, + kl_weight * mean KL a latent number.

        The draw is z = mean + std eps, so that gradients reach mean and std. For a decoder with noise of variance s^2
        this is the negative ELBO up to a factor and a constant, where kl_weight = 2 s^2 (numbers of z / numbers of x).
        """
        check_number("kl_weight", kl_weight, 0, 1e6)
        mean, log_var = self.posterior(x)
        eps = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = self.decoder(mean + (log_var / 2).exp() * eps)
        if decoded.shape != x.shape:
            raise ValueError(f"decoder must give the shape of x, {list(x.shape)}, got {list(decoded.shape)}")
        return (decoded - x).square().mean() + kl_weight * kl_divergence(mean, log_var).mean()

    @torch.no_grad()
    def fit_normalisation(self, x: Tensor) -> None:
        """Measure mean and standard deviation of each latent channel on x `[N, C, ...]`: `encode` then divides by them.

        Raises ValueError for a channel that is the same everywhere (collapsed).
        """
        means = torch.cat([self.posterior(part)[0] for part in check_tensor("x", x).split(256)])  # [N, channels, ...]
        means = means.transpose(0, 1).flatten(1)  # [channels, N ...]
        std = means.std(dim=1, correction=0)
        if (std < 1e-6).any():
            dead = (std < 1e-6).nonzero().flatten().tolist()
            raise ValueError(f"x: latent channels {dead} do not depend on x; train with a smaller kl_weight")
        self.mean.copy_(means.mean(dim=1))
        self.std.copy_(std)

    def encode(self, x: Tensor) -> Tensor:
        """The latents of x: their posterior mean, normalised, `[B, channels, ...]`."""
        z, _ = self.posterior(x)
        mean, std = self._frame(z)
        return (z - mean) / std

    def decode(self, z: Tensor) -> Tensor:
        """Data from normalised latents `[B, channels, ...]`."""
        z = check_tensor("z", z)
        if z.shape[1:2] != (self.channels,):
            raise ValueError(f"z must be [B, {self.channels}, ...], got {list(z.shape)}")
        mean, std = self._frame(z)
        return self.decoder(z * std + mean)

    def _frame(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The channels' mean and std, each `[1, channels, 1, ...]`, with as many axes as z."""
        shape = [1, -1] + [1] * (z.ndim - 2)
        return self.mean.reshape(shape), self.std.reshape(shape)


PATCH = "b c f (h ph) (w pw) -> b f h w (ph pw c)"  # 4 x 4 pixels of one frame; channels come last from here on
GROUP = "b (f pf) h w c -> b f h w (pf c)"  # four frames


class CausalBlock(nn.Module):
    """h plus a correction, `[B, F, h, w, width]`: a look at the neighbours in space, then at the two frames before.

    The norm is over the channels of each place alone: one over frames would let the future through.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.space = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Linear(3 * width, width)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, h: Tensor) -> Tensor:
        batch, frames = h.shape[:2]
        a = silu(self.norm(h)).flatten(0, 1).movedim(-1, 1)  # [B F, width, h, w]
        a = silu(self.space(a)).movedim(1, -1).unflatten(0, (batch, frames))  # [B, F, h, w, width]
        past = pad(a, (0, 0, 0, 0, 0, 0, 2, 0))  # two frames of zeros before the first
        return h + self.time(torch.cat([past[:, i : i + frames] for i in range(3)], dim=-1))


class VideoEncoder(nn.Module):
    """Video `[B, 3, 1 + 4n, H, W]` to `[B, out, 1 + n, H / 4, W / 4]`, causal in time.

    Each frame is looked at by itself first, then four at a time. The first frame makes a group of its own: it is shown
    four times.
    """

    def __init__(self, out: int, width: int, depth: int) -> None:
        super().__init__()
        self.inp = nn.Linear(3 * 4 * 4, width // 2)
        self.frames = CausalBlock(width // 2)
        self.group = nn.Linear(2 * width, width)
        self.blocks = nn.Sequential(*(CausalBlock(width) for _ in range(depth)))
        self.out = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        x = check_video(x, self.inp.weight.dtype)
        h = self.inp(rearrange(x, PATCH, ph=4, pw=4))  # [B, 1 + 4n, h, w, width / 2]
        h = self.frames(h)
        h = torch.cat([h[:, :1].expand(-1, 3, -1, -1, -1), h], dim=1)  # [B, 4 + 4n, h, w, width / 2]
        h = self.group(rearrange(h, GROUP, pf=4))  # [B, 1 + n, h, w, width]
        return self.out(self.blocks(h)).movedim(-1, 1)


class VideoDecoder(nn.Module):
    """Latents `[B, channels, 1 + n, h, w]` to video `[B, 3, 1 + 4n, 4h, 4w]`: the encoder's way back, causal too."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.inp = nn.Linear(channels, width)
        self.blocks = nn.Sequential(*(CausalBlock(width) for _ in range(depth)))
        self.group = nn.Linear(width, 2 * width)
        self.frames = CausalBlock(width // 2)
        self.out = nn.Linear(width // 2, 3 * 4 * 4)

    def forward(self, z: Tensor) -> Tensor:
        z = check_tensor("z", z, [None, self.inp.in_features, None, None, None], self.inp.weight.dtype)
        h = self.group(self.blocks(self.inp(z.movedim(1, -1))))  # [B, 1 + n, h, w, 2 width]
        h = rearrange(h, _back(GROUP), pf=4)[:, 3:]  # of the first group only the last: [B, 1 + 4n, h, w, width / 2]
        return rearrange(self.out(self.frames(h)), _back(PATCH), ph=4, pw=4)


def _back(pattern: str) -> str:
    """The rearrangement the other way round."""
    return " -> ".join(reversed(pattern.split(" -> ")))


class VideoAutoencoder(Autoencoder):
    """The autoencoder of video `[B, 3, 1 + 4n, H, W]`: 4 times fewer frames, rows and columns, `channels` numbers each.

    Causal: a latent frame, and a decoded one, depend on nothing that comes later. An image is a video of one frame.
    """

    def __init__(self, channels: int = 8, width: int = 128, depth: int = 3) -> None:
        if check_count("width", width) % 2:
            raise ValueError(f"width must be even, got {width}")
        check_count("depth", depth, 0)
        check_memory(f"weights of width {width} and depth {depth}", 96 * width**2 * (depth + 1))
        check_count("channels", channels)
        super().__init__(VideoEncoder(2 * channels, width, depth), VideoDecoder(channels, width, depth), channels)


def check_video(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return x if it is a video `[B, 3, 1 + 4n, H, W]` whose height and width are multiples of 4."""
    x = check_tensor("x", x, [None, 3, None, None, None], dtype)
    if x.shape[2] % 4 != 1:
        raise ValueError(f"x must have 1, 5, 9, ... frames (1 + 4n), got {x.shape[2]}")
    if x.shape[3] % 4 or x.shape[4] % 4:
        raise ValueError(f"height and width of x must be multiples of 4, got {x.shape[3]} and {x.shape[4]}")
    return x
