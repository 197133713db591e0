"""Laws that hold for every shape, time, schedule and seed, on cases that hypothesis generates, the same each time."""

import itertools
import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from torch.testing import assert_close

import sora_lib as s
from sora_lib import autoencoder, datasets, metrics, samplers, text, training, transformer
from sora_lib.text import KINDS, Thing

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")  # notes on the code, which it keeps in any case
settings.register_profile("course", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("course")
pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = st.integers(0, 2**31)
SIZES = st.integers(1, 5)
UNIT = st.floats(0, 1)
INSIDE = st.floats(0.02, 0.98)
KINDS_OF_PREDICTION = ("eps", "x0", "v", "score")
VARIANCE_PRESERVING = st.one_of(
    st.builds(s.LinearBeta, st.integers(2, 300), st.floats(1e-4, 0.01), st.floats(0.01, 0.05)),
    st.builds(s.Cosine, st.floats(0.001, 0.1)),
)
SCHEDULES = st.one_of(VARIANCE_PRESERVING, st.just(s.RectifiedFlow()))


def g(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed):
    return torch.randn(shape, generator=g(seed), dtype=torch.float64)


def curves(schedule, time):
    return [curve.item() for curve in schedule.curves(torch.tensor([time], dtype=torch.float64))]


@st.composite
def things(draw):
    direction = draw(st.sampled_from([*KINDS["direction"], None]))
    speed = None if direction == "still" else draw(st.sampled_from([*KINDS["speed"], None]))
    subject, color = draw(st.sampled_from(KINDS["subject"])), draw(st.sampled_from([*KINDS["color"], None]))
    return Thing(subject, color, direction, speed)


def all_is_said(thing):
    return thing.color and thing.direction and (thing.speed or thing.direction == "still")


SCENES = st.lists(things(), min_size=1, max_size=2).map(tuple)


# --- Schedules and conversions


@given(SCHEDULES, INSIDE, SEEDS, st.lists(SIZES, max_size=3), *[st.sampled_from(KINDS_OF_PREDICTION)] * 2)
def test_every_conversion_gives_what_the_definitions_give(schedule, time, seed, shape, source, target):
    alpha, sigma, alpha_dot, sigma_dot = curves(schedule, time)
    assume(min(alpha, sigma) > 0.01)
    x0, eps = normal(2, *shape, seed=seed), normal(2, *shape, seed=seed + 1)
    t = torch.full([2], time, dtype=torch.float64)
    x_t = schedule.add_noise(x0, t, eps)
    truth = {"eps": eps, "x0": x0, "v": alpha_dot * x0 + sigma_dot * eps, "score": -eps / sigma}
    # rounding, 1e-16 of the numbers, is magnified by at most 1 / 0.01 at each of two divisions
    scale = max(value.abs().max().item() for value in truth.values())
    there = s.convert(truth[source], x_t, t, schedule, source=source, target=target)
    assert_close(there, truth[target], atol=1e-11 * scale, rtol=1e-9)
    back = s.convert(there, x_t, t, schedule, source=target, target=source)
    assert_close(back, truth[source], atol=1e-9 * scale, rtol=1e-7)


@given(SCHEDULES, st.lists(UNIT, min_size=1, max_size=4), SEEDS, st.floats(-3, 3), st.floats(-3, 3))
def test_adding_noise_is_linear(schedule, times, seed, a, b):
    t = torch.tensor(times, dtype=torch.float64)
    x, y, e, f = (normal(len(times), 3, 2, seed=seed + i) for i in range(4))
    whole = schedule.add_noise(a * x + b * y, t, a * e + b * f)
    assert_close(whole, a * schedule.add_noise(x, t, e) + b * schedule.add_noise(y, t, f), atol=1e-13, rtol=1e-12)


@given(VARIANCE_PRESERVING, UNIT)
def test_the_variance_is_preserved(schedule, time):
    alpha, sigma, *_ = curves(schedule, time)
    assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-14)


@given(SCHEDULES, INSIDE, INSIDE)
def test_the_signal_to_noise_ratio_falls(schedule, one, other):
    assume(abs(one - other) > 1e-6)
    early, late = schedule.snr(torch.tensor(sorted([one, other]), dtype=torch.float64)).tolist()
    assert early > late


@given(SCHEDULES, st.integers(0, 10**6), st.floats(0.2, 0.8))
def test_the_dots_are_the_slopes(schedule, node, part):
    steps = getattr(schedule, "steps", 50)
    time, h = (node % steps + part) / steps, 1e-4 / steps  # within one stretch of LinearBeta's table, off its ends
    before, now, after = (curves(schedule, time + shift) for shift in (-h, 0, h))
    for i in range(2):
        slope = (after[i] - before[i]) / (2 * h)  # right to h^2 times the third derivative, and to 1e-16 / h
        assert slope == pytest.approx(now[i + 2], rel=1e-5, abs=1e-7)


# --- Exact denoisers


@given(SCHEDULES, UNIT, SEEDS, SIZES, SIZES, st.floats(0.05, 3))
def test_the_mixtures_denoiser_is_bayes_rule(schedule, time, seed, k, dim, std):
    alpha, sigma, *_ = curves(schedule, time)
    means, weights = normal(k, dim, seed=seed), normal(k, seed=seed + 1).softmax(0)
    x = alpha * means[:1] + math.hypot(alpha * std, sigma) * normal(3, dim, seed=seed + 2)
    variance = (alpha * std) ** 2 + sigma**2
    logits = weights.log() - (x[:, None] - alpha * means).square().sum(2) / (2 * variance)
    each = means + alpha * std**2 / variance * (x[:, None] - alpha * means)  # of one Gaussian, in closed form
    wanted = (logits.softmax(1)[..., None] * each).sum(1)
    law = s.GaussianMixture(means, std, weights)
    assert_close(law.denoiser(schedule)(x, torch.full([3], time, dtype=torch.float64)), wanted, atol=1e-9, rtol=1e-9)


@given(SCHEDULES, st.floats(0.01, 1), SEEDS, SIZES)
def test_the_empirical_denoiser_stays_within_its_data(schedule, time, seed, n):
    data = normal(n, 3, seed=seed)
    x0_hat = s.EmpiricalDenoiser(data, schedule)(5 * normal(4, 3, seed=seed + 1), torch.full([4], time).double())
    assert (x0_hat >= data.amin(0) - 1e-12).all() and (x0_hat <= data.amax(0) + 1e-12).all()


# --- Samplers


@given(SCHEDULES, INSIDE, INSIDE, st.floats(-2, 2), st.floats(-2, 2), SEEDS)
def test_an_ancestral_step_is_the_posterior_by_brute_force(schedule, one, other, x0, noise, seed):
    s_, t = sorted([one, other])
    (alpha_t, sigma_t, *_), (alpha_s, sigma_s, *_) = curves(schedule, t), curves(schedule, s_)
    assume(min(alpha_t, sigma_s) > 0.01)
    a = alpha_t / alpha_s
    left = sigma_t**2 - a**2 * sigma_s**2
    assume(left > (0.05 * sigma_t) ** 2)
    x_t = alpha_t * x0 + sigma_t * noise
    grid = alpha_s * x0 + sigma_s * torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    log = -((grid - alpha_s * x0) ** 2) / (2 * sigma_s**2) - (x_t - a * grid) ** 2 / (2 * left)
    weight = log.softmax(0)
    mean = (weight * grid).sum().item()
    std = (weight * (grid - mean) ** 2).sum().sqrt().item()
    grid_of_times = torch.tensor([t, s_], dtype=torch.float64)
    for number in (seed, seed + 1):
        x = torch.tensor([[x_t]], dtype=torch.float64)
        drawn = s.ancestral(lambda x, _: torch.full_like(x, x0), schedule, x, grid_of_times, generator=g(number))
        z = torch.randn(1, 1, generator=g(number), dtype=torch.float64).item()
        assert drawn.item() == pytest.approx(mean + std * z, abs=1e-6)  # the grid is 20 steps or more a deviation


@given(SCHEDULES, INSIDE, INSIDE, SEEDS)
def test_ddim_without_noise_is_euler_on_x_over_alpha(schedule, one, other, seed):
    s_, t = sorted([one, other])
    assume(t - s_ > 1e-3)
    (alpha_t, sigma_t, *_), (alpha_s, sigma_s, *_) = curves(schedule, t), curves(schedule, s_)
    assume(min(alpha_t, sigma_s) > 0.01)
    law, x = s.GaussianMixture(normal(3, 2, seed=seed), 0.5), normal(4, 2, seed=seed + 1)
    denoise = law.denoiser(schedule)
    eps = (x - alpha_t * denoise(x, torch.full([4], t, dtype=torch.float64))) / sigma_t
    wanted = x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * eps
    moved = s.ddim(denoise, schedule, x, torch.tensor([t, s_], dtype=torch.float64))
    assert_close(moved / alpha_s, wanted, atol=1e-9, rtol=1e-9)


@given(st.sampled_from([s.ancestral, s.ddim, s.euler, s.heun]), SCHEDULES, SEEDS, st.lists(SIZES, max_size=2), SIZES)
def test_where_there_is_one_answer_every_sampler_gives_it(sampler, schedule, seed, shape, steps):
    point = normal(2, *shape, seed=seed)
    path = sampler(lambda x, t: point, schedule, normal(2, *shape, seed=seed + 1), steps, trajectory=True)
    assert path.shape == (steps + 1, 2, *shape) and torch.equal(path[-1], point)


@given(st.integers(1, 500))
def test_a_time_grid_falls_evenly_from_1_to_0(steps):
    times = samplers.time_grid(steps)
    assert len(times) == steps + 1 and times[0] == 1 and times[-1] == 0
    assert_close(times.diff(), torch.full([steps], -1 / steps, dtype=torch.float64), atol=1e-15, rtol=0)


@given(SEEDS, st.floats(0, 20), SIZES)
def test_guidance_is_a_straight_line_through_both_denoisers(seed, scale, n):
    cond, uncond, x = (normal(n, 2, seed=seed + i) for i in range(3))

    def at(scale):
        return s.guided(lambda x, t: cond, lambda x, t: uncond, scale)(x, torch.ones(n))

    assert_close(at(1), cond, atol=1e-14, rtol=1e-14)
    assert torch.equal(at(0), uncond)
    assert_close(at(scale) - at(0), scale * (cond - uncond), atol=1e-12, rtol=1e-12)


# --- Patches and positions


@given(SIZES, SIZES, *[st.integers(1, 3)] * 6, SEEDS)
def test_patches_go_back_to_their_places(batch, channels, f, h, w, pf, ph, pw, seed):
    x = normal(batch, channels, f * pf, h * ph, w * pw, seed=seed)
    tokens = transformer.patchify(x, (pf, ph, pw))
    assert tokens.shape == (batch, f * h * w, pf * ph * pw * channels)
    assert torch.equal(transformer.unpatchify(tokens, (pf, ph, pw), (f, h, w)), x)
    i, j, k = (seed % n for n in (f, h, w))  # one token, cut out by hand
    patch = x[0, :, i * pf : (i + 1) * pf, j * ph : (j + 1) * ph, k * pw : (k + 1) * pw]
    assert torch.equal(tokens[0, (i * h + j) * w + k], patch.movedim(0, -1).flatten())


@given(st.integers(3, 20).map(lambda n: 2 * n), st.floats(2, 1000), SEEDS, st.data())
def test_turned_dot_products_know_differences_alone(head_dim, base, seed, data):
    grid = data.draw(st.tuples(st.integers(2, 5), st.integers(2, 5), st.integers(2, 5)))
    places = list(itertools.product(*map(range, grid)))
    offset = data.draw(st.tuples(*[st.integers(1 - n, n - 1) for n in grid]))
    moved = [tuple(map(sum, zip(place, offset, strict=True))) for place in places]
    pairs = [(i, places.index(place)) for i, place in enumerate(moved) if place in places]
    angles = transformer.rotary_angles(grid, head_dim, base).double()
    q, k = (normal(head_dim, seed=seed + i).expand(1, 1, len(places), head_dim) for i in range(2))
    dots = (transformer.rotate(q, angles) @ transformer.rotate(k, angles).mT)[0, 0]
    there = torch.stack([dots[i, j] for i, j in pairs])
    assert_close(there, there[:1].expand_as(there), atol=1e-4, rtol=0)  # angles are float32, up to 4 radians a part


# --- Measures


@given(st.integers(1, 30), SIZES, SEEDS, st.floats(-10, 10), st.floats(0.1, 10))
def test_laws_of_the_sliced_distance(n, dim, seed, shift, factor):
    a, b, c = (normal(n, dim, seed=seed + i) for i in range(3))
    way = shift * normal(dim, seed=seed + 3)

    def d(a, b):
        return s.sliced_wasserstein(a, b, directions=32)

    assert d(a, a) == 0 and d(a, a[torch.randperm(n, generator=g(seed))]) == 0
    assert d(a, b) == d(b, a)
    assert d(a + way, b + way) == pytest.approx(d(a, b), rel=1e-9, abs=1e-12)
    assert d(factor * a, factor * b) == pytest.approx(factor * d(a, b), rel=1e-9)
    assert d(a, a + way) <= way.norm() + 1e-9
    assert d(a, c) <= d(a, b) + d(b, c) + 1e-12


@given(st.integers(2, 30), SIZES, SEEDS, st.floats(-5, 5))
def test_laws_of_distances_between_sets(n, dim, seed, shift):
    a, b = normal(n, dim, seed=seed), normal(n + 1, dim, seed=seed + 1)
    way = shift * normal(dim, seed=seed + 2)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)  # roots of eigenvalues of 1e-16
    assert metrics.frechet_distance(a, a + way) == pytest.approx(way.square().sum().item(), abs=1e-6, rel=1e-9)
    assert metrics.frechet_distance(a, b) == pytest.approx(metrics.frechet_distance(b, a), abs=1e-6)
    wanted = (a[:, None] - b).norm(dim=2).amin(1)
    assert_close(metrics.nearest_distance(a, b), wanted, atol=1e-6, rtol=1e-6)
    assert metrics.precision_recall(a, a, neighbours=1) == (1, 1)


# --- Captions and film


@given(SCENES, st.booleans(), SEEDS)
@settings(max_examples=300)
def test_every_scene_is_read_back_from_its_caption(scene, synonyms, seed):
    caption = text.describe(scene, synonyms=synonyms, generator=g(seed))
    assert text.parse(caption) == scene and text.parse(caption.upper() + ".") == scene
    names = {number: word for word, number in text.TOKENS.items()}
    row = text.tokenize([None, caption])[1].tolist()
    words = [names[number] for number in row if number != text.PAD]
    assert " ".join(words) == caption and row == row[: len(words)] + [text.PAD] * (text.LONGEST - len(words))


@given(st.lists(things().filter(all_is_said), min_size=1, max_size=2), SEEDS)
@settings(max_examples=15)
def test_a_film_shows_its_scene_within_the_frame(scene, seed):
    clips = datasets.film([scene], frames=9, height=40, width=48, generator=g(seed))
    assert clips.video.shape == (1, 3, 9, 40, 48) and clips.video.min() >= 0 and clips.video.max() <= 1
    half, size = datasets.SIZE / 2, torch.tensor([48.0, 40.0])
    assert (clips.centers >= half - 1e-4).all() and (clips.centers <= size - half + 1e-4).all()
    assert_close(clips.centers.diff(dim=2), clips.velocities[:, :, None].expand(-1, -1, 8, -1), atol=1e-4, rtol=0)


@given(SEEDS, st.integers(1, 30), st.floats(0, 5))
def test_what_bounces_takes_each_step_in_turn(seed, frames, fastest):
    room = 1 + 9 * torch.rand(1, 2, generator=g(seed)).double()
    start, speed = room * torch.rand(1, 2, generator=g(seed + 1)), fastest * normal(1, 2, seed=seed + 2)
    place, way, wanted = start[0].tolist(), speed[0].tolist(), []
    for _ in range(frames):
        wanted.append(list(place))
        for i in range(2):
            place[i] += way[i]
            while not 0 <= place[i] <= room[0, i]:
                wall = 0.0 if place[i] < 0 else room[0, i].item()
                place[i], way[i] = 2 * wall - place[i], -way[i]
    assert_close(datasets.bounced(start, speed, room, frames)[0], torch.tensor(wanted).double(), atol=1e-5, rtol=0)


# --- The autoencoder


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), SEEDS)
@settings(max_examples=15)
def test_the_beginning_knows_nothing_of_the_end(groups, kept, h, w, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = autoencoder.VideoAutoencoder(2, 8, 2).double()
    with torch.no_grad():
        for i, weight in enumerate(net.parameters()):
            weight.copy_(0.3 * normal(*weight.shape, seed=seed + i))  # some start at zero, and would hide a leak
        kept = min(kept, groups)
        x = normal(1, 3, 1 + 4 * groups, 4 * h, 4 * w, seed=seed)
        z = net.encode(x)
        assert_close(net.encode(x[:, :, : 1 + 4 * kept]), z[:, :, : 1 + kept], atol=1e-10, rtol=1e-10)
        assert_close(net.decode(z[:, :, : 1 + kept]), net.decode(z)[:, :, : 1 + 4 * kept], atol=1e-10, rtol=1e-10)


# --- Training


@given(st.floats(0, 0.999), st.integers(1, 8), SEEDS)
def test_an_average_is_its_recursion_and_lies_among_what_it_saw(decay, updates, seed):
    model = torch.nn.Linear(2, 1, bias=False)
    values = normal(updates + 1, 1, 2, seed=seed).float()
    model.weight.data = values[0].clone()
    ema, wanted = s.EMA(model, decay), values[0].double()
    for n in range(1, updates + 1):
        model.weight.data = values[n].clone()
        ema.update(model)
        d = min(decay, (1 + n) / (10 + n))
        wanted = d * wanted + (1 - d) * values[n]
    assert_close(ema.model.weight.double(), wanted, atol=1e-6, rtol=1e-5)  # float32, one rounding an update
    assert (ema.model.weight >= values.amin(0) - 1e-6).all() and (ema.model.weight <= values.amax(0) + 1e-6).all()


@given(st.integers(1, 400), st.integers(1, 60), st.data())
def test_the_learning_rate_rises_and_then_falls_to_0(steps, warmup, data):
    step = data.draw(st.integers(0, steps - 1))
    factor, after = training.learning_rate(step, steps, warmup), training.learning_rate(step + 1, steps, warmup)
    half_cosine = math.cos(math.pi * step / steps / 2) ** 2
    assert 0 < factor <= 1 and factor == pytest.approx(half_cosine * min(1, (step + 1) / warmup), rel=1e-12)
    assert after < factor if step + 1 >= warmup else True
    assert training.learning_rate(steps, steps, warmup) == 0


@given(
    st.integers(1, 3), st.integers(2, 6), st.integers(1, 2), st.integers(1, 3), SEEDS, st.sampled_from(training.TARGETS)
)
@settings(max_examples=12)
def test_a_run_read_back_goes_on_as_if_nothing_had_happened(dim, width, depth, steps, seed, prediction):
    def model():
        return s.MLPDenoiser(dim, width, depth, 4)

    def run(net, steps, resume=None):
        batches = itertools.repeat(normal(5, dim, seed=seed).float())
        options = {"prediction": prediction, "generator": None if resume else g(seed), "resume": resume}
        *_, (_, loss, state) = s.train(net, batches, s.Cosine(), steps=steps, **options)
        return loss, state

    _, state = run(model(), steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        s.save_checkpoint(path, state, note=seed, lr=0.5)
        read, metadata = s.load_checkpoint(path, model())
    assert metadata == {"note": seed, "lr": 0.5} and (read.step, read.ema.updates) == (steps, steps)
    (loss, after), (other, again) = (run(each.model, steps + 2, each) for each in (state, read))
    assert loss == other
    for a, b in ((after.model, again.model), (after.ema.model, again.ema.model)):
        assert all(torch.equal(v, b.state_dict()[name]) for name, v in a.state_dict().items())


# --- Randomness

X = torch.zeros(3, 2)
LAW = s.GaussianMixture(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 0.5)
SCENE = (Thing("one", "red", "up", "slow"), Thing("two", "blue", "still"))
CODEC = autoencoder.VideoAutoencoder(2, 4, 1)
DRAWING = {
    "sample": lambda generator: LAW.sample(4, generator=generator),
    "ancestral": lambda generator: s.ancestral(lambda x, t: x, s.Cosine(), X, 3, generator=generator),
    "ddim": lambda generator: s.ddim(lambda x, t: x, s.Cosine(), X, 3, eta=1.0, generator=generator),
    "random_scene": lambda generator: datasets.random_scene(2, generator=generator),
    "shortened": lambda generator: datasets.shortened(SCENE, generator),
    "describe": lambda generator: text.describe(SCENE, synonyms=True, generator=generator),
    "film": lambda generator: datasets.film([SCENE], frames=1, generator=generator).video,
    "uniform_times": lambda generator: training.uniform_times(4, generator),
    "logit_normal_times": lambda generator: training.logit_normal_times(0.5)(4, generator),
    "Autoencoder.loss": lambda generator: CODEC.loss(torch.zeros(1, 3, 1, 4, 4), 0.1, generator=generator),
}


@given(st.sampled_from(sorted(DRAWING)), SEEDS)
def test_the_same_generator_gives_the_same_and_the_global_one_is_left_alone(name, seed):
    before = torch.get_rng_state()
    one, two, *others = (DRAWING[name](g(number)) for number in (seed, seed, *range(seed + 1, seed + 9)))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    different = [not torch.equal(one, other) if isinstance(one, torch.Tensor) else one != other for other in others]
    assert any(different)  # of eight other seeds
