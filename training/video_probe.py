"""Train the classifier by which generated video is judged, on real clips of the first half of the digits."""

import argparse
import time

import torch
from digit_probe import distorted
from ship import ship
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy

from sora_lib.datasets import Clips, film, random_scene
from sora_lib.metrics import LOOKS, VideoProbe, adherence, motion_error
from sora_lib.pretrained import load_pretrained
from sora_lib.text import KINDS, Thing, attributes
from sora_lib.training import learning_rate

SEED, STEPS, BATCH, LR = 0, 1500, 48, 3e-3
ARGUMENTS = {"kinds": {name: len(values) for name, values in KINDS.items()}}


def clips(count: int, generator: torch.Generator, **options: object) -> Clips:
    scenes = [random_scene(combinations="all", generator=generator) for _ in range(count)]
    return film(scenes, generator=generator, **options)


def worn(video: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the videos a little blurred, all with a little noise: a probe must forgive what an autoencoder does."""
    blurred = avg_pool2d(video.flatten(1, 2), 3, 1, 1).reshape(video.shape)
    share = torch.rand(len(video), 1, 1, 1, 1, generator=generator) * (
        torch.rand(len(video), 1, 1, 1, 1, generator=generator) < 0.5
    )
    noise = (
        0.05 * torch.rand(len(video), 1, 1, 1, 1, generator=generator) * torch.randn(video.shape, generator=generator)
    )
    return (video.lerp(blurred, share) + noise).clamp(0, 1)


def accuracies(probe: VideoProbe, video: Tensor, things: list[Thing]) -> dict[str, float]:
    with torch.no_grad():
        return {kind: round(share, 4) for kind, share in adherence(probe(video), attributes(things)).items()}


def measure(probe: VideoProbe) -> dict:
    g = torch.Generator().manual_seed(1)
    seen, unseen = (clips(1024, g, part=part) for part in ("train", "test"))
    return {
        "first half of the digits": accuracies(probe, seen.video, [s[0] for s in seen.scenes]),
        "second half, held out": accuracies(probe, unseen.video, [s[0] for s in unseen.scenes]),
        "error of the tracker, pixels a step": round(
            motion_error(unseen.video, unseen.velocities[:, 0]).mean().item(), 4
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    steps = parser.parse_args().steps
    torch.manual_seed(SEED)
    g, began = torch.Generator().manual_seed(SEED), time.perf_counter()
    probe = VideoProbe(**ARGUMENTS)
    optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=0.05, fused=True)
    for step in range(steps):
        batch = clips(BATCH, g, frames=9)
        wanted = attributes([scene[0] for scene in batch.scenes])
        video = worn(batch.video, g)
        bent = distorted(video[:, :, :9:4].flatten(1, 2), g).unflatten(1, (3, 3))  # as other hands might write
        looks = torch.cat([probe.looks(2 * bent[:, :, i] - 1) for i in range(3)])  # [3 B, features]
        motion = probe.moves(video)
        loss = torch.zeros(())
        for kind, head in probe.heads.items():
            answer, times = (head(looks), 3) if kind in LOOKS else (head(motion), 1)
            loss = loss + cross_entropy(answer, wanted[kind].repeat(times), ignore_index=-1, label_smoothing=0.05)
        optimizer.param_groups[0]["lr"] = LR * learning_rate(step, steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            print(
                f"step {step + 1} of {steps}: loss {loss.item():.3f}, {(time.perf_counter() - began) / 60:.1f} min",
                flush=True,
            )
    probe.eval()
    minutes, metrics = (time.perf_counter() - began) / 60, measure(probe)
    ship("video-probe", probe, ARGUMENTS, seed=SEED, minutes=minutes, metrics=metrics)
    print(metrics, "in half precision:", measure(load_pretrained("video-probe")))


if __name__ == "__main__":
    main()
