"""Train the class-conditional diffusion transformer of digits on the first half of the rows (about six minutes)."""

import time
from collections.abc import Iterator

import torch
from ship import ship
from torch import Tensor

from sora_lib import RectifiedFlow, as_denoiser, digits, guided, heun, train
from sora_lib.metrics import frechet_distance, nearest_distance, precision_recall
from sora_lib.pretrained import load_pretrained
from sora_lib.transformer import DiT

SEED, STEPS, BATCH, LR, EMA, DROPOUT = 0, 1500, 128, 2e-3, 0.998, 0.1
ARGUMENTS = {"patch_size": [1, 2, 2], "width": 96, "depth": 4, "heads": 4, "classes": 10}


def batches(images: Tensor, labels: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Digits in [-1, 1] as videos of one frame, and their labels, a tenth of them replaced by "no label"."""
    while True:
        i = torch.randint(0, len(images), (BATCH,), generator=generator)
        dropped = torch.rand(BATCH, generator=generator) < DROPOUT
        yield 2 * images[i][:, :, None] - 1, torch.where(dropped, 10, labels[i])


def measure(model: DiT, scale: float) -> dict[str, float]:
    """890 samples, 89 of each digit, judged by the probe, beside the same figures of real digits of the second half."""
    labels = torch.arange(10).repeat(89)
    start = torch.randn(890, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    schedule, none = RectifiedFlow(), torch.full_like(labels, 10)
    denoise = guided(as_denoiser(model, schedule, "v", labels), as_denoiser(model, schedule, "v", none), scale)
    samples = (heun(denoise, schedule, start, 20)[:, :, 0] + 1).div(2).clamp(0, 1)
    (seen, _), (held_out, _) = digits("train"), digits("test")
    probe = load_pretrained("digit-probe")
    with torch.no_grad():
        accuracy = (probe(samples).argmax(1) == labels).float().mean().item()
        fake, real, floor = (probe.features(x) for x in (samples, held_out[:890], seen[:890]))
    precision, recall = precision_recall(real, fake)
    figures = {
        "accuracy": accuracy,
        "Frechet distance": frechet_distance(fake, real),
        "Frechet distance of real digits": frechet_distance(floor, real),
        "precision": precision,
        "recall": recall,
        "median distance to the nearest training image": nearest_distance(samples, seen).median().item(),
        "the same for real digits": nearest_distance(held_out, seen).median().item(),
    }
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    torch.manual_seed(SEED)
    g, began = torch.Generator().manual_seed(SEED), time.perf_counter()
    model = DiT(**ARGUMENTS)
    run = train(
        model, batches(*digits("train"), g), RectifiedFlow(), steps=STEPS, prediction="v", lr=LR, ema=EMA, generator=g
    )
    losses = []
    for step, loss, state in run:  # noqa: B007
        losses.append(loss)
        if step % 100 == 0:
            print(f"step {step} of {STEPS}: loss {sum(losses[-100:]) / 100:.3f}", flush=True)
    minutes = (time.perf_counter() - began) / 60
    metrics = {f"scale {scale:g}": measure(state.ema.model, scale) for scale in (1, 1.5, 2, 3)}
    ship("digit-dit", state.ema.model, ARGUMENTS, seed=SEED, minutes=minutes, metrics=metrics)
    shipped = load_pretrained("digit-dit")
    for scale, figures in metrics.items():
        print(f"{scale}: {figures}")
    print(f"in half precision, scale 1.5: {measure(shipped, 1.5)}")


if __name__ == "__main__":
    main()
