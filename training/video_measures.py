"""What each measure of video notices, and where the shipped model fails: the full-scale figures of chapter 15.

No training: some ten minutes on one thread.
"""

import argparse
import datetime
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from judge import Judge, Scenes, handwriting, isolated
from torch import Tensor
from torch.nn.functional import avg_pool3d

from sora_lib.datasets import PIXELS_PER_FRAME, RGB, bounced, film, held_out, velocity
from sora_lib.metrics import centroids, frechet_distance, motion_error, precision_recall
from sora_lib.pipeline import MiniSoraPipeline
from sora_lib.pretrained import load_pretrained, read_card
from sora_lib.text import DIGITS, SUBJECTS, Thing, attributes, describe

RESULTS = Path(__file__).resolve().parent / "results" / "video_measures.json"
SPEEDS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # pixels a frame; captions know 0.5 and 1.5
DRAWS = 20  # sets of real clips, by which it is told what chance does


def g(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- Measures


@torch.no_grad()
def per_clip(judge: Judge, video: Tensor, things: list[Thing], whose: Tensor | None = None) -> dict[str, Tensor]:
    """What is measured of each clip by itself, `[B]`, and its features, `[B, D]`.

    whose: which picture of the test half of the digits each clip shows, if it is real.
    """
    wanted, logits = attributes(things), judge.probe(video)
    right = torch.stack([(logits[k].argmax(1) == n) | (n < 0) for k, n in wanted.items()]).all(0)
    seen = torch.stack([judge.probe(video[:, :, [i]])["subject"].argmax(1) for i in range(0, video.shape[2], 4)])
    return {
        "all right": right.float(),
        "keeps its subject": (seen == wanted["subject"]).all(0).float(),
        "motion error": motion_error(video, torch.stack([velocity(thing) for thing in things])),
        "change a frame": video.diff(dim=2).abs().mean((1, 2, 3, 4)),
        "features": judge.features(video),
        "handwriting": handwriting(video),
        "whose": torch.full((len(video),), -1) if whose is None else whose,
        "digit": torch.tensor([thing.subject in DIGITS for thing in things]),
    }


def of_set(clips: dict[str, Tensor], reference: Tensor, hands: "Hands") -> dict[str, float]:
    """All measures of a set of clips, against the features of as many real ones and two sets of handwriting."""
    means = {name: clips[name].mean().item() for name in ("all right", "keeps its subject", "motion error")}
    precision, recall = precision_recall(reference, clips["features"])
    means |= {"Frechet distance": frechet_distance(clips["features"], reference)}
    means |= {"precision": precision, "recall": recall, "change a frame": clips["change a frame"].mean().item()}
    made, whose = clips["handwriting"][clips["digit"]], clips["whose"][clips["digit"]]
    return means | {"nearer to training": hands.nearer(made, test=whose)}


class Hands:
    """Handwriting of both halves of the digits, for telling copies; a real digit is not compared with itself."""

    def __init__(self, judge: Judge, count: int, seed: int) -> None:
        self.train, self.test = (pictures(judge, part, seed + i, count) for i, part in enumerate(("train", "test")))

    def nearer(self, made: Tensor, train: Tensor | None = None, test: Tensor | None = None) -> float:
        """The share nearer to a picture of the training half. train, test: which picture each is itself, -1 if none."""
        return (distance(made, self.train, train) < distance(made, self.test, test)).float().mean().item()


def distance(made: Tensor, known: tuple[Tensor, Tensor], own: Tensor | None = None) -> Tensor:
    """To the nearest known picture, `[N]`. own: which of them each is itself, -1 if none."""
    own = torch.full((len(made),), -1) if own is None else own
    return torch.cdist(made, known[0]).masked_fill(own[:, None] == known[1], torch.inf).min(1).values


def pictures(judge: Judge, part: str, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Handwriting of `part` of the digits, `[N, 256]`, and which picture each is of, `[N]`."""
    scenes = [(Thing(DIGITS[i % 10], "white", "still"),) for i in range(count)]
    clips = film(scenes, part=part, frames=1, generator=g(seed))
    return handwriting(judge.rebuilt(clips.video)), clips.sprites[:, 0]


def repeated(x: list | Tensor) -> list | Tensor:
    """The first eight, again and again."""
    order = [i % 8 for i in range(len(x))]
    return [x[i] for i in order] if isinstance(x, list) else x[order]


def blurred(video: Tensor) -> Tensor:
    return avg_pool3d(video, (1, 5, 5), 1, (0, 2, 2))


def noisy(video: Tensor) -> Tensor:
    return (video + 0.3 * torch.randn(video.shape, generator=g(1))).clamp(0, 1)


def cut(video: Tensor) -> Tensor:
    """Each clip goes on, from its tenth frame, as another one."""
    return torch.cat([video[:, :, :9], video.roll(1, 0)[:, :, 9:]], dim=2)


ORDER = torch.randperm(17, generator=g(0))
FAULTS: dict[str, tuple[Callable, Callable]] = {  # what is done to the clips, and to what was asked for
    "blurred": (blurred, list),
    "recoloured": (lambda v: v[:, [1, 2, 0]], list),
    "wrong captions": (lambda v: v, lambda things: things[1:] + things[:1]),
    "noisy": (noisy, list),
    "frames shuffled": (lambda v: v[:, :, ORDER], list),
    "frozen": (lambda v: v[:, :, :1].expand_as(v), list),
    "another clip after frame 9": (cut, list),
    "eight clips, repeated": (repeated, repeated),
}


def memory(hands: Hands, judge: Judge, made: Tensor) -> dict[str, dict[str, float]]:
    """Generated handwriting, planted copies, and what no copying gives.

    Of each the share that is nearer to the training half than to the other, and quantiles of the distance to the
    nearest picture of the training half.
    """
    (train, whose), (test, others) = (pictures(judge, part, 402 + i, 512) for i, part in enumerate(("train", "test")))
    asked = {
        "generated": (made, None, None),
        "training half, each without itself": (train, whose, None),
        "other half, each without itself": (test, None, others),
        "planted copies": (train, None, None),
    }
    figures = {}
    for name, (x, in_train, in_test) in asked.items():
        near = distance(x, hands.train, in_train).quantile(torch.tensor([0.01, 0.05, 0.5])).tolist()
        shares = {"nearer to training": hands.nearer(x, in_train, in_test)}
        figures[name] = rounded(shares | dict(zip(("1 %", "5 %", "median"), near, strict=True)))
    return figures


# --- A renderer for what `film` has no words for


def drawn(shapes: list[str], colors: list[str], centers: Tensor, height: int, width: int) -> Tensor:
    """Clips of circles and squares of any motion; centers `[B, F, 2]`."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    dx, dy = x - centers[..., 0, None, None], y - centers[..., 1, None, None]  # [B, F, H, W]
    round_ = torch.tensor([shape == "circle" for shape in shapes])[:, None, None, None]
    inside = torch.where(round_, 6.02 - (dx**2 + dy**2).sqrt(), 5.32 - torch.maximum(dx.abs(), dy.abs()))
    rgb = torch.tensor([RGB[color] for color in colors])[:, :, None, None, None]
    return rgb * (inside + 0.5).clamp(0, 1)[:, None]


def over(near: Tensor, far: Tensor) -> Tensor:
    return torch.where(near.amax(1, keepdim=True) > 0.5, near, far)


# --- Where the model fails


def speeds(judge: Judge, pipe: MiniSoraPipeline, count: int, steps: int) -> list[dict]:
    """Five frames of a thing at each speed are given; how fast is it in the frames that follow?"""
    rows = []
    for speed in SPEEDS:
        shapes, colors = ["circle", "square"] * (count // 2), [list(RGB)[i % 6] for i in range(2 * (count // 2))]
        start = torch.rand(len(shapes), 2, generator=g(500)) * torch.tensor([0.5, 18.0])
        push, room = (torch.tensor(x).expand(len(shapes), 2) for x in ([speed, 0.0], [18.0, 18.0]))
        real = drawn(shapes, colors, bounced(start, push, room, 17) + 7, 32, 32)
        row = {"speed": speed, "clips": len(shapes), "real, rebuilt": spread_of_speed(judge.rebuilt(real))}
        for word, scale in (("", 3.0), (" slowly", 3.0), (" fast", 3.0), ("", 1.0)):
            said = [f"a {color} {shape} moving right{word}" for color, shape in zip(colors, shapes, strict=True)]
            options = {"num_frames": 17, "num_inference_steps": steps, "guidance_scale": scale, "generator": g(501)}
            name = "moving right" + word + ("" if scale == 3 else ", guidance 1")
            row[name] = spread_of_speed(pipe(said, image=real[:, :, :5], **options).frames)
        rows.append(row)
        print(row, flush=True)
    return rows


def spread_of_speed(video: Tensor) -> list[float]:
    """Pixels a frame to the right in frames 5 to 7, before the fastest meet the wall: 10, 50 and 90 % of the clips."""
    moved = centroids(video)[:, 5:8].diff(dim=1)[..., 0].mean(1)
    return [round(v, 3) for v in moved.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()]


def behind(judge: Judge, pipe: MiniSoraPipeline, count: int, steps: int) -> dict:
    """A thing goes behind another, is hidden in the last frame that is given, and should come out as it went in."""
    gen = g(510)
    colors = list(RGB)
    near_color = [colors[int(torch.randint(6, (), generator=gen))] for _ in range(count)]
    far_color = [colors[(colors.index(c) + 1 + int(torch.randint(5, (), generator=gen))) % 6] for c in near_color]
    shapes = ["circle", "square"]
    near_shape, far_shape = [shapes[i % 2] for i in range(count)], [shapes[i // 2 % 2] for i in range(count)]
    at = torch.stack([12 + 10 * torch.rand(count, generator=gen), 4 * torch.rand(count, generator=gen)], 1)  # [B, 2]
    way = torch.where(torch.rand(count, generator=gen) < 0.5, 1.0, -1.0) * PIXELS_PER_FRAME["fast"]
    steps_away = torch.arange(17) - 8
    still = at[:, None].expand(-1, 17, -1) + 7
    passing = still + torch.stack([way[:, None] * steps_away, torch.zeros(count, 17)], dim=2)
    aside = still.clone()
    aside[..., 1] += 14
    near, alone = drawn(near_shape, near_color, still, 32, 48), drawn(far_shape, far_color, passing, 32, 48)
    beside = drawn(near_shape, near_color, aside, 32, 48)
    words = [f"moving {'right' if w > 0 else 'left'} fast" for w in way.tolist()]
    one = [f"a {c} {s} {w}" for c, s, w in zip(far_color, far_shape, words, strict=True)]
    fronts = [f"a {c} {s} standing still in front of" for c, s in zip(near_color, near_shape, strict=True)]
    two = [f"{front} {rest}" for front, rest in zip(fronts, one, strict=True)]
    scenes = {"alone": (alone, one), "beside": (torch.maximum(beside, alone), two), "behind": (over(near, alone), two)}
    figures = {"clips": count}
    for name, (real, said) in scenes.items():
        made = pipe(said, image=real[:, :, :9], num_frames=17, num_inference_steps=steps, generator=g(511))
        for kind, video in {"generated": made.frames, "real, rebuilt": judge.rebuilt(real)}.items():
            share = came_out(video, far_color, passing[:, 16]).float().mean().item()
            figures.setdefault(name, {})[kind] = round(share, 3)
    print("behind", figures, flush=True)
    return figures


def came_out(video: Tensor, colors: list[str], place: Tensor) -> Tensor:
    """In the last frame, is there about as much of the colour as a thing has, and within three pixels of its place?"""
    last = torch.stack([isolated(clip[:, -1:], color) for clip, color in zip(video, colors, strict=True)])
    area = (last.amax(1) > 0.4).sum((1, 2, 3))
    return (area > 60) & (area < 190) & ((centroids(last)[:, 0] - place).norm(dim=1) < 3)


@torch.no_grad()
def seen_in(judge: Judge, video: Tensor, wanted: Tensor) -> list[float]:
    """The share of clips in whose frame 0, 4, 8, ... the probe sees the subject asked for."""
    frames = range(0, video.shape[2], 4)
    hits = [(judge.probe(video[:, :, [i]])["subject"].argmax(1) == wanted).float().mean().item() for i in frames]
    return [round(hit, 3) for hit in hits]


def extended(judge: Judge, pipe: MiniSoraPipeline, scenes: Scenes, steps: int) -> dict:
    """Real clips of nine frames, extended by eight frames four times: is it still the same thing?

    Control: the caption names another subject, the next one in the list. Is what was shown seen, or what is named?
    """
    clips = film(scenes, frames=41, part="test", generator=g(520))
    things = [scene[0] for scene in scenes]
    named = [replace(thing, subject=SUBJECTS[(SUBJECTS.index(thing.subject) + 1) % len(SUBJECTS)]) for thing in things]
    shown, other = (attributes(those)["subject"] for those in (things, named))
    figures = {"clips": len(scenes), "real, rebuilt": seen_in(judge, judge.rebuilt(clips.video), shown)}
    for name, those in {"generated": things, "wrong subject named": named}.items():
        said, video = [describe((thing,)) for thing in those], clips.video[:, :, :9]
        for i in range(4):
            known = video[:, :, -9:].clamp(0, 1)
            made = pipe(said, image=known, num_frames=17, num_inference_steps=steps, generator=g(521 + i)).frames
            video = torch.cat([video, made[:, :, 9:]], dim=2)
        figures[name] = seen_in(judge, video, shown)
    figures["wrong subject named, seen as named"] = seen_in(judge, video, other)
    print("extended", figures, flush=True)
    return figures


def sizes(judge: Judge, pipe: MiniSoraPipeline, scenes: Scenes, steps: int) -> dict:
    """Frames of other sizes; the last one is larger than any in training."""
    figures, things = {"clips": len(scenes)}, [scene[0] for scene in scenes]
    for height, width in ((32, 32), (32, 48), (64, 64)):
        real = film(scenes, height=height, width=width, part="test", generator=g(530)).video
        parts = [
            pipe([describe(s) for s in scenes[i : i + 16]], height=height, width=width, num_inference_steps=steps,
                 generator=g(531 + i)).frames
            for i in range(0, len(scenes), 16)
        ]  # fmt: skip
        both = {"generated": torch.cat(parts), "real, rebuilt": judge.rebuilt(real)}
        figures[f"{height} x {width}"] = {name: judge.adherence(video, things) for name, video in both.items()}
    print("sizes", figures, flush=True)
    return figures


# --- All of it


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def table(judge: Judge, hands: Hands, made: Tensor, scenes: Scenes, count: int) -> dict:
    """Each fault against each measure; every set has `count` clips, and so has the reference."""
    things, pool, others = [scene[0] for scene in scenes], judge.scenes(2 * count, 301), judge.scenes(2 * count, 302)
    asked = [scene[0] for scene in pool]
    clips = film(pool, part="test", generator=g(303))
    video, whose = judge.rebuilt(clips.video), clips.sprites[:, 0]
    real = per_clip(judge, video, asked, whose)
    reference = judge.features(judge.rebuilt(film(others, generator=g(304)).video))
    draws = []
    for seed in range(DRAWS):
        i, j = (torch.randperm(2 * count, generator=g(seed + shift))[:count] for shift in (0, 1000))
        draws.append(of_set({name: x[i] for name, x in real.items()}, reference[j], hands))
    base, first, asked = reference[:count], video[:count], asked[:count]
    rows = {"real, unseen writers": of_set({name: x[:count] for name, x in real.items()}, base, hands)}
    for name, (change, other) in FAULTS.items():
        figures = per_clip(judge, change(first), other(asked), whose[:count])
        if change is repeated:
            figures["whose"] = repeated(figures["whose"])
        if name == "wrong captions":  # they do not change which clips show digits
            figures["digit"] = real["digit"][:count]
        rows[name] = of_set(figures, base, hands)
    again = judge.rebuilt(film(pool[:count], part="train", generator=g(306)).video)
    rows["copies of training digits"] = of_set(per_clip(judge, again, asked), base, hands)
    rows["Mini-Sora"] = of_set(per_clip(judge, made[:count], things[:count]), base, hands)
    values = {name: [draw[name] for draw in draws] for name in draws[0]}
    chance = {name: rounded({"low": min(v), "high": max(v)}) for name, v in values.items()}
    return {"clips": count, "rows": {name: rounded(row) for name, row in rows.items()}, "chance": chance}


def distances(judge: Judge, made: Tensor, count: int) -> dict:
    """The Frechet distance to real clips against how many there are."""
    real = [judge.features(judge.rebuilt(film(judge.scenes(count, s), generator=g(s)).video)) for s in (310, 311)]
    shuffled = judge.features(judge.rebuilt(film(judge.scenes(count, 312), generator=g(312)).video)[:, :, ORDER])
    ours, sizes_ = judge.features(made), [n for n in (16, 32, 64, 128, 256, 512) if n <= count]
    figures = {"N": sizes_}
    for name, x in {"real against real": real[1], "Mini-Sora": ours, "real, frames shuffled": shuffled}.items():
        figures[name] = []
        for n in sizes_:
            values = []
            for k in range(8):  # eight draws of n from each set
                i, j = (torch.randperm(len(y), generator=g(k + s))[:n] for s, y in ((0, x), (50, real[0])))
                values.append(frechet_distance(x[i], real[0][j]))
            figures[name].append(round(sum(values) / len(values), 2))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=512, help="prompts; the other sets are parts of it")
    args = parser.parse_args()
    n, began = args.count, time.perf_counter()
    judge = Judge(load_pretrained("video-autoencoder"), load_pretrained("video-probe"))
    pipe = MiniSoraPipeline.from_pretrained("mini-sora")
    hands, scenes = Hands(judge, 4000, 400), judge.scenes(n, 300)  # nearly all of each half
    things = [scene[0] for scene in scenes]
    made = judge.generated(pipe.transformer, [describe(scene) for scene in scenes], seed=300, steps=12, scale=3.0)
    clips = per_clip(judge, made, things)
    apart = torch.tensor([held_out(thing) for thing in things])
    print("generated", time.perf_counter() - began, flush=True)
    results = {
        "command": "python training/video_measures.py",
        "weights": read_card("mini-sora")["sha256"],
        "minutes of training": read_card("mini-sora")["minutes"],
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "prompts": n,
        "steps": 12,
        "steps of the failures": 6,
        "table": table(judge, hands, made, scenes, n // 2),
        "combinations": {
            name: {"clips": int(part.sum()), "all right": round(clips["all right"][part].mean().item(), 4)}
            for name, part in {"in training": ~apart, "held out": apart}.items()
        },
        "distances": distances(judge, made, n),
        "handwriting": memory(hands, judge, clips["handwriting"][clips["digit"]]),
        "speeds": speeds(judge, pipe, n // 16, 6),
        "behind": behind(judge, pipe, n // 8, 6),
        "extended": extended(judge, pipe, scenes[: n // 8], 6),
        "sizes": sizes(judge, pipe, scenes[: n // 8], 6),
    }
    results["minutes"] = round((time.perf_counter() - began) / 60, 1)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
