"""Judge generated video: adherence to the prompt, motion, distance to real video, copies; each with yardsticks."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from sora_lib.autoencoder import VideoAutoencoder
from sora_lib.datasets import RGB, Clips, film, random_scene
from sora_lib.metrics import (
    VideoProbe,
    adherence,
    centroids,
    frechet_distance,
    motion_error,
    precision_recall,
)
from sora_lib.mini_sora import MiniSora, Told, told
from sora_lib.pipeline import sample_latents
from sora_lib.text import DIGITS, SUBJECTS, Thing, attributes, describe

Scenes = list[tuple[Thing, ...]]
WRITERS = {"real, training half": "train", "real, held-out half": "test"}


class Judge:
    """The probe and the autoencoder, with which sets of 512 clips, or another number, are made and judged."""

    def __init__(self, encoder: VideoAutoencoder, probe: VideoProbe, subjects: tuple[str, ...] = SUBJECTS) -> None:
        self.encoder, self.probe, self.subjects = encoder, probe, subjects

    def scenes(self, count: int, seed: int, things: int = 1, combinations: str = "all") -> Scenes:
        g = torch.Generator().manual_seed(seed)
        options = {"subjects": self.subjects, "combinations": combinations, "generator": g}
        return [random_scene(things, **options) for _ in range(count)]

    @torch.no_grad()
    def decoded(self, z: Tensor) -> Tensor:
        """Video `[B, 3, F, H, W]` in [0, 1]."""
        return torch.cat([(self.encoder.decode(part) + 1).div(2).clamp(0, 1) for part in z.split(64)])

    @torch.no_grad()
    def rebuilt(self, video: Tensor) -> Tensor:
        """Real video through the autoencoder and back: the best that a transformer in its latents can do."""
        return self.decoded(torch.cat([self.encoder.encode(2 * part - 1) for part in video.split(64)]))

    def generated(self, model: MiniSora, captions: list[str], *, seed: int, steps: int, scale: float) -> Tensor:
        g, request = torch.Generator().manual_seed(seed), told(captions, (5, 8, 8))
        parts = zip(*(x.split(64) for x in (request.tokens, request.known, request.mask)), strict=True)
        options = {"steps": steps, "scale": scale, "generator": g}
        return self.decoded(torch.cat([sample_latents(model, Told(*part), **options) for part in parts]))

    @torch.no_grad()
    def adherence(self, video: Tensor, things: list[Thing]) -> dict[str, float]:
        return rounded(adherence(self.probe(video), attributes(things)))

    @torch.no_grad()
    def keeps_its_subject(self, video: Tensor, things: list[Thing]) -> float:
        """The share of clips in which every fourth frame, alone, shows the subject that was asked for."""
        wanted = attributes(things)["subject"]
        right = [self.probe(frame[:, :, None])["subject"].argmax(1) == wanted for frame in video[:, :, ::4].unbind(2)]
        return round(torch.stack(right).all(0).float().mean().item(), 4)

    def adherence_of_two(self, video: Tensor, scenes: Scenes) -> dict[str, float]:
        """As `adherence`, of both things of each clip: each is cut out by its colour; "both" asks for all of both."""
        things = [thing for scene in scenes for thing in scene]
        apart = torch.stack([isolated(clip, t.color) for clip, scene in zip(video, scenes, strict=True) for t in scene])
        with torch.no_grad():
            logits, wanted = self.probe(apart), attributes(things)
        each = adherence(logits, wanted)
        right = torch.stack([(logits[k].argmax(1) == n) | (n < 0) for k, n in wanted.items()]).all(0)
        return rounded(each | {"both": right.reshape(-1, 2).all(1).float().mean().item()})

    @torch.no_grad()
    def features(self, video: Tensor) -> Tensor:
        return torch.cat([torch.cat(self.probe.features(part), dim=1) for part in video.split(64)])


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def isolated(clip: Tensor, color: str) -> Tensor:
    """The pixels of `[3, F, H, W]` whose colour is nearer to this one than to the others; the rest is black."""
    light = clip.amax(0, keepdim=True).clamp(min=0.05)
    hues = torch.tensor(list(RGB.values()))
    hues = (hues / hues.amax(1, keepdim=True))[:, :, None, None, None]  # [colours, 3, 1, 1, 1]
    nearest = (clip / light - hues).square().sum(1).argmin(0)  # [F, H, W]
    return clip * (nearest == list(RGB).index(color))


def handwriting(video: Tensor) -> Tensor:
    """The thing in the first frame, `[B, 256]`, in grey, its centre of light in the middle, of equal brightness."""
    light, side = video[:, :, 0].amax(1, keepdim=True), 16
    center = centroids(video[:, :, :1])[:, 0]  # [B, 2]
    size = torch.tensor([video.shape[4], video.shape[3]])
    theta = torch.zeros(len(video), 2, 3)
    theta[:, [0, 1], [0, 1]] = side / size
    theta[:, :, 2] = 2 * center / size - 1
    cut = grid_sample(light, affine_grid(theta, [len(video), 1, side, side], align_corners=False), align_corners=False)
    return cut.flatten(1) / cut.flatten(1).norm(dim=1, keepdim=True).clamp(min=1e-6)


def nearer_to_training(
    made: Tensor, training: Tensor, held_out: Tensor, which: tuple[Tensor, Tensor, Tensor] | None = None
) -> float:
    """The share of handwriting that is nearer to some training picture than to each of as many held-out ones.

    which: the number of each picture in the three sets; none is compared with itself.
    """
    n = min(len(training), len(held_out))
    gaps = [torch.cdist(made, known[:n]) for known in (training, held_out)]
    if which:
        gaps = [g.masked_fill(which[0][:, None] == w[:n], torch.inf) for g, w in zip(gaps, which[1:], strict=True)]
    near, far = (gap.min(dim=1).values for gap in gaps)
    return round((near < far).float().mean().item(), 3)


def report(judge: Judge, model: MiniSora, *, count: int = 512, steps: int = 12, scale: float = 3.0) -> dict:
    """All figures of the card, on prompts uniform over the grammar."""

    def real(scenes: Scenes, part: str, seed: int) -> Clips:
        return film(scenes, part=part, generator=torch.Generator().manual_seed(seed))

    def made(scenes: Scenes, seed: int) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        said = [describe(scene, synonyms=True, generator=g) for scene in scenes]
        return judge.generated(model, said, seed=seed, steps=steps, scale=scale)

    sets = {"one thing": "all", "held-out combinations": "held out"}
    scenes = {name: judge.scenes(count, 100 + i, combinations=c) for i, (name, c) in enumerate(sets.items())}
    scenes["two things"] = judge.scenes(count // 2, 102, things=2)
    clips = {name: real(s, "test", 110 + i) for i, (name, s) in enumerate(scenes.items())}
    videos = {name: made(s, 120 + i) for i, (name, s) in enumerate(scenes.items())}
    figures: dict = {"prompts": {name: len(s) for name, s in scenes.items()}, "steps": steps, "guidance scale": scale}
    for name in sets:
        things = [scene[0] for scene in scenes[name]]
        figures[name] = {
            "generated": judge.adherence(videos[name], things),
            "real, rebuilt": judge.adherence(judge.rebuilt(clips[name].video), things),
            "generated, prompts shuffled": judge.adherence(videos[name], things[1:] + things[:1]),
        }
    figures["two things"] = {
        "generated": judge.adherence_of_two(videos["two things"], scenes["two things"]),
        "real, rebuilt": judge.adherence_of_two(judge.rebuilt(clips["two things"].video), scenes["two things"]),
    }
    ours, theirs = videos["one thing"], clips["one thing"]
    things, speeds = [scene[0] for scene in scenes["one thing"]], theirs.velocities[:, 0]
    figures["keeps its subject in every fourth frame"] = {
        "generated": judge.keeps_its_subject(ours, things),
        "real, rebuilt": judge.keeps_its_subject(judge.rebuilt(theirs.video), things),
        "generated, prompts shuffled": judge.keeps_its_subject(ours, things[1:] + things[:1]),
    }
    figures["motion error, pixels a step"] = rounded(
        {
            "generated": motion_error(ours, speeds).mean().item(),
            "real, rebuilt": motion_error(judge.rebuilt(theirs.video), speeds).mean().item(),
            "generated, prompts shuffled": motion_error(ours, speeds.roll(1, 0)).mean().item(),
        }
    )
    reference, other = (real(judge.scenes(count, seed), "train", seed).video for seed in (130, 131))
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    sets_of_features = {
        "generated": ours,
        "real against real": judge.rebuilt(other),
        "real, frames shuffled": judge.rebuilt(other)[:, :, order],
    }
    base = judge.features(judge.rebuilt(reference))
    for name, video in sets_of_features.items():
        features = judge.features(video)
        precision, recall = precision_recall(base, features)
        distance = frechet_distance(features, base)
        figures.setdefault("features", {})[name] = rounded(
            {"Frechet distance": distance, "precision": precision, "recall": recall}
        )
    figures["nearer to training than to held-out handwriting"] = copies(judge, ours, scenes["one thing"])
    return figures


def copies(judge: Judge, video: Tensor, scenes: Scenes) -> dict[str, float]:
    """Of digits: generated, real ones of either half, each without itself, and planted copies of training pictures."""
    digit = torch.tensor([scene[0].subject in DIGITS for scene in scenes])

    def pictures(seed: int, part: str, count: int) -> tuple[Tensor, Tensor]:
        """Handwriting `[count, 256]`, and which picture of both halves each is, `[count]`."""
        g = torch.Generator().manual_seed(seed)
        names = [DIGITS[int(torch.randint(10, (), generator=g))] for _ in range(count)]
        clips = film([(Thing(name, "white", "still"),) for name in names], part=part, frames=1, generator=g)
        return handwriting(judge.rebuilt(clips.video)), clips.sprites[:, 0] + 1000 * (part == "test")

    (seen, s), (unseen, u) = pictures(140, "train", 4000), pictures(141, "test", 4000)  # nearly all of each half
    others = {name: pictures(142 + i, part, 256) for i, (name, part) in enumerate(WRITERS.items())}
    return {
        "generated": nearer_to_training(handwriting(video[digit]), seen, unseen),
        **{name: nearer_to_training(x, seen, unseen, (w, s, u)) for name, (x, w) in others.items()},
        "planted copies": nearer_to_training(pictures(144, "train", 256)[0], seen, unseen),
    }
