"""What do steps and guidance buy? Sample the shipped Mini-Sora on a grid of both (about four minutes on one thread)."""

import datetime
import json
import time
from pathlib import Path

import torch
from judge import Judge

from sora_lib.datasets import film, velocity
from sora_lib.metrics import frechet_distance, motion_error, precision_recall
from sora_lib.pretrained import load_pretrained, read_card
from sora_lib.text import describe

RESULTS = Path(__file__).resolve().parent / "results" / "mini_sora_sampling.json"
STEPS, SCALES, PROMPTS, SEED = (3, 6, 12), (1.0, 2.0, 3.0, 4.0, 6.0), 128, 0


def main() -> None:
    judge = Judge(load_pretrained("video-autoencoder"), load_pretrained("video-probe"))
    model, scenes, began = load_pretrained("mini-sora"), judge.scenes(PROMPTS, 200), time.perf_counter()
    things, said = [scene[0] for scene in scenes], [describe(scene) for scene in scenes]
    speeds = torch.stack([velocity(thing) for thing in things])
    others = film(judge.scenes(PROMPTS, 201), generator=torch.Generator().manual_seed(SEED)).video
    real = judge.features(judge.rebuilt(others))
    points = []
    for steps in STEPS:
        for scale in SCALES:
            video = judge.generated(model, said, seed=SEED, steps=steps, scale=scale)
            features = judge.features(video)
            precision, recall = precision_recall(real, features)
            figures = judge.adherence(video, things) | {
                "motion error": round(motion_error(video, speeds).mean().item(), 3),
                "Frechet distance": round(frechet_distance(features, real), 2),
                "precision": round(precision, 3),
                "recall": round(recall, 3),
            }
            points.append({"steps": steps, "scale": scale} | figures)
            print(points[-1], flush=True)
    results = {
        "command": "python training/mini_sora_sampling.py",
        "weights": read_card("mini-sora")["sha256"],
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "seed": SEED,
        "prompts": PROMPTS,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "steps": STEPS,
        "scales": SCALES,
        "points": points,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
