"""Train the classifier by which generated digits are judged, on the first half of the real ones (about two minutes)."""

import sys
import time

import torch
from ship import ship
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from sora_lib import digits
from sora_lib.metrics import DigitProbe
from sora_lib.pretrained import load_pretrained

SEED, STEPS, BATCH, LR = 0, 3000, 128, 4e-3


def distorted(images: Tensor, generator: torch.Generator) -> Tensor:
    """The same digits a little turned, sheared, stretched and shifted, as other hands might write them."""

    def within(limit: float) -> Tensor:
        return (torch.rand(len(images), generator=generator) * 2 - 1) * limit

    angle, row1, row2 = within(0.25), 1 + within(0.12), 1 + within(0.12)
    affine = torch.stack(
        [
            torch.stack([angle.cos() * row1, within(0.2) - angle.sin(), within(0.25)], dim=1),
            torch.stack([angle.sin(), angle.cos() * row2, within(0.15)], dim=1),
        ],
        dim=1,
    )  # [B, 2, 3]
    return grid_sample(images, affine_grid(affine, images.shape, align_corners=False), align_corners=False)


def accuracy(probe: DigitProbe, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (probe(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    torch.manual_seed(SEED)
    g, began = torch.Generator().manual_seed(SEED), time.perf_counter()
    images, labels = digits("train")
    probe = DigitProbe()
    optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, STEPS)
    for step in range(1, STEPS + 1):
        i = torch.randint(0, len(images), (BATCH,), generator=g)
        loss = cross_entropy(probe(distorted(images[i], g).clamp(0, 1)), labels[i], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"step {step} of {STEPS}: loss {loss.item():.3f}", flush=True)
    probe.eval()
    metrics = {"accuracy on the first half": accuracy(probe, images, labels)}
    metrics["accuracy on the second half, held out"] = accuracy(probe, *digits("test"))
    minutes = (time.perf_counter() - began) / 60
    ship("digit-probe", probe, {}, seed=SEED, minutes=minutes, metrics=metrics)
    shipped = accuracy(load_pretrained("digit-probe"), *digits("test"))
    print(f"{metrics}; in half precision {shipped:.4f} on the second half; {minutes:.1f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
