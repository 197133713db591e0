"""The benchmarks measure what they say: their law, their steps, their counts, and the page that quotes them."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from sora_lib import RectifiedFlow, train
from sora_lib.mini_sora import MiniSora
from sora_lib.pretrained import read_card
from sora_lib.transformer import DiTBlock, rotary_angles

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import _report  # noqa: E402
import growth  # noqa: E402
import points  # noqa: E402
import transformer  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", points.SETS)
def test_each_set_has_mean_0_and_variance_1(name):
    xy = points.SETS[name](20_000, generator())
    assert xy.mean(0).abs().max() < 0.04  # five standard errors, 1 / sqrt(20,000) each
    assert abs(xy.var(0).mean() - 1) < 0.04


def test_the_checkerboard_is_even_on_its_dark_squares():
    side = 16 / 12
    squares = (points.checkerboard(16_000, generator()) * side**0.5 + 2).floor().long()
    assert ((squares.sum(1)) % 2 == 0).all()
    counts = (4 * squares[:, 1] + squares[:, 0]).bincount(minlength=16)
    assert (counts > 0).sum() == 8
    assert counts[counts > 0].min() > 1800  # 2,000 each, with a standard deviation of 42


def test_turns_add_up_to_the_steps_asked_for():
    done = {"a": 0, "b": 0}

    def count(name):
        while True:
            done[name] += 1
            yield

    taken = points.in_turns({name: count(name) for name in done}, {"a": 137, "b": 20})
    assert done == {"a": 137, "b": 20}
    assert min(taken.values()) > 0


def test_a_library_that_imports_torchvision_stays_imported(tmp_path, monkeypatch):
    (tmp_path / "asks_for_pictures.py").write_text("from torchvision import transforms\n")
    monkeypatch.syspath_prepend(tmp_path)
    with points.without_pictures():
        asks = import_module("asks_for_pictures")
    assert sys.modules.pop("asks_for_pictures") is asks
    assert "torchvision" not in sys.modules


def test_a_part_of_the_table_is_not_saved(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["points.py", "--save", "--only", "this course"])
    with pytest.raises(SystemExit):
        points.main()
    assert "leave out --only" in capsys.readouterr().err


def test_the_courses_own_entry_trains_and_samples():
    torch.manual_seed(0)
    found = points.compare(points.SETS["moons"], ["this course"], 0.6, 0)["this course"]
    steps, trained, sampled, ratio = found
    assert steps > 10 and trained > 0 and sampled > 0
    assert 0.5 < ratio < 40  # noise itself lies at 16


def test_our_recipe_for_others_is_what_train_does():
    """The same network, batches, times and noise: the same weights and average after ten steps."""
    flow, data = RectifiedFlow(), points.SETS["moons"](2000, generator())
    torch.manual_seed(0)
    mine, theirs = points.s.MLPDenoiser(), points.s.MLPDenoiser()
    theirs.load_state_dict(mine.state_dict())
    options = {"steps": 10, "prediction": "v", "lr": points.LR}
    *_, (_, _, state) = train(mine, points.batches(data, 64, generator()), flow, generator=generator(), **options)
    recipe, source, draw = points.Recipe(theirs, 10), points.batches(data, 64, generator()), generator()
    for _ in range(10):
        x0, t = next(source), points.s.training.uniform_times(64, draw)
        eps = torch.randn(x0.shape, generator=draw)
        recipe.step((theirs(flow.add_noise(x0, t, eps), t) - (eps - x0)).square().mean())
    for a, b in [(mine, theirs), (state.ema.model, recipe.ema.model)]:
        for weight, other in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(weight, other)


def test_attention_is_counted():
    """4 B H N^2 D for q k and for its product with v, two operations each; backward is 2.5 times that."""
    q = torch.randn(2, 3, 40, 16, requires_grad=True)
    attend = torch.nn.functional.scaled_dot_product_attention
    forward = 4 * 2 * 3 * 40**2 * 16
    assert transformer.flops(lambda: attend(q, q, q)) == forward
    assert transformer.flops(lambda: attend(q, q, q).sum().backward()) == 3.5 * forward


def test_each_measured_step_moves_the_weights():
    step, model = transformer.training_step(2, (1, 4, 4), 24, 1, 2)
    for _ in range(2):
        before = model.final.out.weight.clone()
        step()
        assert not torch.equal(model.final.out.weight, before)


def test_the_network_as_shipped_is_the_one_that_ships_and_that_is_built_by_default():
    size, default = tuple(read_card("mini-sora")["arguments"].values()), MiniSora()
    assert size == (default.width, len(default.blocks), default.blocks[0].attention.heads)
    assert size == transformer.NETWORKS["mini-Sora, as shipped"][2:] == growth.AXES["batch"][32][2:]


def test_shares_are_measured_on_as_many_threads_as_they_say(monkeypatch):
    monkeypatch.setattr(transformer, "NETWORKS", {"small": (2, (1, 4, 4), 24, 1, 2)})
    monkeypatch.setattr(transformer, "ROUNDS", 3)
    seen, before, step = set(), torch.get_num_threads(), transformer.training_step

    def watched(*size):
        run, model = step(*size)
        return lambda: (seen.add(torch.get_num_threads()), run()), model

    monkeypatch.setattr(transformer, "training_step", watched)
    try:
        for threads in (2, 1):
            lines = transformer.speeds(["small"], threads)
            assert seen == {threads} and len(lines) == 2
            assert all(("one thread" in line[0]) == (threads == 1) and 0 < min(line[-1]) < 1 for line in lines)
            seen.clear()
    finally:
        torch.set_num_threads(before)


def test_without_rotary_is_the_block_at_angles_0():
    block, (x, condition) = DiTBlock(24, 2), transformer.inputs(2, (1, 2, 3), 24)
    torch.nn.init.normal_(block.modulation.weight)
    wanted = block(x, condition, 0 * rotary_angles((1, 2, 3), 12))
    block.attention.forward = transformer.without_rotary(block.attention)
    torch.testing.assert_close(block(x, condition, rotary_angles((1, 2, 3), 12)), wanted)


def test_the_peak_is_what_is_held_at_once():
    def run():
        for _ in range(3):  # one at a time: 4 MB, and 8 while the next is made before the last is let go
            torch.ones(1000, 1000)

    assert 4 <= growth.peak(run) < 8.1


def test_a_small_step_adds_its_gradients_and_their_copy(monkeypatch):
    """2 clips of one latent frame, with few activations; the gradients of the step before are not taken off."""
    monkeypatch.setattr(growth, "AXES", {"width": {96: (2, (1, 4, 4), 96, 4, 4)}})
    monkeypatch.setattr(growth, "STEPS", (2,))
    monkeypatch.setattr(growth, "ROUNDS", 1)
    _, model = transformer.training_step(2, (1, 4, 4), 96, 4, 4)
    gradients = 4 * sum(weight.numel() for weight in model.parameters()) / 1e6
    _, _, (held,) = growth.measure()["width"]
    assert 1.9 * gradients < held < 2.5 * gradients


def test_the_power_is_a_slope():
    assert growth.power([1, 2, 4, 8], [5.0, 3.0, 12.0, 48.0]) == pytest.approx(2)


def test_publishing_replaces_one_block_and_keeps_the_rest(tmp_path, monkeypatch, capsys):
    page = tmp_path / "benchmarks.md"
    page.write_text("a\n<!-- x:start -->\nold\n<!-- x:end -->\nb\n<!-- y:start -->\nkeep\n<!-- y:end -->\n")
    monkeypatch.setattr(_report, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["bench"])
    _report.publish("x", "new")
    assert "old" in page.read_text() and capsys.readouterr().out == "new\n"
    monkeypatch.setattr(sys, "argv", ["bench", "--save"])
    _report.publish("x", "new")
    assert page.read_text().split("\n") == [
        *["a", "<!-- x:start -->", "new", "<!-- x:end -->", "b"],
        *["<!-- y:start -->", "keep", "<!-- y:end -->", ""],
    ]


def test_tables_are_markdown():
    assert _report.table(["a", "b"], [["x", 1]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    assert _report.spread([1, 3, 2]) == "2.00 (1.00 to 3.00)"


@pytest.mark.parametrize("name", ["points", "transformer", "growth", "startup"])
def test_the_page_quotes_each_benchmark(name):
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    block = page.split(f"<!-- {name}:start -->")[1].split(f"<!-- {name}:end -->")[0]
    assert "GFLOP/s" in block and "| --- |" in block  # the machine, and a table
    assert name == "startup" or (ROOT / "docs" / f"benchmark_{name}.png").is_file()
