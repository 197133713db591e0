"""How much of the processor's speed the transformer uses, and how its block compares with diffusers' own DiT block.

Achieved FLOP/s, counted by torch.utils.flop_counter, over those of a large float32 matrix product in the same round.
Run it by `python3 dev.py bench transformer`.
"""

import itertools
from collections.abc import Callable, Iterable

import matplotlib.pyplot as plt
import torch
from _report import SIZE, interleaved, machine, product, publish, ratios, spread, table
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import sora_lib as s
from sora_lib.mini_sora import MiniSora, told
from sora_lib.pipeline import sample_latents
from sora_lib.plotting import COLORS, use_style
from sora_lib.transformer import DiTBlock, rotary_angles

ROUNDS = 15
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
COUNTED = {  # PyTorch's counter knows attention on GPUs alone
    CPU_ATTENTION: lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, out_shape=None, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}
# Batch, latent grid (frames, rows, columns), width, blocks, heads.
NETWORKS = {
    "mini-Sora, as shipped": (32, (5, 8, 8), 192, 6, 4),
    "mini-Sora, width 256": (32, (5, 8, 8), 256, 6, 4),
    "width of DiT-S": (32, (5, 8, 8), 384, 6, 6),
}
# Batch, grid of tokens, width, heads.
BLOCKS = {
    "32 x 80 tokens, width 192": (32, (5, 4, 4), 192, 4),
    "8 x 80 tokens, width 384": (8, (5, 4, 4), 384, 6),
    "8 x 256 tokens, width 384": (8, (1, 16, 16), 384, 6),
}


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        run()
    return counter.get_total_flops()


def training_step(
    batch: int, latents: tuple[int, int, int], width: int, depth: int, heads: int
) -> tuple[Callable[[], object], MiniSora]:
    """A step of `train`, again and again: noise, loss, gradients, their checks, optimizer, average."""
    request = told(["a red one moving up slowly"] * batch, latents)
    model = MiniSora(width=width, depth=depth, heads=heads)
    batches = itertools.repeat((torch.randn(request.known.shape), request))
    steps = s.train(model, batches, s.RectifiedFlow(), steps=10**6, prediction="v")
    return lambda: next(steps), model


def our_block(batch: int, grid: tuple[int, int, int], width: int, heads: int, turned: bool = True) -> Callable:
    """Forward and backward of one block; turned: with rotary positions, which diffusers' DiT block does not have."""
    block, angles = DiTBlock(width, heads), rotary_angles(grid, width // heads)
    x, condition = inputs(batch, grid, width)
    rotary = block.attention.forward if turned else without_rotary(block.attention)

    def run() -> None:
        block.attention.forward = rotary
        backward(block, block(x, condition, angles))

    return run


def without_rotary(attention: torch.nn.Module) -> Callable:
    """The same attention, but for the turning of queries and keys."""
    from einops import rearrange
    from torch.nn.functional import scaled_dot_product_attention

    def forward(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        q, k, v = rearrange(attention.qkv(x), "b n (three h d) -> three b h n d", three=3, h=attention.heads)
        return attention.out(rearrange(scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))

    return forward


def their_block(batch: int, grid: tuple[int, int, int], width: int, heads: int) -> Callable:
    """The block of diffusers' DiTTransformer2DModel, forward and backward."""
    from diffusers.models.attention import BasicTransformerBlock

    options = {"norm_type": "ada_norm_zero", "num_embeds_ada_norm": 1000, "norm_elementwise_affine": False}
    block = BasicTransformerBlock(width, heads, width // heads, attention_bias=True, activation_fn="gelu", **options)
    x, _ = inputs(batch, grid, width)
    t, label = torch.randint(1000, (2, batch))
    return lambda: backward(block, block(x, timestep=t, class_labels=label))


def inputs(batch: int, grid: tuple[int, int, int], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = grid[0] * grid[1] * grid[2]
    return torch.randn(batch, tokens, width, requires_grad=True), torch.randn(batch, width, requires_grad=True)


def backward(block: torch.nn.Module, out: torch.Tensor) -> None:
    block.zero_grad()
    out.backward(torch.ones_like(out))


def speeds(names: Iterable[str], threads: int) -> list[list[object]]:
    """Of each network, training and sampling: share of the matrix product's FLOP/s, with as many threads."""
    torch.set_num_threads(threads)
    lines = []
    for name in names:
        batch, latents, width, depth, heads = NETWORKS[name]
        step, model = training_step(batch, latents, width, depth, heads)
        request = told(["a red one moving up slowly"] * batch, latents)
        runs = {
            "step": step,
            "sampling": lambda m=model, r=request: sample_latents(m, r, steps=2),
            "product": product(),
        }
        work = {key: flops(run) for key, run in runs.items()}
        taken = interleaved(runs, ROUNDS)
        for key in ("step", "sampling"):
            share = [work[key] / a / (2 * SIZE**3 / b) for a, b in zip(taken[key], taken["product"], strict=True)]
            what = "training step" if key == "step" else "sampling, 3 guided evaluations"
            middle = sorted(taken[key])[len(taken[key]) // 2]
            title = f"{name}: {what}" if threads > 1 else f"{name}, one thread: {what}"
            lines.append([title, f"{work[key] / 1e9:.1f}", f"{1000 * middle:.0f}", spread(share), share])
    return lines


def blocks() -> list[list[object]]:
    """Our block over diffusers', forward and backward: ratios of seconds, below 1 where ours is faster."""
    lines = []
    for name, size in BLOCKS.items():
        runs = {"ours": our_block(*size), "without": our_block(*size, turned=False), "theirs": their_block(*size)}
        taken = interleaved(runs, 2 * ROUNDS)
        shares = [ratios(taken[key], taken["theirs"]) for key in ("ours", "without")]
        lines.append([name, *map(spread, shares)])
    return lines


def draw_figure(lines: list[list[object]]) -> plt.Figure:
    use_style()
    figure, ax = plt.subplots(figsize=(8, 3.4))
    for height, (*_, share) in enumerate(reversed(lines)):
        ax.plot(share, [height] * len(share), "o", color=COLORS["model"], alpha=0.4, markersize=4)
        ax.plot(sorted(share)[len(share) // 2], height, "|", color=COLORS["model"], markersize=16, markeredgewidth=2)
    ax.axvline(0.5, color=COLORS["exact"], linewidth=1)
    ax.set_yticks(range(len(lines)), [line[0] for line in reversed(lines)])
    ax.set(xlim=(0, 1), xlabel="FLOP/s / FLOP/s of a large matrix product")
    return figure


def main() -> None:
    header, compared, threads = machine(["diffusers"]), blocks(), torch.get_num_threads()
    lines = speeds(NETWORKS, threads) + speeds(["mini-Sora, as shipped"] if threads > 1 else [], 1)
    first = table(["network", "GFLOP", "ms", "share of the product's FLOP/s"], [line[:4] for line in lines])
    second = table(["block, forward and backward", "ours / diffusers'", "without rotary positions"], compared)
    note = (
        f"Medians of {ROUNDS} rounds, and of {2 * ROUNDS} in the second table; in brackets the least and the greatest."
    )
    publish("transformer", "\n\n".join([header, note, first, second]), draw_figure(lines))


if __name__ == "__main__":
    main()
