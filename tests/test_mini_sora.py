"""Mini-Sora hears what it is told: captions, and known frames where the mask says so, each sample its own."""

import math
from dataclasses import fields

import pytest
import torch
from torch.testing import assert_close

from sora_lib.denoisers import as_denoiser
from sora_lib.mini_sora import MiniSora, Told, told
from sora_lib.samplers import guided
from sora_lib.schedules import RectifiedFlow
from sora_lib.text import LONGEST, TextEncoder, tokenize
from sora_lib.training import train
from sora_lib.transformer import patchify, place_code, unpatchify

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (3, 4, 6)  # latent frames, rows and columns
GRID, PATCH = (3, 2, 3), (1, 2, 2)
CAPTIONS = ["a red seven moving up", None, "a blue circle standing still"]
MASK = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def new(**options):
    torch.manual_seed(0)
    return MiniSora(**{"channels": 2, "width": 24, "depth": 2, "heads": 2} | options)


def randomised(**options):
    """Ordinary random weights everywhere, also where a new network starts at zero."""
    model, g = new(**options), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=g) / math.sqrt(weight.shape[-1]))
    return model.eval()


def inputs(size=SIZE):
    return noise(3, 2, *size), torch.tensor([0.2, 0.5, 0.8])


def request(mask=MASK, captions=CAPTIONS, seed=5):
    return Told(tokenize(captions), noise(3, 2, *SIZE, seed=seed), mask)


def same(a, b):
    """For each sample, whether two answers are the same."""
    return [torch.allclose(x, y, rtol=0, atol=1e-6) for x, y in zip(a, b, strict=True)]


# --- What is told


def test_captions_alone_know_no_frame():
    given = told(CAPTIONS, SIZE, channels=2)
    assert torch.equal(given.tokens, tokenize(CAPTIONS))
    assert torch.equal(given.known, torch.zeros(3, 2, *SIZE)) and torch.equal(given.mask, torch.zeros(3, 3))
    assert told(CAPTIONS, SIZE).known.shape == (3, 8, *SIZE)


def test_without_caption_the_frames_stay():
    given = request()
    less = given.without_caption()
    assert torch.equal(less.tokens, torch.zeros(3, LONGEST, dtype=torch.int64))
    assert less.known is given.known and less.mask is given.mask
    assert torch.equal(given.tokens, tokenize(CAPTIONS))  # the first one is as it was
    model = randomised()
    assert torch.equal(model(*inputs(), less), model(*inputs(), request(captions=[None] * 3)))
    assert same(model(*inputs(), less), model(*inputs(), given)) == [False, True, False]  # the second has no caption


# --- The network


def test_a_new_network_answers_zero_whatever_it_is_told():
    x, t = inputs()
    assert torch.equal(new()(x, t, request()), torch.zeros_like(x))


def test_only_gates_last_layers_and_the_layer_of_known_frames_start_at_zero():
    zeros = {name for name, p in new().named_parameters() if not p.any()}
    layers = ["blocks.0.modulation", "blocks.1.modulation", "final.modulation", "final.out"]
    biases = {n for n, _ in TextEncoder(24).named_parameters() if "norms" in n and "bias" in n}  # LayerNorm's own
    wanted = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {"embed_known.weight"}
    assert zeros == wanted | {f"embed_text.0.{name}" for name in biases}


def test_tokens_and_condition_are_their_formula():
    """What the first block gets: patches of noise, + patches of masked known latents with the mask, + the place."""
    model, (x, t), given = randomised(), inputs(), request()
    seen = []
    model.blocks[0].register_forward_hook(lambda _, args, out: seen.append(args))
    model(x, t, given)
    extra = torch.zeros(3, 3, *SIZE)
    for i in range(3):
        for f in range(3):
            if MASK[i, f]:
                extra[i, :2, f], extra[i, 2, f] = given.known[i, :, f], 1
    tokens = patchify(x, PATCH) @ model.embed_patch.weight.T + model.embed_patch.bias
    tokens = tokens + patchify(extra, PATCH) @ model.embed_known.weight.T + place_code(GRID, 24)
    assert_close(seen[0][0], tokens)
    encoder, last = model.embed_text
    assert_close(seen[0][1], model.embed_time(t) + last(encoder(given.tokens)))
    assert_close(model(x, t, given), model.transform(tokens - place_code(GRID, 24), seen[0][1], GRID))


@pytest.mark.parametrize("frame", range(3))
def test_a_known_frame_counts_where_the_mask_is_1_and_nowhere_else(frame):
    model, (x, t), given = randomised(), inputs(), request()
    before = model(x, t, given)
    given.known[:, :, frame] = 1000 * noise(3, 2, 4, 6, seed=6)  # anything, where it is not known
    after = model(x, t, given)
    assert same(before, after) == [not known for known in MASK[:, frame].tolist()]
    assert torch.equal(before[1], after[1])


def test_the_mask_itself_is_told():
    """A known frame of zeros is not the same as a frame that is not known."""
    model, (x, t) = randomised(), inputs()
    zeros = torch.zeros(3, 2, *SIZE)
    answers = [model(x, t, Told(tokenize(CAPTIONS), zeros, mask)) for mask in (MASK, 0 * MASK)]
    assert same(*answers) == [False, True, False]


def test_which_frame_is_known_matters():
    model, (x, t) = randomised(), inputs()
    one = noise(3, 2, 1, 4, 6, seed=7).expand(-1, -1, 3, -1, -1)  # the same latent in every frame
    answers = [model(x, t, Told(tokenize(CAPTIONS), one, torch.eye(3)[[f] * 3])) for f in range(3)]
    assert same(answers[0], answers[1]) == same(answers[0], answers[2]) == same(answers[1], answers[2]) == [False] * 3


def test_the_caption_matters_to_its_own_sample():
    model, (x, t) = randomised(), inputs()
    before = model(x, t, request())
    for i in range(3):
        captions = list(CAPTIONS)
        captions[i] = "a red seven moving down"
        assert same(before, model(x, t, request(captions=captions))) == [j != i for j in range(3)]
    swapped = model(x, t, request(captions=["a seven red moving up", *CAPTIONS[1:]]))
    assert same(before, swapped) == [False, True, True]


def test_it_reads_the_noise_and_the_time():
    model, (x, t) = randomised(), inputs()
    before = model(x, t, request())
    assert same(before, model(x.flip(-1), t, request())) == [False] * 3
    assert same(before, model(x, t + 0.1, request())) == [False] * 3


def test_samples_of_a_batch_do_not_mix():
    """A caption of one word and one of many side by side, other frames known, other times: each as if alone."""
    model, (x, t) = randomised(), inputs()
    given = request(captions=["seven", None, "a red seven moving up slowly in front of a blue circle standing still"])
    out = model(x, t, given)
    for i in range(3):
        row = slice(i, i + 1)
        alone = model(x[row], t[row], Told(given.tokens[row], given.known[row], given.mask[row]))
        assert_close(alone, out[row])


@pytest.mark.parametrize("size", [(1, 4, 4), (5, 8, 2), (9, 4, 6)])
def test_the_same_weights_take_other_sizes_and_lengths_and_know_the_places(size):
    """Patches in another order give another answer than the answer in another order."""
    model, (x, t) = randomised(), inputs(size)
    given = told(CAPTIONS, size, channels=2)
    grid = (size[0], size[1] // 2, size[2] // 2)
    order = torch.arange(math.prod(grid)).flip(0)

    def shuffled(video):
        return unpatchify(patchify(video, PATCH)[:, order], PATCH, grid)

    out = model(x, t, given)
    assert out.shape == x.shape
    assert (shuffled(out) - model(shuffled(x), t, given)).abs().amax((1, 2, 3, 4)).min() > 1e-2
    alike = patchify(model(torch.ones_like(x), t, given), PATCH)
    assert (alike - alike[:, :1]).abs().max() > 1e-2  # places are told, not offsets alone


def test_a_patch_may_span_frames():
    model, (x, t) = randomised(patch_size=(3, 2, 2)), inputs()
    given = request()
    before = model(x, t, given)
    given.known[:, :, 1] += 1
    assert same(before, model(x, t, given)) == [True, True, True]
    given.known[:, :, 2] += 1
    assert same(before, model(x, t, given)) == [True, True, False]


def test_gradients_reach_every_weight():
    model = randomised()
    model(*inputs(), request()).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


# --- With the rest of the library


def test_a_training_step_by_hand():
    """A new network answers zero, so its first loss is the mean square of eps - x0; its first step teaches."""
    model, x0, given = new(), noise(3, 2, *SIZE, seed=3), request()
    by_hand = torch.Generator().manual_seed(4)
    torch.rand(3, generator=by_hand)  # the times
    eps = torch.randn(x0.shape, generator=by_hand)
    run = train(
        model, [(x0, given)] * 3, RectifiedFlow(), steps=3, prediction="v", generator=torch.Generator().manual_seed(4)
    )
    (_, first, _), *_ = run
    assert first == pytest.approx((eps - x0).square().mean().item(), rel=1e-5)
    assert model.final.out.weight.any() and model.embed_known.weight.any()


def test_guidance_is_on_the_caption_with_the_same_frames():
    model, (x, t), given, flow = randomised(), inputs(), request(), RectifiedFlow()
    denoise = guided(as_denoiser(model, flow, "v", given), as_denoiser(model, flow, "v", given.without_caption()), 3.0)
    cond, uncond = (x - t[:, None, None, None, None] * model(x, t, heard) for heard in (given, given.without_caption()))
    assert_close(denoise(x, t), uncond + 3 * (cond - uncond), rtol=1e-4, atol=1e-5)


# --- Bad input


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"known": noise(3, 2, 2, 4, 6)}, ValueError, "told.known must have the shape of x_t, [3, 2, 3, 4, 6], got"),
        ({"known": noise(3, 1, *SIZE)}, ValueError, "told.known must have the shape of x_t"),
        ({"known": noise(3, 2, *SIZE) * math.nan}, ValueError, "told.known holds NaN"),
        ({"known": None}, TypeError, "told.known must be a float tensor"),
        ({"mask": MASK[:, :2]}, ValueError, "told.mask must have shape [3, 3], got [3, 2]"),
        ({"mask": MASK[:1]}, ValueError, "told.mask must have shape [3, 3], got [1, 3]"),
        ({"mask": MASK.bool()}, TypeError, "told.mask must be a float tensor, got dtype torch.bool"),
        ({"tokens": tokenize(CAPTIONS[:1])}, ValueError, "told.tokens must be a row for each sample, 3, got 1"),
        ({"tokens": tokenize(CAPTIONS).float()}, TypeError, "tokens must be whole numbers [B, L]"),
        ({"tokens": CAPTIONS}, TypeError, "tokens must be whole numbers [B, L]"),
        ({"tokens": tokenize(CAPTIONS) + 99}, ValueError, "tokens must lie in 0 to"),
    ],
)
def test_what_is_told_must_fit(change, error, words):
    given = request()
    assert set(change) <= {field.name for field in fields(Told)}
    with pytest.raises(error) as caught:
        new()(*inputs(), Told(**vars(given) | change))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("x", "t", "error", "words"),
    [
        (noise(3, 1, *SIZE), torch.rand(3), ValueError, "x_t must have shape [any, 2, any, any, any]"),
        (noise(3, 2, 4, 6), torch.rand(3), ValueError, "x_t must have shape"),
        (noise(3, 2, *SIZE) / 0, torch.rand(3), ValueError, "x_t holds NaN or infinity"),
        (noise(3, 2, *SIZE), torch.rand(2), ValueError, "t must have shape [3], got [2]"),
        (noise(3, 2, *SIZE), torch.rand(3) + 1.1, ValueError, "t must lie in [0, 1]"),
    ],
)
def test_noise_and_times_must_fit(x, t, error, words):
    with pytest.raises(error) as caught:
        new()(x, t, request())
    assert words in str(caught.value)


def test_a_size_that_patches_do_not_fill_is_told():
    size = (3, 5, 6)
    with pytest.raises(ValueError, match=r"multiples of patch_size \(1, 2, 2\)"):
        new()(*inputs(size), told(CAPTIONS, size, channels=2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "channels must be 1 or more"),
        ({"width": 25}, "width must be an even multiple of heads, 2"),
        ({"width": 8}, "6 times it or more, got 8"),
        ({"patch_size": (1, 0, 2)}, "patch_size must be 1 or more"),
    ],
)
def test_bad_options_are_told(options, words):
    with pytest.raises(ValueError) as caught:
        new(**options)
    assert words in str(caught.value)
