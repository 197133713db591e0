"""Losses with known values, the loop, the average of the weights, and checkpoints."""

import copy
import math
import os
from pathlib import Path
from statistics import NormalDist

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.testing import assert_close

from sora_lib import (
    EMA,
    Cosine,
    GaussianMixture,
    LinearBeta,
    MLPDenoiser,
    RectifiedFlow,
    convert,
    denoising_loss,
    load_checkpoint,
    points,
    save_checkpoint,
    train,
)
from sora_lib.files import unpack
from sora_lib.training import T_MIN, learning_rate, logit_normal_times, new_state, training_target, uniform_times

SCHEDULES = [LinearBeta(), Cosine(), RectifiedFlow()]
FLOW = RectifiedFlow()
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=rng(seed))


def network(seed=0):
    torch.manual_seed(seed)
    return MLPDenoiser(width=16, depth=1, time_dim=8)


def batches(generator, size=32):
    law = points("gaussians")
    while True:
        yield law.sample(size, generator=generator)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Answer(nn.Module):
    """A "network" that is any function of x_t and t."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t):
        return self.answer(x_t, t)


ZERO = Answer(lambda x_t, t: torch.zeros_like(x_t))

# --- Targets and losses


@each_schedule
def test_targets_are_their_definitions(schedule):
    x0, eps, t = randn(9, 2, seed=1), randn(9, 2, seed=2), torch.linspace(0.1, 0.9, 9)
    assert torch.equal(training_target(x0, t, eps, schedule, "eps"), eps)
    assert torch.equal(training_target(x0, t, eps, schedule, "x0"), x0)
    h = 1e-5  # v is the slope of the path x_t itself
    ahead, behind = (schedule.add_noise(x0.double(), t.double() + d, eps.double()) for d in (h, -h))
    slope = (ahead - behind) / (2 * h)
    # LinearBeta's slope jumps at nodes by beta's step, 1 % or less
    assert_close(training_target(x0, t, eps, schedule, "v").double(), slope, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_the_loss_is_the_mean_square_at_x_t(prediction):
    x0, eps, t = randn(9, 2, seed=1), randn(9, 2, seed=2), torch.linspace(0.1, 0.9, 9)
    target = {"eps": eps, "x0": x0, "v": eps - x0}[prediction]
    x_t = (1 - t)[:, None] * x0 + t[:, None] * eps
    model = Answer(lambda x, time: x * time[:, None])
    by_hand = (x_t * t[:, None] - target).square().mean()
    assert_close(denoising_loss(model, x0, t, eps, FLOW, prediction), by_hand)
    if prediction == "eps":
        assert_close(denoising_loss(model, x0, t, eps, FLOW), by_hand)


def test_zero_predictor_baselines():
    """For data of variance 1, answering 0 scores E[eps^2] = 1, E[x0^2] = 1, and E[(eps - x0)^2] = 2 for v."""
    n = 100_000
    x0, eps, t = randn(n, 2, seed=1), randn(n, 2, seed=2), torch.rand(n, generator=rng(3))
    for prediction, baseline in {"eps": 1, "x0": 1, "v": 2}.items():
        loss = denoising_loss(ZERO, x0, t, eps, FLOW, prediction).item()
        assert loss == pytest.approx(baseline, rel=0.016)  # five standard errors of sqrt(2 / 2n) = 0.3 %


@each_schedule
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_the_exact_denoisers_loss_is_the_closed_form_for_unit_gaussian_data(schedule, prediction):
    """Var(x0 | x_t) = sigma^2 / S with S = alpha^2 + sigma^2; the others follow from x_t = alpha x0 + sigma eps."""
    n, law = 100_000, GaussianMixture(torch.zeros(1, 2), 1.0)
    denoise = law.denoiser(schedule)
    model = Answer(lambda x, t: convert(denoise(x, t), x, t, schedule, source="x0", target=prediction))
    for time in (0.2, 0.5, 0.8):
        t = torch.full([n], time)
        alpha, sigma, a_dot, s_dot = (c.item() for c in schedule.curves(t[:1].double()))
        spread = alpha**2 + sigma**2
        best = {"x0": sigma**2, "eps": alpha**2, "v": (a_dot * sigma - s_dot * alpha) ** 2}[prediction] / spread
        if schedule is FLOW:
            assert {"x0": time**2, "eps": (1 - time) ** 2, "v": 1}[prediction] / spread == pytest.approx(best)
        loss = denoising_loss(model, law.sample(n, generator=rng(1)), t, randn(n, 2, seed=2), schedule, prediction)
        assert loss.item() == pytest.approx(best, rel=0.016)  # five standard errors


@each_schedule
def test_nothing_beats_the_exact_denoiser(schedule):
    """Its x0 loss is below that of any of its bent versions, and its gradient towards a bend is 0 within the noise."""
    law, n = points("gaussians"), 50_000
    x0, eps, t = law.sample(n, generator=rng(1)), randn(n, 2, seed=2), torch.full([n], 0.5)
    exact = law.denoiser(schedule)
    best = denoising_loss(Answer(exact), x0, t, eps, schedule, "x0")
    for bend in (lambda y, x: 0.95 * y, lambda y, x: y + 0.05, lambda y, x: y + 0.1 * (x - y), lambda y, x: y.round()):
        bent = Answer(lambda x, time, bend=bend: bend(exact(x, time), x))
        assert denoising_loss(bent, x0, t, eps, schedule, "x0") > best


def test_the_network_is_asked_at_x_t_and_t():
    """Catches data and noise exchanged, and a time that is not the sample's own."""
    seen = {}
    model = Answer(lambda x, t: seen.update(x=x, t=t) or x)
    x0, eps, t = randn(9, 2, seed=1), randn(9, 2, seed=2), torch.linspace(0, 1, 9)
    denoising_loss(model, x0, t, eps, FLOW)
    assert torch.equal(seen["t"], t)
    assert_close(seen["x"][0], x0[0], rtol=0, atol=0)
    assert_close(seen["x"][-1], eps[-1], rtol=0, atol=0)


# --- The average of the weights


def test_ema_by_hand():
    """Update n uses d = min(decay, (1 + n) / (10 + n)): 2/11, then 3/12, then the decay, 0.26."""
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema, average = EMA(model, 0.26), 1.0
    for d, weight in [(2 / 11, 5.0), (3 / 12, -2.0), (0.26, 7.0), (0.26, 0.0)]:
        model.weight.data.fill_(weight)
        ema.update(model)
        average = d * average + (1 - d) * weight
        assert ema.model.weight.item() == pytest.approx(average, rel=1e-6)
    assert ema.updates == 4


def test_ema_late_in_a_run_keeps_nearly_all():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = EMA(model, 0.99)
    ema.updates = 5000
    model.weight.data.fill_(1.0)
    ema.update(model)
    assert ema.model.weight.item() == pytest.approx(0.01, rel=1e-4)


def test_ema_with_decay_0_is_the_newest_weights_and_buffers_are_copied():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    ema = EMA(model, 0.0)
    model(randn(8, 2))
    model[0].weight.data.add_(1)
    ema.update(model)
    for ours, theirs in zip(ema.model.state_dict().values(), model.state_dict().values(), strict=True):
        assert_close(ours, theirs)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())
    assert model.training and all(p.requires_grad for p in model.parameters())


# --- The loop


def test_steps_count_from_1_and_the_loss_is_a_number():
    run = list(train(network(), batches(rng()), FLOW, steps=5))
    assert [step for step, *_ in run] == [1, 2, 3, 4, 5]
    assert all(isinstance(loss, float) and loss > 0 for _, loss, _ in run)
    assert run[-1][2].step == 5 and run[-1][2].ema.updates == 5


def test_the_first_loss_is_near_the_zero_predictors():
    """A fresh network answers nearly 0 (its last layer is small), so the run starts near the baseline."""
    for prediction, baseline in {"eps": 1, "v": 2, "x0": 1}.items():
        torch.manual_seed(0)
        model = MLPDenoiser()
        _, loss, _ = next(train(model, batches(rng(), 2000), FLOW, steps=1, prediction=prediction))
        assert loss == pytest.approx(baseline, rel=0.35)


def test_one_step_by_hand():
    """Adam's first step: each weight moves by lr (warmed up to 1/50) times the sign of its gradient."""
    model, generator = network(), rng(7)
    before, x0 = copy.deepcopy(model), randn(32, 2, seed=1)
    by_hand = rng(7)
    t = T_MIN + (1 - T_MIN) * torch.rand(32, generator=by_hand)
    eps = torch.randn(32, 2, generator=by_hand)
    loss = (before((1 - t)[:, None] * x0 + t[:, None] * eps, t) - (eps - x0)).square().mean()
    loss.backward()
    _, given, state = next(train(model, [x0], FLOW, steps=100, prediction="v", lr=1e-2, generator=generator))
    assert given == pytest.approx(loss.item(), rel=1e-6)
    for new, old in zip(model.parameters(), before.parameters(), strict=True):
        move = -1e-2 / 50 * old.grad / (old.grad.abs() + 1e-8)
        # weights of up to 1 are rounded to 6e-8
        assert_close(new.detach() - old.detach(), move, rtol=1e-3, atol=2e-7)
    ours = state.ema.model.state_dict()
    for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True):
        assert_close(ours[name], (2 * old.detach() + 9 * new.detach()) / 11)  # the first d is 2/11


def test_learning_rate_rises_then_falls_as_a_cosine():
    assert learning_rate(0, 10_000) == pytest.approx(1 / 50, rel=1e-6)
    assert learning_rate(24, 10_000) == pytest.approx(0.5, rel=1e-4)
    assert learning_rate(500, 1000) == pytest.approx(0.5)
    assert learning_rate(999, 1000) < 1e-5
    rates = [learning_rate(i, 1000) for i in range(1000)]
    assert max(rates) <= 1 and rates.index(max(rates)) in (49, 50) and min(rates) > 0


def test_it_learns():
    """One Gaussian, v on the straight path: from about 2 to near its optimum, E[1 / ((1-t)^2 + t^2)] = pi / 2."""
    law = GaussianMixture(torch.zeros(1, 2), 1.0)
    generator = rng()
    data = (law.sample(256, generator=generator) for _ in range(300))
    losses = [loss for _, loss, _ in train(network(), data, FLOW, steps=300, prediction="v", lr=1e-2)]
    # a mean of 100 losses of 512 numbers: standard error 0.6 %
    assert sum(losses[-100:]) / 100 == pytest.approx(math.pi / 2, rel=0.06)
    assert losses[0] > 1.8


def test_training_times_cover_0_to_1_evenly_and_the_noise_is_gaussian():
    seen_t, seen_x = [], []
    layer = nn.Linear(1, 1)
    model = Answer(lambda x, t: seen_t.append(t) or seen_x.append(x.detach()) or 0 * layer(x))
    model.layer = layer
    data = (torch.zeros(1000, 1) for _ in range(50))
    list(train(model, data, FLOW, steps=50))
    t, x = torch.cat(seen_t), torch.cat(seen_x)[:, 0]
    assert T_MIN <= t.min() < 0.002 and 0.998 < t.max() <= 1
    share = torch.histc(t, 10, 0, 1) / len(t)
    assert_close(share, torch.full([10], 0.1), rtol=0, atol=0.007)  # five standard errors
    eps = x / t  # x0 = 0
    assert eps.mean().item() == pytest.approx(0, abs=0.023)
    assert (eps**2).mean().item() == pytest.approx(1, abs=0.032)
    assert (eps**4).mean().item() == pytest.approx(3, abs=0.25)  # uniform noise of variance 1 has 1.8


def test_uniform_times_are_those_of_the_generator():
    assert_close(uniform_times(50, rng(3)), 0.001 + 0.999 * torch.rand(50, generator=rng(3)))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 1.0), (-1.0, 0.5), (1.5, 0.2)])
def test_logit_normal_times_have_their_quantiles(mean, std):
    """The quantile of p is sigmoid(mean + std z_p), so the median is sigmoid(mean). More noise with a larger mean.

    A quantile of n draws has the standard error sqrt(p (1 - p) / n) / density(z_p), in units of z; five of them.
    """
    n, normal = 40_000, NormalDist()
    t = logit_normal_times(mean, std)(n, rng(1))
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        z = normal.inv_cdf(p)
        found = (t.quantile(p).logit().item() - mean) / std
        assert found == pytest.approx(z, abs=5 * math.sqrt(p * (1 - p) / n) / normal.pdf(z))
    assert torch.equal(t, logit_normal_times(mean, std)(n, rng(1)))
    assert t.min() >= T_MIN and t.max() <= 1


@pytest.mark.parametrize("mean", [-1.0, 0.3, 2.0])
def test_the_mean_is_the_shift_of_stable_diffusion_3(mean):
    """t' = s t / (1 + (s - 1) t) with s = exp(mean), draw by draw (2403.03206, eq. 23 with t = 1 for noise)."""
    t, s = logit_normal_times(0.0)(1000, rng(2)).double(), math.exp(mean)
    shifted = s * t / (1 + (s - 1) * t)
    assert_close(logit_normal_times(mean)(1000, rng(2)).double(), shifted, rtol=1e-4, atol=1e-7)  # float32, 1 - t


def test_times_stay_in_the_range_that_every_schedule_takes():
    for mean, end in ((-10, T_MIN), (10, 1)):
        t = logit_normal_times(mean, 10)(2000, rng())
        assert t.min() >= T_MIN and t.max() <= 1 and (t == end).sum() > 500


def test_train_asks_the_network_at_the_times_it_is_given():
    """`times` gets the batch's size and the run's own generator, before the noise is drawn from it."""
    seen, asked = [], []
    layer = nn.Linear(1, 1)
    model = Answer(lambda x, t: seen.append((x.detach(), t)) or 0 * layer(x))
    model.layer = layer

    def times(n, generator):
        asked.append((n, generator))
        return logit_normal_times(0.7)(n, generator)

    generator, by_hand = rng(4), rng(4)
    list(train(model, [torch.zeros(5, 1), torch.zeros(3, 1)], FLOW, steps=2, times=times, generator=generator))
    assert asked == [(5, generator), (3, generator)]
    for (x_t, t), n in zip(seen, (5, 3), strict=True):
        wanted = (0.7 + torch.randn(n, generator=by_hand)).sigmoid()
        assert_close(t, wanted)
        assert_close(x_t, wanted[:, None] * torch.randn(n, 1, generator=by_hand))  # x0 = 0


def test_a_run_without_times_draws_them_evenly():
    losses = [
        [loss for _, loss, _ in train(network(), [randn(8, 2)] * 3, FLOW, steps=3, generator=rng(1), **options)]
        for options in ({}, {"times": uniform_times}, {"times": logit_normal_times()})
    ]
    assert losses[0] == losses[1] != losses[2]


def test_same_generator_state_same_run_and_the_global_generator_untouched():
    before = torch.get_rng_state()
    runs = []
    for seed in (1, 1, 2):
        model = MLPDenoiser(width=16, depth=1, time_dim=8)
        with torch.no_grad():
            [p.fill_(0.01) for p in model.parameters()]
        torch.set_rng_state(before)
        generator = rng(seed)
        runs.append([loss for _, loss, _ in train(model, batches(generator), FLOW, steps=4, generator=generator)])
        assert torch.equal(torch.get_rng_state(), before)
    assert runs[0] == runs[1] != runs[2]


def test_stopping_at_any_step_keeps_a_usable_model():
    model = network()
    before = weights(model)
    for _, _, state in train(model, batches(rng()), FLOW, steps=1000):
        if state.step == 7:
            break
    assert state.step == 7 and not torch.equal(weights(model), before)
    assert torch.isfinite(weights(model)).all() and torch.isfinite(weights(state.ema.model)).all()
    assert state.model is model


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises_before_it_spoils_the_weights(bad):
    model, spoil = network(), []

    class Spoiled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x, t):
            return self.inner(x, t) * (bad if spoil else 1.0)

    with pytest.raises(FloatingPointError, match=r"step 4.*lr"):
        for step, _, state in train(Spoiled(), batches(rng()), FLOW, steps=10):
            if step == 3:
                spoil.append(True)
                kept = weights(model), weights(state.ema.model), copy.deepcopy(state.optimizers["adam"].state_dict())
    assert torch.equal(weights(model), kept[0]) and torch.equal(weights(state.ema.model), kept[1])
    assert state.step == 3 and state.ema.updates == 3
    assert torch.equal(state.optimizers["adam"].state_dict()["state"][0]["exp_avg"], kept[2]["state"][0]["exp_avg"])


def test_batches_that_run_out_say_so():
    run = train(network(), [randn(8, 2)] * 3, FLOW, steps=5)
    with pytest.raises(RuntimeError, match="batches ran out after 3 of 5 steps"):
        list(run)


@pytest.mark.parametrize(
    ("batch", "error", "text"),
    [
        (torch.zeros(0, 2), ValueError, "a batch is empty"),
        (torch.full([4, 2], math.nan), ValueError, "a batch holds NaN"),
        (torch.zeros(4, 2, dtype=torch.long), TypeError, "a batch must be a float tensor"),
        ([[0.0, 1.0]], TypeError, "a batch must be a float tensor, got list"),
        (torch.zeros(4, 3), ValueError, r"\[any, 2\]"),
    ],
)
def test_a_bad_batch_raises_and_changes_nothing(batch, error, text):
    model = network()
    before = weights(model)
    with pytest.raises(error, match=text):
        list(train(model, [batch], FLOW, steps=1))
    assert torch.equal(weights(model), before)


# --- Checkpoints


def half_run(path, schedule=FLOW, prediction="v"):
    """Six steps in one go; and three steps, a file, three steps in a new network. Both with their losses."""
    options = {"steps": 6, "prediction": prediction, "lr": 1e-2}
    generator = rng(1)
    whole = list(train(network(), batches(generator), schedule, generator=generator, **options))

    generator = rng(1)
    first = []
    for item in train(network(), batches(generator), schedule, generator=generator, **options):
        first.append(item)
        if item[0] == 3:
            break
    save_checkpoint(path, first[-1][2], note="half way", seed=1)
    model = network(seed=99)
    state, metadata = load_checkpoint(path, model)
    assert metadata == {"note": "half way", "seed": 1} and state.step == 3 and state.model is model
    second = list(train(model, batches(state.generator), schedule, resume=state, **options))
    return whole, first + second


@pytest.mark.parametrize("prediction", ["eps", "v"])
@each_schedule
def test_resuming_continues_bit_for_bit(tmp_path, schedule, prediction):
    whole, halves = half_run(tmp_path / "run.safetensors", schedule, prediction)
    assert [item[:2] for item in whole] == [item[:2] for item in halves]
    one, other = whole[-1][2], halves[-1][2]
    assert torch.equal(weights(one.model), weights(other.model))
    assert torch.equal(weights(one.ema.model), weights(other.ema.model))
    assert one.ema.updates == other.ema.updates and one.ema.decay == other.ema.decay
    assert torch.equal(one.generator.get_state(), other.generator.get_state())
    memory, again = (s.optimizers["adam"].state_dict()["state"] for s in (one, other))
    assert memory.keys() == again.keys()
    assert all(torch.equal(memory[i][k], again[i][k]) for i in memory for k in memory[i])


def test_a_checkpoint_is_a_safetensors_file_that_others_can_read(tmp_path):
    state = new_state(network())
    save_checkpoint(tmp_path / "new.safetensors", state, minutes=0.5)
    tensors = safetensors.torch.load_file(tmp_path / "new.safetensors")
    assert torch.equal(tensors["model.inp.weight"], state.model.inp.weight)
    loaded, metadata = load_checkpoint(str(tmp_path / "new.safetensors"), network(5))
    assert metadata == {"minutes": 0.5} and loaded.step == 0
    assert torch.equal(weights(loaded.model), weights(state.model))


def saved(folder, model=None):
    path = Path(folder) / "run.safetensors"
    save_checkpoint(path, new_state(model or network()))
    return path


def damaged(folder):
    """Files that are no checkpoint of this network: what they are, and what the message must hold."""
    whole = saved(folder).read_bytes()
    files = {"cut": whole[: len(whole) // 2], "header": whole[:20], "empty": b"", "text": b"not a checkpoint at all"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
        yield folder / name, ValueError, "damaged or no safetensors"
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "foreign")
    yield folder / "foreign", ValueError, "was not written by save_checkpoint"
    safetensors.torch.save_file({"a": torch.ones(2)}, folder / "foreign2", {"format": "pt"})
    yield folder / "foreign2", ValueError, "format is 'pt'"
    save_checkpoint(folder / "wide", new_state(MLPDenoiser(width=32, depth=1, time_dim=8)))
    yield folder / "wide", ValueError, "another model.*they differ in .*weight"
    save_checkpoint(folder / "deep", new_state(MLPDenoiser(width=16, depth=2, time_dim=8)))
    yield folder / "deep", ValueError, "another model.*they differ in blocks.1"
    yield folder / "nowhere", FileNotFoundError, "no checkpoint at"
    yield folder, FileNotFoundError, "no checkpoint at"


def test_bad_files_raise_and_leave_the_model_as_it_was(tmp_path):
    model = network(3)
    before = weights(model)
    for path, error, text in damaged(tmp_path):
        with pytest.raises(error, match=text) as caught:
            load_checkpoint(path, model)
        assert "path" in str(caught.value) and path.name in str(caught.value)
        assert torch.equal(weights(model), before)


def test_metadata_that_json_cannot_hold_fails_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "run", new_state(network()), odd=torch.ones(2))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: there is no folder"):
        save_checkpoint(tmp_path / "no" / "run", new_state(network()))
    assert not (tmp_path / "no").exists()


def test_saving_over_an_older_file_replaces_it(tmp_path):
    path = saved(tmp_path, network(1))
    save_checkpoint(path, new_state(network(2)))
    state, _ = load_checkpoint(path, network(3))
    assert torch.equal(weights(state.model), weights(network(2)))
    assert os.listdir(tmp_path) == [path.name]


def test_resume_belongs_to_its_model():
    state = new_state(network())
    with pytest.raises(ValueError, match="resume holds another model"):
        train(network(), batches(rng()), FLOW, steps=2, resume=state)


def respoiled(path, spoil):
    """Write the checkpoint anew with other tensors, as one of format 1, which has no checksum to notice it."""
    tensors, header, _ = unpack(path.read_bytes())
    del header["sha256"]
    safetensors.torch.save_file(spoil(tensors), path, header | {"format": "sora_lib training run 1"})


def _without(tensors, prefix):
    return {name: value for name, value in tensors.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: _without(t, "ema."),
        lambda t: _without(t, "adam."),
        lambda t: _without(t, "generator"),
        lambda t: t | {"adam.x": torch.zeros(1)},
        lambda t: t | {"adam.0.exp_avg": torch.zeros(3)},
        lambda t: t | {"generator": torch.zeros(7, dtype=torch.uint8)},
        lambda t: t | {"model.out.bias": torch.full([2], torch.nan)},
        lambda t: t | {"model.out.bias": t["model.out.bias"].half()},
    ],
    ids=["no ema", "no adam", "no generator", "odd key", "adam shape", "generator size", "NaN", "half"],
)
def test_a_checkpoint_with_a_damaged_part_changes_nothing(tmp_path, spoil):
    path = tmp_path / "run.safetensors"
    model = network()
    *_, (_, _, state) = train(model, batches(rng()), FLOW, steps=2)
    save_checkpoint(path, state)
    respoiled(path, spoil)
    other = network(9)
    before = [p.clone() for p in other.parameters()]
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(path, other)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_resume_keeps_its_random_state():
    model = network()
    *_, (_, _, state) = train(model, batches(rng()), FLOW, steps=2)
    with pytest.raises(ValueError, match="its own random state"):
        train(model, batches(rng()), FLOW, steps=4, resume=state, generator=rng())


# --- Muon


class WithBlocks(nn.Module):
    """A matrix and a vector in `blocks`, a matrix outside."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.inp, self.blocks = nn.Linear(2, 24), nn.ModuleList([nn.Linear(24, 16)])
        self.out = nn.Linear(16, 2)

    def forward(self, x, t):
        return self.out(torch.tanh(self.blocks[0](torch.tanh(self.inp(x) + t[:, None]))))


def test_muon_moves_the_matrices_of_the_blocks_and_adam_the_rest():
    model = WithBlocks()
    state = new_state(model, muon=True)
    owned = {name: {id(p) for p in o.param_groups[0]["params"]} for name, o in state.optimizers.items()}
    assert owned["muon"] == {id(model.blocks[0].weight)}
    assert owned["adam"] == {id(p) for p in model.parameters()} - owned["muon"]
    assert list(new_state(model).optimizers) == ["adam"]
    with pytest.raises(ValueError, match="muon needs a model with blocks, like DiT, got Linear"):
        new_state(nn.Linear(2, 2), muon=True)


def test_a_step_of_muon_is_nearly_orthogonal_and_as_large_as_its_source_says():
    model = WithBlocks()
    state, before = new_state(model, generator=rng(), muon=True), model.blocks[0].weight.detach().clone()
    lr = 0.01
    next(iter(train(model, batches(rng()), FLOW, steps=5, prediction="v", lr=lr, resume=state)))
    step = (before - model.blocks[0].weight.detach()) / (lr * learning_rate(0, 5))
    u, s, vh = torch.linalg.svd(model.blocks[0].weight.grad, full_matrices=False)
    large = s > s[0] / 100  # where five iterations are enough
    assert large.sum() > 3 and s[0] > 10 * s[large][-1]  # the gradient itself is far from orthogonal
    sizes = (u.T @ step @ vh.T).diagonal()[large]
    sizes = sizes / (0.2 * 24**0.5)  # arXiv 2502.16982, section 2.2: 0.2 times the root of the longer side
    assert sizes.min() > 0.5 and sizes.max() < 1.4


def test_a_run_with_muon_resumes_bit_for_bit(tmp_path):
    def run(model, state):
        options = {"steps": 6, "prediction": "v", "lr": 1e-2, "resume": state}
        yield from train(model, batches(state.generator), FLOW, **options)

    model = WithBlocks()
    whole = list(run(model, new_state(model, generator=rng(1), muon=True)))
    model = WithBlocks()
    for step, _, state in run(model, new_state(model, generator=rng(1), muon=True)):
        if step == 3:
            save_checkpoint(tmp_path / "run.safetensors", state)
            break
    model = WithBlocks(9)
    second = list(run(model, load_checkpoint(tmp_path / "run.safetensors", model)[0]))
    assert [item[:2] for item in whole[3:]] == [item[:2] for item in second]
    assert torch.equal(weights(whole[-1][2].model), weights(model))


@pytest.mark.parametrize("prefix", ["muon.", "adam."])
def test_a_checkpoint_without_the_memory_of_one_optimizer_is_damaged(tmp_path, prefix):
    path, model = tmp_path / "run.safetensors", WithBlocks()
    state = new_state(model, generator=rng(1), muon=True)
    next(iter(train(model, batches(state.generator), FLOW, steps=3, resume=state)))
    save_checkpoint(path, state)
    respoiled(path, lambda tensors: _without(tensors, prefix))
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(path, WithBlocks(3))
