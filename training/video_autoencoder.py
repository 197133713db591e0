"""Train the causal video autoencoder on generated clips, from where PCA ends (about ten minutes on two cores)."""

import argparse
import math
import time
from collections.abc import Callable

import torch
from einops import rearrange
from ship import ship
from torch import Tensor, nn

from sora_lib.autoencoder import GROUP, PATCH, VideoAutoencoder
from sora_lib.datasets import film, random_scene
from sora_lib.pretrained import load_pretrained
from sora_lib.training import learning_rate

SEED, STEPS, BATCH, LR, KL_WEIGHT = 0, 1500, 16, 2e-3, 1e-4


def clips(things: int, count: int, generator: torch.Generator, **options: object) -> Tensor:
    """Video in [-1, 1], `[count, 3, F, H, W]`."""
    return (
        2
        * film([random_scene(things, generator=generator) for _ in range(count)], generator=generator, **options).video
        - 1
    )


def both(count: int, generator: torch.Generator) -> Tensor:
    """Clips of one thing and of two, half and half."""
    return torch.cat([clips(things, count // 2, generator) for things in (1, 2)])


def pca(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of rows `[N, D]`: mean `[D]`, directions `[D, D]`, most variance first, and their variances `[D]`."""
    mean = rows.mean(0)
    variances, directions = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    return mean, directions.T.flip(0), variances.flip(0)


def in_fours(x: Tensor) -> Tensor:
    """Frames, axis 1, with the first shown four times."""
    return torch.cat([x[:, :1].expand(-1, 3, *x.shape[2:]), x], dim=1)


@torch.no_grad()
def start_at_pca(model: VideoAutoencoder, x: Tensor) -> None:
    """Set the matrices to PCA, of patches and then of groups; the blocks between them add nothing at first."""
    encoder, decoder, k = model.encoder, model.decoder, model.channels

    def put(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
        layer.weight.zero_()[: weight.shape[0], : weight.shape[1]] = weight
        layer.bias.zero_()[: len(bias)] = bias

    patches = rearrange(x, PATCH, ph=4, pw=4)
    mean, v, _ = pca(patches.flatten(0, 3))
    v = v[: encoder.inp.out_features]
    put(encoder.inp, v, -v @ mean)
    put(decoder.out, v.T, mean)
    mean, v, variances = pca(rearrange(in_fours(encoder.inp(patches)), GROUP, pf=4).flatten(0, 3))
    v, std = v[: encoder.group.out_features], variances[:k].sqrt()
    put(encoder.group, v, -v @ mean)
    put(decoder.group, v.T, mean)
    put(encoder.out, torch.diag(1 / std), torch.zeros(k))  # latents of variance 1
    put(decoder.inp, torch.diag(std), torch.zeros(k))
    encoder.out.bias[k:] = -6.0  # the log variance of their clouds


@torch.no_grad()
def turn(model: VideoAutoencoder, generator: torch.Generator) -> None:
    """Give the latents the scale of PCA's directions back, and turn them: each channel then holds some of each.

    Normalised one by one, such channels keep the coarse larger than the fine, so that in a transformer's loss fine
    detail counts less than the place of a thing. `start_at_pca` alone makes all directions equally large.
    """
    encoder, decoder, k = model.encoder, model.decoder, model.channels
    std = decoder.inp.weight.diagonal()[:k].clone()
    turned = torch.linalg.qr(torch.randn(k, k, generator=generator))[0] * std / std.square().mean().sqrt()
    encoder.out.weight[:k] = turned @ encoder.out.weight[:k]
    decoder.inp.weight.copy_(decoder.inp.weight @ turned.inverse())


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of video in [-1, 1], in decibels; the mean error is taken over all clips first."""
    return 10 * math.log10(4 / (a - b).square().mean().item())


def measure(model: VideoAutoencoder, part: str = "test") -> dict[str, float]:
    """PSNR on 128 clips of one thing and of two, handwriting of the half that was not trained on; other sizes too."""
    g, figures = torch.Generator().manual_seed(1), {}
    kinds: dict[str, Callable[[], Tensor]] = {
        "one thing": lambda: clips(1, 128, g, part=part),
        "two things": lambda: clips(2, 128, g, part=part),
        "one frame": lambda: clips(1, 128, g, part=part, frames=1),
        "33 frames of 32 x 48": lambda: clips(1, 64, g, part=part, frames=33, width=48),
    }
    with torch.no_grad():
        for name, draw in kinds.items():
            x = draw()
            figures[f"PSNR, {name}"] = round(psnr(model.decode(model.encode(x)).clamp(-1, 1), x), 2)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="video-autoencoder")
    for name, value in {"steps": STEPS, "channels": 8, "width": 128, "depth": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--kl", type=float, default=KL_WEIGHT)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    g, began = torch.Generator().manual_seed(SEED), time.perf_counter()
    arguments = {"channels": args.channels, "width": args.width, "depth": args.depth}
    model = VideoAutoencoder(**arguments)
    start_at_pca(model, both(256, g))
    turn(model, g)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    for step in range(args.steps):
        x = both(BATCH, g)
        optimizer.param_groups[0]["lr"] = LR * learning_rate(step, args.steps, warmup=50)
        loss = model.loss(x, args.kl, generator=g)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            minutes = (time.perf_counter() - began) / 60
            print(f"step {step + 1} of {args.steps}: loss {loss.item():.4f}, {minutes:.1f} min", flush=True)
    model.fit_normalisation(both(512, g))
    minutes = (time.perf_counter() - began) / 60
    metrics = measure(model)
    with torch.no_grad():
        _, log_var = model.posterior(clips(1, 64, g))
    metrics["noise of a latent, over its standard deviation"] = round(
        ((log_var / 2).exp().mean((0, 2, 3, 4)) / model.std).mean().item(), 3
    )
    ship(args.name, model, arguments, seed=SEED, minutes=minutes, metrics=metrics)
    print(metrics, "in half precision:", measure(load_pretrained(args.name)))


if __name__ == "__main__":
    main()
