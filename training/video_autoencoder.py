"""Train the causal video autoencoder on generated clips (about ten minutes on two cores)."""

import argparse
import math
import time
from collections.abc import Callable

import torch
from ship import ship
from torch import Tensor

from sora_lib.autoencoder import VideoAutoencoder
from sora_lib.datasets import film, random_scene
from sora_lib.pretrained import load_pretrained
from sora_lib.training import learning_rate

SEED, STEPS, BATCH, LR, KL_WEIGHT = 0, 2500, 16, 2e-3, 1e-4


def clips(things: int, count: int, generator: torch.Generator, **options: object) -> Tensor:
    """Video in [-1, 1], `[count, 3, F, H, W]`."""
    return (
        2
        * film([random_scene(things, generator=generator) for _ in range(count)], generator=generator, **options).video
        - 1
    )


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
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    for step in range(args.steps):
        x = torch.cat([clips(things, BATCH // 2, g) for things in (1, 2)])
        optimizer.param_groups[0]["lr"] = LR * learning_rate(step, args.steps, warmup=100)
        loss = model.loss(x, args.kl, generator=g)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            minutes = (time.perf_counter() - began) / 60
            print(f"step {step + 1} of {args.steps}: loss {loss.item():.4f}, {minutes:.1f} min", flush=True)
    model.fit_normalisation(torch.cat([clips(things, 256, g) for things in (1, 2)]))
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
