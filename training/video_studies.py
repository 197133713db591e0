"""Train small video transformers that differ in one thing, for chapter 15: compute, captions, attention, crops.

The recipe is the live one of chapter 13. Each run goes into `training/results/video_studies.json` when it is done, and
is not made again. Some 100 minutes in all on one thread, at most 20 a run.
"""

import argparse
import datetime
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from einops import rearrange
from judge import Judge, rounded
from torch import Tensor

from sora_lib.datasets import film, random_scene, shortened, velocity
from sora_lib.metrics import motion_error
from sora_lib.mini_sora import MiniSora, Told, told
from sora_lib.pipeline import sample_latents
from sora_lib.plotting import video_png
from sora_lib.pretrained import load_pretrained
from sora_lib.schedules import RectifiedFlow
from sora_lib.text import SHAPES, SUBJECTS, describe, tokenize
from sora_lib.training import logit_normal_times, new_state, train
from sora_lib.transformer import Size, place_code, rotary_angles, unpatchify

RESULTS = Path(__file__).resolve().parent / "results" / "video_studies.json"
PICTURE = Path(__file__).resolve().parent.parent / "notebooks" / "pictures" / "15_compute.png"
CLIPS, BATCH, PROMPTS, SEEDS = 6000, 24, 256, (0, 1)
SHOWN = ["a red seven moving up fast", "a blue square moving right slowly", "a white circle standing still"]


@dataclass(frozen=True)
class Arm:
    """One way to train: only what differs from the live recipe of chapter 13."""

    steps: int = 1250
    digits: bool = False  # ten digits beside the three shapes
    short: bool = False  # captions with each of colour, motion and speed left out by the toss of a coin
    factorised: bool = False  # attention within frames and within places by turns, not among all tokens
    width: int = 32  # of the video, in pixels
    crop: bool = False  # train on the square in the middle of it


STUDIES = {
    "captions": {"dense": Arm(), "short": Arm(short=True)},
    "attention": {"full": Arm(), "factorised": Arm(factorised=True)},
    "crops": {"native": Arm(width=48), "square crops": Arm(width=48, crop=True)},
    "compute": {"base": Arm(125, True), "4 x": Arm(500, True), "32 x": Arm(4000, True)},
}


class Factorised(MiniSora):
    """Blocks by turns attend within a frame and within a place; as many weights, fewer pairs of tokens."""

    def transform(self, h: Tensor, condition: Tensor, grid: Size) -> Tensor:
        f, rows, columns = grid
        ways = (
            ("b (f n) d -> (b f) n d", "(b f) n d -> b (f n) d", f, (1, rows, columns)),
            ("b (f n) d -> (b n) f d", "(b n) f d -> b (f n) d", rows * columns, (f, 1, 1)),
        )
        h = h + place_code(grid, self.width)
        for i, block in enumerate(self.blocks):
            apart, together, times, part = ways[i % 2]
            angles = rotary_angles(part, self.head_dim)
            h = block(rearrange(h, apart, f=f), condition.repeat_interleave(times, 0), angles)
            h = rearrange(h, together, b=len(condition), **({"f": f} if i % 2 == 0 else {"n": rows * columns}))
        return unpatchify(self.final(h, condition), self.patch_size, grid)


def prepared(arm: Arm, judge: Judge, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Latents and tokens of the clips to train on."""
    scenes = [random_scene(subjects=SUBJECTS if arm.digits else SHAPES, generator=g) for _ in range(CLIPS)]
    said = [shortened(scene, g) if arm.short else scene for scene in scenes]
    latents = []
    for i in range(0, CLIPS, 50):
        video = film(scenes[i : i + 50], width=arm.width, generator=g).video
        video = video[..., 8:40].contiguous() if arm.crop else video
        with torch.no_grad():
            latents.append(judge.encoder.encode(2 * video - 1))
    return torch.cat(latents), tokenize([describe(scene, synonyms=True, generator=g) for scene in said])


def batches(latents: Tensor, tokens: Tensor, g: torch.Generator) -> Iterator[tuple[Tensor, Told]]:
    while True:
        i = torch.randint(0, len(latents), (BATCH,), generator=g)
        kept = torch.rand(BATCH, 1, generator=g) >= 0.1
        yield latents[i], Told(tokens[i] * kept, torch.zeros_like(latents[i]), torch.zeros(BATCH, latents.shape[2]))


def generated(judge: Judge, model: MiniSora, captions: list[str], width: int) -> Tensor:
    """Video of each caption, `width` pixels wide."""
    g, videos = torch.Generator().manual_seed(0), []
    for i in range(0, len(captions), 64):
        request = told(captions[i : i + 64], (5, 8, width // 4))
        videos.append(judge.decoded(sample_latents(model, request, steps=8, scale=3.0, generator=g)))
    return torch.cat(videos)


def in_frame(video: Tensor) -> float:
    """The share of frames of `[B, 3, F, H, W]` that show a thing, and no part of it on the outermost pixels."""
    light = video.amax(1)  # [B, F, H, W]
    inside = light[..., 1:-1, 1:-1].amax((2, 3))
    edge = torch.cat([light[..., [0, -1], :].flatten(2), light[..., [0, -1]].flatten(2)], dim=2).amax(2)
    return ((inside > 0.5) & (edge < 0.3)).float().mean().item()


def judged(judge: Judge, video: Tensor, scenes: list) -> dict[str, float]:
    speeds = torch.stack([velocity(scene[0]) for scene in scenes])
    error = motion_error(video, speeds).mean().item()
    shares = judge.adherence(video, [scene[0] for scene in scenes])
    return shares | rounded({"motion error": error, "in frame": in_frame(video)})


def one_run(arm: Arm, judge: Judge, seed: int) -> tuple[dict, MiniSora]:
    """Its figures on the prompts, and the trained network."""
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = (Factorised if arm.factorised else MiniSora)(width=128, depth=4, heads=4)
    latents, tokens = prepared(arm, judge, g)
    state, began, losses = new_state(model, 0.998, g, muon=True), time.perf_counter(), []
    options = {"steps": arm.steps, "prediction": "v", "lr": 3e-3, "times": logit_normal_times(1.6), "resume": state}
    for _, loss, _ in train(model, batches(latents, tokens, g), RectifiedFlow(), **options):
        losses.append(loss)
    minutes = (time.perf_counter() - began) / 60
    scenes = asked(arm)
    width = 32 if arm.crop else arm.width
    video = generated(judge, state.ema.model, [describe(scene) for scene in scenes], width)
    figures = {"loss": round(sum(losses[-100:]) / len(losses[-100:]), 4)} | judged(judge, video, scenes)
    return {"seed": seed, "minutes": round(minutes, 1)} | figures, state.ema.model


def asked(arm: Arm) -> list:
    """The prompts' scenes: the same for all arms that know the same subjects."""
    g = torch.Generator().manual_seed(1000)
    subjects = SUBJECTS if arm.digits else SHAPES
    return [random_scene(subjects=subjects, combinations="all", generator=g) for _ in range(PROMPTS)]


def ceiling(arm: Arm, judge: Judge) -> dict[str, float]:
    """The figures of real clips, through the autoencoder and back."""
    scenes = asked(arm)
    video = film(scenes, width=arm.width, part="test", generator=torch.Generator().manual_seed(0)).video
    video = video[..., 8:40].contiguous() if arm.crop else video
    return judged(judge, judge.rebuilt(video), scenes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    judge = Judge(load_pretrained("video-autoencoder"), load_pretrained("video-probe"))
    results = {"command": "python training/video_studies.py", "prompts": PROMPTS, "studies": {}}
    if RESULTS.is_file():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    shown = []
    for seed in SEEDS:
        for study, arms in STUDIES.items():
            for name, arm in arms.items():
                runs = results["studies"].setdefault(study, {}).setdefault(name, {"arm": asdict(arm), "runs": []})
                twin = next(r for s in results["studies"].values() for r in s.values() if r["arm"] == runs["arm"])
                runs["real, rebuilt"] = twin.get("real, rebuilt") or ceiling(arm, judge)
                if seed not in [run["seed"] for run in twin["runs"]]:
                    run, model = one_run(arm, judge, seed)
                    twin["runs"].append(run)
                    if study == "compute" and seed == SEEDS[0]:
                        shown.append(generated(judge, model, SHOWN, 32))
                        if len(shown) == len(arms):
                            PICTURE.write_bytes(video_png(torch.cat(shown), columns=len(SHOWN), zoom=3))
                runs["runs"] = twin["runs"]
                print(study, name, runs["runs"][-1], flush=True)
                results |= {"date": datetime.date.today().isoformat(), "threads": torch.get_num_threads()}
                RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
