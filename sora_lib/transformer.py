"""A diffusion transformer (DiT): patches become tokens, every token attends to every other, adaLN-Zero brings in time.

Video is `[B, C, F, H, W]`; an image is a video of one frame. Source: DiT, arXiv 2212.09748.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .denoisers import TimeEmbedding
from .validate import (
    FLOATS,
    check_count,
    check_flag,
    check_memory,
    check_number,
    check_tensor,
    check_times,
    is_whole,
    shown,
)

Size = tuple[int, int, int]  # of a patch or of a grid: along frames, height and width
PATCHES = "b c (f pf) (h ph) (w pw) -> b (f h w) (pf ph pw c)"


def check_size(name: str, value: object) -> Size:
    """Return `value` if it is three whole numbers, 1 or more: along frames, height and width."""
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name} must be three whole numbers, for frames, height and width, got {shown(value)}")
    if len(value) != 3:
        raise ValueError(f"{name} must be three whole numbers, for frames, height and width, got {shown(value)}")
    f, h, w = (check_count(name, size) for size in value)
    return f, h, w


def grid_of(x: Tensor, patch_size: Size) -> Size:
    """How many patches fit along frames, height and width of `[B, C, F, H, W]`; ValueError where they do not."""
    x = check_tensor("x", x, [None] * 5)
    patch_size = check_size("patch_size", patch_size)
    if any(size % patch for size, patch in zip(x.shape[2:], patch_size, strict=True)):
        raise ValueError(f"frames, height and width, {list(x.shape[2:])}, must be multiples of patch_size {patch_size}")
    f, h, w = (size // patch for size, patch in zip(x.shape[2:], patch_size, strict=True))
    return f, h, w


def patchify(x: Tensor, patch_size: Size) -> Tensor:
    """Cut `[B, C, F, H, W]` into patches: tokens `[B, f h w, pf ph pw C]`, frame by frame, row by row."""
    grid_of(x, patch_size)
    pf, ph, pw = patch_size
    return rearrange(x, PATCHES, pf=pf, ph=ph, pw=pw)


def unpatchify(tokens: Tensor, patch_size: Size, grid: Size) -> Tensor:
    """Put tokens `[B, f h w, pf ph pw C]` back in their places: `[B, C, F, H, W]`. The inverse of `patchify`."""
    (pf, ph, pw), (f, h, w) = check_size("patch_size", patch_size), check_size("grid", grid)
    tokens = check_tensor("tokens", tokens, [None, f * h * w, None])
    if tokens.shape[2] % (pf * ph * pw):
        raise ValueError(f"tokens of {tokens.shape[2]} numbers are not patches of {patch_size}")
    before, after = PATCHES.split(" -> ")
    return rearrange(tokens, f"{after} -> {before}", pf=pf, ph=ph, pw=pw, f=f, h=h, w=w)


def rotary_angles(grid: Size, head_dim: int, base: float = 100.0) -> Tensor:
    """The angle by which each pair of a head's numbers turns at each place of the grid, `[f h w, head_dim / 2]`.

    A third of the pairs turns with the row, a third with the column, the rest with the frame; within a part the turn
    per place falls from 1 radian to nearly 1 / base (RoFormer, arXiv 2104.09864, eq. 15, one axis after another).
    """
    if check_count("head_dim", head_dim, 6) % 2:
        raise ValueError(f"head_dim must be even, a pair for each turn, got {head_dim}")
    check_number("base", base, 1, 1e9)
    f, h, w = check_size("grid", grid)
    check_memory(f"angles of {f} x {h} x {w} places", 8 * f * h * w * head_dim)
    part = head_dim // 6
    pairs = (head_dim // 2 - 2 * part, part, part)  # for frame, row and column
    axes = [torch.arange(size).float() for size in (f, h, w)]
    places = torch.cartesian_prod(*axes)  # [N, 3]: frame, row and column
    turns = [places[:, [i]] * base ** (-torch.arange(n) / n) for i, n in enumerate(pairs)]  # [N, n] each
    return torch.cat(turns, dim=1)


def place_code(grid: Size, width: int) -> Tensor:
    """A fixed code of each place of the grid, `[f h w, width]`: sines and cosines of `rotary_angles`."""
    angles = rotary_angles(grid, width)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair of neighbours, the numbers 2 i and 2 i + 1 of `[B, heads, N, D]`, by its angle `[N, D / 2]`.

    A pair (a, b) is seen as the complex number a + b i; times e^(i angle), it is turned (RoFormer, arXiv 2104.09864,
    eq. 34). Dot products of turned vectors then depend on the distance between their places alone. The layout in memory
    may be any. Raises TypeError for other dtypes than float32 and float64, ValueError for other shapes.
    """
    if x.dtype not in FLOATS or angles.dtype not in FLOATS:
        raise TypeError(f"x and angles must be float tensors, got dtypes {x.dtype} and {angles.dtype}")
    if 2 * angles.shape[-1] != x.shape[-1] or angles.shape[:-1] != x.shape[-2:-1]:
        raise ValueError(f"angles must be [N, D / 2] for x [B, heads, N, D], {list(x.shape)}, got {list(angles.shape)}")
    turned = _complex(x) * torch.polar(torch.ones_like(angles), angles)  # [B, heads, N, D / 2]
    return torch.view_as_real(turned).flatten(-2)  # [B, heads, N, D]


def _complex(x: Tensor) -> Tensor:
    """Pairs as complex numbers, `[..., D]` to `[..., D / 2]`: the same memory, or a copy where that has odd steps."""
    x = x.unflatten(-1, (-1, 2))
    if x.stride(-1) != 1 or any(step % 2 for step in (x.storage_offset(), *x.stride()[:-1])):
        x = x.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(x)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, in one pass over x."""
    return torch.addcmul(shift, x, 1 + scale)


class Attention(nn.Module):
    """Every token looks at every other, `[B, N, width]` to `[B, N, width]`, in several heads, with rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: True where a token may be looked at, `[B, 1, 1, N]`; without it, everywhere."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        h = scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v, mask)  # [B, heads, N, D]
        return self.out(rearrange(h, "b h n d -> b n (h d)"))


class DiTBlock(nn.Module):
    """Attention, then an MLP on each token; both shifted, scaled and gated by the condition (adaLN-Zero).

    The layer that makes shifts, scales and gates starts at zero, so that a new block hands its input on unchanged.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = _zero(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor, angles: Tensor) -> Tensor:
        """x `[B, N, width]`, condition `[B, width]`, angles `[N, head_dim / 2]` to `[B, N, width]`."""
        parts = self.modulation(nn.functional.silu(condition))[:, None].chunk(6, dim=-1)  # [B, 1, width] each
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), angles)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """Tokens `[B, N, width]` to patches `[B, N, numbers]`; starts at zero, like every gate."""

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = _zero(nn.Linear(width, 2 * width))
        self.out = _zero(nn.Linear(width, numbers))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(nn.functional.silu(condition))[:, None].chunk(2, dim=-1)
        return self.out(modulate(self.norm(x), shift, scale))


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DiT(nn.Module):
    """A diffusion transformer on video or images: noisy x_t `[B, C, F, H, W]` and times `[B]` in, a prediction out.

    patch_size: frames, rows and columns of a patch. classes: the number of labels; with labels, `forward` takes
    `label` `[B]`, whole numbers from 0 to `classes`, where `classes` itself means "no label". Rotary positions tell a
    token how far off the others are; with `absolute` it also gets a code of its own place, as in DiT. The same weights
    take any number of frames and any size that patches fill. Raises ValueError or TypeError for bad arguments.
    """

    def __init__(
        self,
        channels: int = 1,
        patch_size: Size = (1, 2, 2),
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
        classes: int = 0,
        absolute: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"channels": channels, "width": width, "depth": depth, "heads": heads}.items():
            check_count(name, value)
        if width % (2 * heads) or width < 6 * heads:
            raise ValueError(f"width must be an even multiple of heads, {heads}, and 6 times it or more, got {width}")
        check_memory(f"weights of width {width} and depth {depth}", 72 * width**2 * depth)
        self.patch_size = patch_size = check_size("patch_size", patch_size)
        self.channels, self.classes = channels, check_count("classes", classes, 0)
        self.absolute = check_flag("absolute", absolute)
        self.width, self.head_dim = width, width // heads
        numbers = channels * patch_size[0] * patch_size[1] * patch_size[2]
        check_memory(
            f"weights for patches of {numbers} numbers and {classes} classes", 4 * width * (2 * numbers + classes)
        )
        self.embed_patch = nn.Linear(numbers, width)
        self.embed_time = nn.Sequential(TimeEmbedding(64), nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_label = nn.Embedding(classes + 1, width) if classes else None
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.final = FinalLayer(width, numbers)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x_t = check_tensor("x_t", x_t, [None, self.channels, None, None, None], self.embed_patch.weight.dtype)
        grid = grid_of(x_t, self.patch_size)
        condition = self.embed_time(check_times(t, len(x_t)).to(x_t)) + self._label(label, len(x_t))  # [B, width]
        return self.transform(self.embed_patch(patchify(x_t, self.patch_size)), condition, grid)

    def transform(self, h: Tensor, condition: Tensor, grid: Size) -> Tensor:
        """Tokens `[B, N, width]` through all blocks, told the condition `[B, width]`: `[B, C, F, H, W]`."""
        kept = len(self.blocks) if h.requires_grad else 1  # blocks whose numbers wait for the gradient
        check_memory(f"{len(h)} samples of {h.shape[1]} tokens", 140 * h.numel() * kept)  # measured 85 to 140
        angles = rotary_angles(grid, self.head_dim).to(h)  # [N, head_dim / 2]
        if self.absolute:
            h = h + place_code(grid, self.width).to(h)
        for block in self.blocks:
            h = block(h, condition, angles)
        return unpatchify(self.final(h, condition), self.patch_size, grid)

    def _label(self, label: Tensor | None, batch: int) -> Tensor | float:
        """What the label adds to the condition, `[B, width]`; nothing for a network without labels."""
        if self.embed_label is None:
            if label is not None:
                raise ValueError("label: this network was built without classes; leave label out")
            return 0.0
        if not is_whole(label) or label.shape != (batch,):
            raise TypeError(f"label must be a tensor of {batch} whole numbers, got {shown(label)}")
        if label.min() < 0 or label.max() > self.classes:
            raise ValueError(f"label must lie in 0 to {self.classes} (none), got {label.min()} to {label.max()}")
        return self.embed_label(label)
