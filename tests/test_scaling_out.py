"""Chapter 16's script: two processes equal one, planted mistakes are noticed, and a failing process leaves nothing."""

import json
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from safetensors.torch import save_file

from sora_lib.text import tokenize

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from scaling_out import global_batch, my_share

ROOT = Path(__file__).resolve().parents[1]
SOURCE = (ROOT / "training" / "scaling_out.py").read_text(encoding="utf-8")
TINY = ["--width", "24", "--depth", "1", "--batch", "8"]
CAPTIONS = ["a red circle moving up", "a blue square standing still", "a green triangle"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With spaces and letters of other scripts in its path, and clips in it: 12 of one latent frame of 4 x 4."""
    folder = tmp_path_factory.mktemp("run") / "мои 文件 here"
    folder.mkdir()
    latents = torch.randn(12, 8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    save_file({"latents": latents, "tokens": tokenize(4 * CAPTIONS)}, folder / "clips.safetensors")
    return folder


@pytest.fixture(scope="module")
def launch(folder):
    """The notebook's own way to launch, of a copy of the script in which `changes` are made."""
    cells = {c.id: c.source for c in nbformat.read(ROOT / "notebooks" / "16_scaling_out.ipynb", as_version=4).cells}

    def run(processes, *options, changes=()):
        names = {"folder": folder}
        exec("import json, os, subprocess, sys, sora_lib\nfrom pathlib import Path\n" + cells["command"], names)
        exec(cells["launch"], names)
        assert names["SCRIPT"] == ROOT / "training" / "scaling_out.py"
        text = SOURCE
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        names["SCRIPT"] = folder / "a copy.py"
        names["SCRIPT"].write_text(text, encoding="utf-8")
        return names["launch"](processes, *TINY, *options)

    return run


@pytest.fixture(scope="module")
def one(launch):
    return launch(1)


@pytest.fixture(scope="module")
def two(launch):
    return launch(2)


def differences(one, run):
    """What of a run is not as in one process, and whether its processes hold different weights."""
    found = set()
    for key, most in {"loss": 1e-4, "gradient norm": 1e-3}.items():
        if max(abs(a - b) for a, b in zip(run[key], one[key], strict=True)) > most:
            found.add(key)
    return found | ({"weights"} if len(set(run["size of the weights in each process"])) > 1 else set())


def test_two_processes_equal_one_over_50_steps(one, two):
    assert (one["processes"], two["processes"]) == (1, 2)
    assert len(one["loss"]) == len(two["loss"]) == 50
    assert differences(one, two) == set()
    assert abs(one["loss of the average"] - two["loss of the average"]) < 1e-4
    assert one["loss"][-1] < one["loss"][0]  # it learns


def test_each_process_saw_its_own_half(one, two):
    for (whole,), halves in zip(one["rows of each process"], two["rows of each process"], strict=True):
        assert len(halves) == 2 and halves[0] + halves[1] == whole
    assert all(a != b for a, b in two["loss of each process"])
    means = [sum(pair) / 2 for pair in two["loss of each process"]]
    assert two["loss"] == pytest.approx(means)


def test_averaging_by_hand_equals_the_engine(launch, one, two):
    by_hand = launch(2, "--by-hand")
    assert by_hand["processes"] == 2
    assert differences(one, by_hand) == set()
    assert by_hand["loss"] == pytest.approx(two["loss"], abs=1e-6)


RIGHT = "return {name: value[index * each : (index + 1) * each] for name, value in batch.items()}"
MISTAKES = {
    "added, not averaged": (
        ("accelerator.backward(loss)", "accelerator.backward(loss * count)"),
        "gradient norm",
    ),
    "the same times and noise in both": (
        (RIGHT, RIGHT + ' | {name: batch[name][:each] for name in ("t", "eps")}'),
        "loss",
    ),
    "gradients not exchanged": (
        ("    if not args.by_hand:\n        model, optimizer = acc", "    if False:\n        model, optimizer = acc"),
        "weights",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_noticed(launch, one, name):
    change, symptom = MISTAKES[name]
    assert symptom in differences(one, launch(2, changes=[change]))


def test_a_batch_that_does_not_divide_is_refused():
    data = {"latents": torch.zeros(4, 8, 1, 4, 4), "tokens": torch.zeros(4, 3, dtype=torch.long)}
    batch = global_batch(data, 15, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="--batch must be a multiple of the number of processes, 2, got 15"):
        my_share(batch, 0, 2)
    assert len(my_share(batch, 2, 3)["t"]) == 5


def test_a_failing_process_ends_the_launch_and_leaves_none_behind(launch, folder):
    (folder / "run.json").unlink(missing_ok=True)
    pids = "(Path(args.out).parent / f'{index}.pid').write_text(str(__import__('os').getpid()))"
    broken = f"if step == 3:\n            {pids}\n            if index == 1:\n                1 / 0\n        share = my"
    change = ("share = my", broken)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        launch(2, changes=[change])
    left = [int((folder / f"{index}.pid").read_text()) for index in (0, 1)]
    until = time.monotonic() + 10
    while any(map(psutil.pid_exists, left)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in left if psutil.pid_exists(pid)]
    assert not (folder / "run.json").exists()


def test_a_process_that_is_done_ends_at_once(launch):
    """Torch's threads may hold tensors for longer; when they let go while the interpreter ends, the process aborts."""
    aborts = "import atexit, os\n\natexit.register(os.abort)"
    assert launch(2, "--steps", "1", changes=[("import os", aborts)])["processes"] == 2


def test_a_missing_file_is_named(launch, folder):
    changes = [("if not Path(args.data).is_file()", "args.data += '.missing'\n    if not Path(args.data).is_file()")]
    with pytest.raises(RuntimeError, match=r"--data: there is no file .*clips.safetensors.missing"):
        launch(1, changes=changes)


def test_what_is_written_is_json_with_a_number_for_each_step(folder, two):
    kept = json.loads(json.dumps(two))
    assert {len(kept[key]) for key in ("loss", "gradient norm", "seconds", "rows of each process")} == {50}
    assert kept["parameters"] > 1000 and kept["all-reduce seconds"] > 0
