"""Mini-Sora: the diffusion transformer of video latents, told a caption and, where there are any, known frames.

Latents are `[B, C, n, h, w]`, where n = 1 + (frames - 1) / 4 and h, w are height and width over 4. An image is n = 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .text import TextEncoder, tokenize
from .transformer import DiT, Size, check_size, grid_of, patchify
from .validate import check_count, check_memory, check_same_shape, check_tensor, check_times, shown


@dataclass
class Told:
    """What the network is told of each sample: a caption, and which latent frames are known.

    tokens `[B, L]`; known `[B, C, n, h, w]`, clean latents, anything where they are not known; mask `[B, n]`, 1 where
    a latent frame is known, else 0.
    """

    tokens: Tensor
    known: Tensor
    mask: Tensor

    def without_caption(self) -> "Told":
        """The same frames and no caption."""
        return Told(torch.zeros_like(self.tokens), self.known, self.mask)


def told(captions: Sequence[str | None], size: Size, channels: int = 8) -> Told:
    """Captions alone, for latents of `size` (n, h, w): no frame is known."""
    tokens, (n, h, w) = tokenize(captions), check_size("size", size)
    shape = len(tokens), check_count("channels", channels), n, h, w
    check_memory(f"latents of {list(shape)}", 4 * math.prod(shape))
    return Told(tokens, torch.zeros(shape), torch.zeros(len(tokens), n))


class MiniSora(DiT):
    """A DiT that reads a caption and known frames, trained on v on the straight path.

    The caption is a vector added to the embedded time (adaLN-Zero). Known frames come as further channels of each
    patch, the clean latents and the mask; their layer starts at zero. Rotary positions and a code of each place.
    """

    def __init__(
        self, channels: int = 8, patch_size: Size = (1, 2, 2), width: int = 192, depth: int = 6, heads: int = 4
    ) -> None:
        super().__init__(channels, patch_size, width, depth, heads, absolute=True)
        self.embed_text = nn.Sequential(TextEncoder(width, heads=heads), nn.Linear(width, width))
        numbers = (channels + 1) * self.patch_size[0] * self.patch_size[1] * self.patch_size[2]
        self.embed_known = nn.Linear(numbers, width, bias=False)
        nn.init.zeros_(self.embed_known.weight)

    def forward(self, x_t: Tensor, t: Tensor, told: Told) -> Tensor:
        """Noisy latents `[B, C, n, h, w]` and times `[B]` to the velocity, `[B, C, n, h, w]`."""
        x_t = check_tensor("x_t", x_t, [None, self.channels, None, None, None], self.embed_patch.weight.dtype)
        if not isinstance(told, Told):
            raise TypeError(f"told must be a Told, as `told` makes it, got {shown(told)}")
        words = self.embed_text(told.tokens)  # [B, width]
        if len(words) != len(x_t):
            raise ValueError(f"told.tokens must be a row for each sample, {len(x_t)}, got {len(words)}")
        known = check_same_shape("told.known", told.known, "x_t", x_t).to(x_t)
        mask = check_tensor("told.mask", told.mask, [len(x_t), x_t.shape[2]]).to(x_t)
        mask = mask[:, None, :, None, None].expand_as(x_t[:, :1])
        extra = torch.cat([known * mask, mask], dim=1)  # [B, C + 1, n, h, w]
        condition = self.embed_time(check_times(t, len(x_t)).to(x_t)) + words  # [B, width]
        h = self.embed_patch(patchify(x_t, self.patch_size)) + self.embed_known(patchify(extra, self.patch_size))
        return self.transform(h, condition, grid_of(x_t, self.patch_size))
