"""Train one transformer of digits with small and large patches and widths: what does compute buy? (about half an hour)

First every run sees the same number of images, and only the compute spent on each differs; then two of them go four
times as long. The results go into `training/results/digit_scaling.json` after each run, and a new start goes on where
the last one stopped.
"""

import argparse
import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from resume import earlier_runs
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sora_lib import RectifiedFlow, as_denoiser, digits, heun, train
from sora_lib.metrics import frechet_distance
from sora_lib.pretrained import load_pretrained
from sora_lib.training import denoising_loss
from sora_lib.transformer import DiT

RESULTS = Path(__file__).resolve().parent / "results" / "digit_scaling.json"
STEPS, SEEDS = 1000, (0, 1)
SIZES = ((4, 32), (4, 64), (4, 96), (2, 32), (2, 64), (2, 96), (1, 32), (1, 64))  # patch and width
LONGER = ((4, 64), (2, 64))  # trained 4 * STEPS as well
DEPTH, HEADS, BATCH, LR, EMA = 4, 4, 64, 4e-3, 0.99
SHOWN = 20  # samples of each run that are kept


def batches(images: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield images[torch.randint(0, len(images), (BATCH,), generator=generator)]


def multiply_adds(model: DiT) -> int:
    """For one image and one time, counted as in papers: a multiplication and its addition are one."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, 1, 1, 8, 8), torch.zeros(1))  # by plain matrix products: it does not know the fused kernel
    return counter.get_total_flops() // 2


def losses_by_time(model: DiT, images: Tensor) -> list[float]:
    """The loss on v at times in each fifth of [0, 1], one noise an image; the same draws for every model."""
    g, losses = torch.Generator().manual_seed(0), []
    for fifth in range(5):
        t = (fifth + (torch.randperm(len(images), generator=g) + 0.5) / len(images)) / 5
        noise = torch.randn(images.shape, generator=g)
        with torch.no_grad():
            losses.append(denoising_loss(model, images, t, noise, RectifiedFlow(), "v").item())
    return losses


def one_run(patch: int, width: int, seed: int, steps: int) -> dict:
    torch.manual_seed(seed)
    g, began = torch.Generator().manual_seed(seed), time.process_time()
    seen, held_out = (2 * digits(part)[0][:, :, None] - 1 for part in ("train", "test"))  # [N, 1, 1, 8, 8]
    model, schedule = DiT(1, (1, patch, patch), width, DEPTH, HEADS, absolute=True), RectifiedFlow()
    run = train(model, batches(seen, g), schedule, steps=steps, prediction="v", lr=LR, ema=EMA, generator=g)
    for *_, state in run:  # noqa: B007
        pass
    minutes, model = (time.process_time() - began) / 60, state.ema.model
    start = torch.randn(890, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    samples = (heun(as_denoiser(model, schedule, "v"), schedule, start, 20)[:, :, 0] + 1).div(2).clamp(0, 1)
    probe = load_pretrained("digit-probe")
    with torch.no_grad():
        fake, real = probe.features(samples), probe.features(digits("test")[0][:890])
    by_time, seen_by_time = losses_by_time(model, held_out), losses_by_time(model, seen)
    return {
        "patch": patch,
        "width": width,
        "seed": seed,
        "steps": steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply-adds per image": multiply_adds(model),
        "loss on training images": round(sum(seen_by_time) / 5, 4),
        "held-out loss": round(sum(by_time) / 5, 4),
        "held-out loss by fifths of t": [round(loss, 4) for loss in by_time],
        "Frechet distance": round(frechet_distance(fake, real), 2),
        "minutes": round(minutes, 2),  # of the processor, for the training
        "samples": [image.flatten().tolist() for image in (16 * samples[:SHOWN]).round().int()],  # 0 to 16, as the data
    }


def save(path: Path, results: dict) -> None:
    """Write the results, one run a line."""
    runs = ",\n".join("    " + json.dumps(run) for run in results["runs"])
    head = json.dumps({name: value for name, value in results.items() if name != "runs"}, indent=2)
    path.parent.mkdir(exist_ok=True)
    path.write_text(head.removesuffix("\n}") + ',\n  "runs": [\n' + runs + "\n  ]\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--to", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    probe = load_pretrained("digit-probe")
    with torch.no_grad():
        features = [probe.features(digits(part)[0][:890]) for part in ("train", "test")]
    results = {
        "command": "python training/digit_scaling.py" + (f" --steps {args.steps}" if args.steps != STEPS else ""),
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "seeds": list(SEEDS),
        "depth": DEPTH,
        "batch": BATCH,
        "steps": args.steps,
        "minutes": 0.0,
        "Frechet distance of real digits": round(frechet_distance(*features), 2),
        "runs": earlier_runs(args.to, args.steps),
    }
    done = {(run["patch"], run["width"], run["seed"], run["steps"]) for run in results["runs"]}
    plan = [(*size, seed, args.steps) for seed in SEEDS for size in SIZES]
    plan += [(*size, seed, 4 * args.steps) for seed in SEEDS for size in LONGER]
    for which in plan:
        if which not in done:
            run = one_run(*which)
            results["runs"].append(run)
            results["minutes"] = round(sum(run["minutes"] for run in results["runs"]), 1)
            save(args.to, results)
            print({name: value for name, value in run.items() if name != "samples"}, flush=True)


if __name__ == "__main__":
    main()
