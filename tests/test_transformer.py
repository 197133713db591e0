"""Patches keep their values, attention is its formula, positions are relative, adaLN-Zero starts at zero."""

import math

import pytest
import torch

from sora_lib.transformer import (
    Attention,
    DiT,
    DiTBlock,
    FinalLayer,
    grid_of,
    patchify,
    place_code,
    rotary_angles,
    rotate,
    unpatchify,
)

PATCH = (2, 3, 4)  # three different sizes, and grids of three different sizes: a swapped axis shows in the values
GRID = (3, 2, 5)


def numbered(batch=2, channels=3, frames=6, height=6, width=20):
    """A video whose every number is different."""
    return (
        torch.arange(batch * channels * frames * height * width).float().reshape(batch, channels, frames, height, width)
    )


def randomised(model, seed=0):
    """The model with ordinary random weights everywhere, also where it starts at zero."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=g) / math.sqrt(weight.shape[-1]))
    return model.eval()


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- Patches


def test_a_patch_holds_the_numbers_of_its_place():
    x = numbered()
    tokens = patchify(x, PATCH)
    assert tokens.shape == (2, 3 * 2 * 5, 2 * 3 * 4 * 3)
    for f, r, c in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2, 1, 3)]:
        block = x[:, :, 2 * f : 2 * f + 2, 3 * r : 3 * r + 3, 4 * c : 4 * c + 4]  # [B, C, 2, 3, 4]
        wanted = block.permute(0, 2, 3, 4, 1).flatten(1)  # inside a patch: frames, rows, columns, channels
        assert torch.equal(tokens[:, (f * 2 + r) * 5 + c], wanted)


def test_the_known_tokens_of_a_small_image():
    x = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    wanted = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert patchify(x, (1, 2, 2))[0].tolist() == wanted


@pytest.mark.parametrize("patch", [PATCH, (1, 1, 1), (6, 6, 20), (1, 2, 5), (3, 1, 4)])
def test_unpatchify_is_the_inverse(patch):
    x = numbered()
    grid = grid_of(x, patch)
    assert torch.equal(unpatchify(patchify(x, patch), patch, grid), x)
    tokens = patchify(x, patch)
    assert torch.equal(patchify(unpatchify(tokens, patch, grid), patch), tokens)


def test_a_swapped_grid_keeps_the_shape_and_loses_the_values():
    """So the round trip above must compare values: the shapes agree here, too."""
    x = numbered(channels=1, frames=1, height=8, width=8)
    tokens = patchify(x, (1, 2, 2)).reshape(2, 4, 4, 4).transpose(1, 2).reshape(2, 16, 4)  # columns first
    back = unpatchify(tokens, (1, 2, 2), (1, 4, 4))
    assert back.shape == x.shape and not torch.equal(back, x)


@pytest.mark.parametrize("name", ["frames", "height", "width"])
def test_sizes_that_patches_do_not_fill_are_told(name):
    sizes = {"frames": 6, "height": 6, "width": 20}
    sizes[name] += 1
    with pytest.raises(ValueError, match=r"multiples of patch_size \(2, 3, 4\)"):
        patchify(numbered(**sizes), PATCH)


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ((2, 2), ValueError),
        ((1, 2, 2, 2), ValueError),
        (2, TypeError),
        ("122", TypeError),
        (None, TypeError),
        ((1, 2.0, 2), TypeError),
        ((1, True, 2), TypeError),
        ((1, 0, 2), ValueError),
        ((1, -2, 2), ValueError),
    ],
)
def test_a_bad_patch_size_is_told_everywhere(patch, error):
    x = numbered()
    for call in (
        lambda: patchify(x, patch),
        lambda: grid_of(x, patch),
        lambda: unpatchify(noise(1, 4, 4), patch, (1, 2, 2)),
        lambda: DiT(patch_size=patch),
    ):
        with pytest.raises(error, match="patch_size"):
            call()


def test_patchify_wants_a_video():
    with pytest.raises(ValueError, match="x must have shape"):
        patchify(noise(2, 1, 8, 8), (1, 2, 2))
    with pytest.raises(TypeError, match="x must be a float tensor"):
        patchify(torch.zeros(2, 1, 1, 8, 8, dtype=torch.int64), (1, 2, 2))


def test_unpatchify_tells_bad_tokens_and_grids():
    with pytest.raises(ValueError, match="tokens must have shape"):
        unpatchify(noise(1, 5, 4), (1, 2, 2), (1, 2, 2))  # a token too many
    with pytest.raises(ValueError, match="tokens of 6 numbers"):
        unpatchify(noise(1, 4, 6), (1, 2, 2), (1, 2, 2))
    for grid in ((2, 2), 4, (1, 2, 2.0), (1, 0, 2)):
        with pytest.raises((TypeError, ValueError), match="grid"):
            unpatchify(noise(1, 4, 4), (1, 2, 2), grid)


# --- Positions


def test_the_head_is_split_over_frame_row_and_column():
    angles = rotary_angles(GRID, 24)  # 12 pairs: 4 for the frame, 4 for the row, 4 for the column
    assert angles.shape == (30, 12)
    places = [(f, r, c) for f in range(3) for r in range(2) for c in range(5)]
    for place, row in zip(places, angles, strict=True):
        for axis in range(3):
            wanted = torch.tensor([place[axis] * 100 ** (-i / 4) for i in range(4)])
            torch.testing.assert_close(row[4 * axis : 4 * axis + 4], wanted)


def test_what_a_third_leaves_over_goes_to_the_frame():
    assert rotary_angles((1, 2, 2), 16).count_nonzero(0).tolist() == [0, 0, 0, 0, 2, 2, 2, 2]
    assert rotary_angles((2, 1, 1), 16).count_nonzero(0).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def turned_by_hand(x, angles):
    """Numbers 2 i and 2 i + 1 as a point in the plane, turned against the clock, each back in its place."""
    turned = torch.empty_like(x)
    for i, angle in enumerate(angles.unbind(-1)):
        a, b, cos, sin = x[..., 2 * i], x[..., 2 * i + 1], angle.cos(), angle.sin()
        turned[..., 2 * i], turned[..., 2 * i + 1] = a * cos - b * sin, a * sin + b * cos
    return turned


def test_a_rotation_turns_neighbours_and_keeps_lengths():
    x, angles = noise(2, 3, 30, 24), rotary_angles(GRID, 24)
    turned = rotate(x, angles)
    torch.testing.assert_close(turned, turned_by_hand(x, angles))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(rotate(x, 0 * angles), x)
    quarter = rotate(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[math.pi / 2]]))
    torch.testing.assert_close(quarter, torch.tensor([[[[0.0, 1.0]]]]))  # against the clock


@pytest.mark.parametrize(
    "x",
    [
        noise(2, 3, 6, 13)[..., :12],  # every second row starts at an odd place
        noise(2 * 3 * 6 * 12 + 1)[1:].view(2, 3, 6, 12),  # all of it does
        noise(2, 3, 12, 6).mT,
        noise(2, 3, 6, 24)[..., ::2],
        noise(12).expand(2, 3, 6, 12),
        noise(6, 12),
    ],
    ids=["odd steps", "odd start", "transposed", "every second", "expanded", "two axes"],
)
def test_a_rotation_takes_any_layout_and_leaves_what_it_was_given(x):
    angles, before = rotary_angles((1, 2, 3), 12), x.clone()
    torch.testing.assert_close(rotate(x, angles), turned_by_hand(x.contiguous(), angles))
    assert torch.equal(x, before)


def test_a_rotation_copies_nothing_that_attention_hands_it(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a copy")

    monkeypatch.setattr(torch.Tensor, "clone", refuse)
    Attention(24, 2)(noise(2, 6, 24), rotary_angles((1, 2, 3), 12))


def test_a_rotation_in_double_precision_stays_so():
    x, angles = noise(2, 3, 6, 12).double(), rotary_angles((1, 2, 3), 12).double()
    torch.testing.assert_close(rotate(x, angles), turned_by_hand(x, angles))


@pytest.mark.parametrize(
    ("x", "angles", "error", "words"),
    [
        (torch.ones(1, 1, 6, 12, dtype=torch.int64), torch.ones(6, 6), TypeError, "must be float tensors, got dtypes"),
        (noise(1, 1, 6, 12), torch.ones(6, 6, dtype=torch.int64), TypeError, "must be float tensors, got dtypes"),
        (noise(1, 1, 6, 12).to(torch.complex64), torch.ones(6, 6), TypeError, "must be float tensors, got dtypes"),
        (noise(1, 1, 6, 12).bfloat16(), torch.ones(6, 6), TypeError, "float tensors, got dtypes torch.bfloat16"),
        (noise(1, 1, 6, 13), torch.ones(6, 6), ValueError, r"\[1, 1, 6, 13\], got \[6, 6\]"),
        (noise(1, 1, 6, 12), torch.ones(6, 12), ValueError, r"angles must be \[N, D / 2\]"),
        (noise(1, 1, 6, 12), torch.ones(1, 6), ValueError, r"angles must be \[N, D / 2\]"),
        (noise(1, 1, 6, 12), torch.ones(6), ValueError, r"angles must be \[N, D / 2\]"),
    ],
)
def test_a_bad_rotation_is_told(x, angles, error, words):
    with pytest.raises(error, match=words):
        rotate(x, angles)


def test_dot_products_depend_on_the_offset_alone():
    """The same q and k at every place: the score of two places changes with their offset, and with nothing else."""
    angles = rotary_angles(GRID, 24)
    q, k = (noise(24, seed=s).expand(1, 1, 30, 24) for s in (1, 2))
    scores = (rotate(q, angles) @ rotate(k, angles).transpose(-1, -2))[0, 0]  # [30, 30]
    places = torch.cartesian_prod(*(torch.arange(n) for n in GRID))
    seen = {}
    for i in range(30):
        for j in range(30):
            seen.setdefault(tuple((places[i] - places[j]).tolist()), []).append(scores[i, j])
    assert len(seen) == 5 * 3 * 9
    for same in seen.values():
        torch.testing.assert_close(torch.stack(same), same[0].expand(len(same)), rtol=0, atol=1e-4)
    first = torch.stack([same[0] for same in seen.values()])
    assert (first[:, None] - first).abs().fill_diagonal_(1).min() > 1e-5  # and each offset has its own


def test_the_places_have_different_codes():
    code = place_code(GRID, 32)
    assert code.shape == (30, 32)
    assert torch.cdist(code, code).fill_diagonal_(9).min() > 0.5
    torch.testing.assert_close(code, torch.cat([rotary_angles(GRID, 32).sin(), rotary_angles(GRID, 32).cos()], 1))


@pytest.mark.parametrize("head_dim", [4, 7, 0, 6.0])
def test_a_bad_head_dim_is_told(head_dim):
    with pytest.raises((TypeError, ValueError), match="head_dim"):
        rotary_angles(GRID, head_dim)


# --- Attention


def test_attention_is_its_formula():
    """Each head by itself, with loops: softmax(q k / sqrt(D)) v, rotary on q and k and not on v."""
    attention, x = randomised(Attention(24, 2)), noise(2, 6, 24)
    angles = rotary_angles((1, 2, 3), 12)
    q, k, v = attention.qkv(x).split(24, dim=-1)  # [B, N, 24] each
    heads = []
    for h in range(2):
        part = slice(12 * h, 12 * h + 12)
        q_h, k_h = rotate(q[..., part][:, None], angles)[:, 0], rotate(k[..., part][:, None], angles)[:, 0]
        scores = torch.einsum("bnd,bmd->bnm", q_h, k_h) / math.sqrt(12)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(torch.einsum("bnm,bmd->bnd", weights, v[..., part]))
    torch.testing.assert_close(attention(x, angles), attention.out(torch.cat(heads, dim=-1)))


def test_without_angles_attention_knows_no_order():
    attention, x = randomised(Attention(24, 2)), noise(2, 6, 24)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    still = torch.zeros(6, 6)
    torch.testing.assert_close(attention(x[:, order], still), attention(x, still)[:, order])
    angles = rotary_angles((1, 2, 3), 12)
    assert not torch.allclose(attention(x[:, order], angles), attention(x, angles)[:, order], atol=1e-3)


def test_a_token_that_may_not_be_looked_at_might_as_well_not_be_there():
    """Each sample has a mask of its own; what hidden tokens answer themselves is nobody's business."""
    attention, x, angles = randomised(Attention(24, 2)), noise(3, 6, 24), rotary_angles((1, 2, 3), 12)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]]).bool()
    out = attention(x, angles, mask[:, None, None])
    for i in range(3):
        alone = attention(x[i : i + 1, mask[i]], angles[mask[i]])
        torch.testing.assert_close(out[i : i + 1, mask[i]], alone)
    torch.testing.assert_close(out[2:], attention(x[2:], angles))
    x[~mask] = 100 * noise(*x[~mask].shape, seed=1)
    torch.testing.assert_close(attention(x, angles, mask[:, None, None])[mask], out[mask])


# --- adaLN-Zero


def test_a_new_block_hands_its_input_on():
    torch.manual_seed(0)
    block, x, condition = DiTBlock(24, 2), noise(2, 6, 24), noise(2, 24)
    assert torch.equal(block(x, condition, rotary_angles((1, 2, 3), 12)), x)
    last = FinalLayer(24, 5)
    assert torch.equal(last(x, condition), torch.zeros(2, 6, 5))


def test_only_the_last_layers_and_the_gates_start_at_zero():
    """All else starts random, or nothing could be learnt."""
    torch.manual_seed(0)
    zeros = {name for name, p in DiT(classes=3).named_parameters() if not p.any()}
    layers = [*(f"blocks.{i}.modulation" for i in range(4)), "final.modulation", "final.out"]
    assert zeros == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_a_block_is_its_formula():
    block, x, condition = randomised(DiTBlock(24, 2)), noise(2, 6, 24), noise(2, 24, seed=1)
    angles = rotary_angles((1, 2, 3), 12)
    six = block.modulation(condition * condition.sigmoid()).reshape(2, 6, 24)
    shift1, scale1, gate1, shift2, scale2, gate2 = (six[:, [i]] for i in range(6))

    def norm(h):
        return (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    h = x + gate1 * block.attention(norm(x) * (1 + scale1) + shift1, angles)
    wide = block.mlp[0](norm(h) * (1 + scale2) + shift2)
    gelu = wide * (1 + torch.erf(wide / 2**0.5)) / 2  # x times the normal distribution up to x (arXiv 1606.08415)
    torch.testing.assert_close(block(x, condition, angles), h + gate2 * block.mlp[2](gelu))


def test_the_last_layer_is_its_formula():
    last, x, condition = randomised(FinalLayer(24, 5)), noise(2, 6, 24), noise(2, 24, seed=1)
    shift, scale = last.modulation(torch.nn.functional.silu(condition))[:, None].split(24, dim=-1)
    wanted = last.out(torch.nn.functional.layer_norm(x, (24,)) * (1 + scale) + shift)
    torch.testing.assert_close(last(x, condition), wanted)


# --- The whole network


def small(**options):
    return DiT(**{"channels": 2, "patch_size": (1, 2, 2), "width": 24, "depth": 2, "heads": 2} | options)


def inputs(batch=3, frames=2, height=4, width=6):
    return noise(batch, 2, frames, height, width), torch.linspace(0.1, 0.9, batch)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_new_network_answers_zero(absolute):
    x, t = inputs()
    assert torch.equal(small(absolute=absolute)(x, t), torch.zeros_like(x))


def test_it_reads_the_time_the_picture_and_the_label():
    x, t = inputs()
    model, label = randomised(small(classes=10)), torch.tensor([1, 2, 10])
    out = model(x, t, label)
    for changed in ((x, t.flip(0), label), (x.flip(-1), t, label), (x, t, label.flip(0))):
        differs = (model(*changed) - out).abs().flatten(1).amax(1) > 1e-3
        # in the middle, t.flip(0) and label.flip(0) are the same as before
        assert differs[[0, 2]].all()


def test_labels_may_be_either_whole_dtype():
    x, t = inputs()
    model, label = randomised(small(classes=10)), torch.tensor([1, 2, 10])
    assert torch.equal(model(x, t, label), model(x, t, label.to(torch.int32)))


def test_samples_of_a_batch_do_not_mix():
    x, t = inputs()
    model = randomised(small())
    torch.testing.assert_close(model(x[1:2], t[1:2]), model(x, t)[1:2])


@pytest.mark.parametrize("absolute", [False, True])
def test_it_depends_on_where_a_patch_is(absolute):
    x, t = inputs()
    model = randomised(small(absolute=absolute))
    order = torch.arange(12).flip(0)
    grid = grid_of(x, (1, 2, 2))

    def shuffled(video):
        return unpatchify(patchify(video, (1, 2, 2))[:, order], (1, 2, 2), grid)

    assert (shuffled(model(x, t)) - model(shuffled(x), t)).abs().max() > 1e-2


def test_only_with_absolute_can_equal_patches_get_different_answers():
    """All patches alike: offsets cannot tell them apart, a code of the place can."""
    t, x = torch.tensor([0.5]), torch.ones(1, 2, 1, 4, 6)
    for absolute in (False, True):
        tokens = patchify(randomised(small(absolute=absolute))(x, t), (1, 2, 2))
        assert ((tokens - tokens[:, :1]).abs().max() > 1e-2) == absolute


def test_absolute_adds_the_code_to_the_tokens():
    x, t = inputs()
    model = randomised(small(absolute=True, depth=1))
    seen = []
    model.blocks[0].register_forward_hook(lambda _, args, out: seen.append(args[0]))
    model(x, t)
    wanted = model.embed_patch(patchify(x, (1, 2, 2))) + place_code((2, 2, 3), 24)
    torch.testing.assert_close(seen[0], wanted)


@pytest.mark.parametrize("absolute", [False, True])
def test_transform_is_the_network_from_its_tokens_on(absolute):
    """The blocks one by one, told a condition of one's own making: here time and label, twice as strong."""
    x, t = inputs()
    model = randomised(small(classes=3, absolute=absolute))
    tokens = model.embed_patch(patchify(x, (1, 2, 2)))
    condition = model.embed_time(t) + model.embed_label.weight[[0, 1, 3]]
    out = model(x, t, torch.tensor([0, 1, 3]))
    torch.testing.assert_close(model.transform(tokens, condition, (2, 2, 3)), out)
    h = tokens + place_code((2, 2, 3), 24) if absolute else tokens
    for block in model.blocks:
        h = block(h, 2 * condition, rotary_angles((2, 2, 3), 12))
    wanted = unpatchify(model.final(h, 2 * condition), (1, 2, 2), (2, 2, 3))
    torch.testing.assert_close(model.transform(tokens, 2 * condition, (2, 2, 3)), wanted)
    assert (wanted - out).abs().max() > 1e-2


@pytest.mark.parametrize("absolute", [False, True])
def test_the_same_weights_take_other_sizes_and_lengths(absolute):
    model = randomised(small(absolute=absolute))
    for sizes in ((1, 4, 4), (5, 8, 2), (2, 2, 10)):
        x = noise(2, 2, *sizes)
        out = model(x, torch.tensor([0.2, 0.8]))
        assert out.shape == x.shape and out.isfinite().all()


def test_the_output_is_put_back_by_unpatchify():
    """The answer for a patch comes from its own token: a network whose blocks do nothing works patch by patch."""
    x, t = inputs(batch=1)
    model = small()
    torch.nn.init.normal_(model.final.out.weight)
    changed = x.clone()
    changed[:, :, 1, 2:4, 4:6] += 1
    moved = (model(changed, t) - model(x, t)).abs().amax((0, 1)) > 1e-6  # [F, H, W]
    assert moved[1, 2:4, 4:6].all() and moved.sum() == 4


def test_gradients_reach_every_weight():
    x, t = inputs()
    model = randomised(small(classes=3, absolute=True))
    model(x, t, torch.tensor([0, 1, 3])).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


# --- Bad input


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"channels": 0}, ValueError, "channels"),
        ({"depth": 1.5}, TypeError, "depth"),
        ({"heads": 0}, ValueError, "heads"),
        ({"width": "24"}, TypeError, "width"),
        ({"width": 25}, ValueError, "width"),
        ({"width": 24, "heads": 5}, ValueError, "width must be an even multiple of heads, 5"),
        ({"width": 18, "heads": 2}, ValueError, "width must be an even multiple"),  # 9 numbers a head: no pairs
        ({"width": 8, "heads": 2}, ValueError, "width must be an even multiple"),  # 4 a head: no pair for each axis
        ({"classes": -1}, ValueError, "classes"),
    ],
)
def test_bad_options_are_told(options, error, name):
    with pytest.raises(error, match=name):
        small(**options)


def test_a_patch_size_may_be_a_list():
    """As it comes out of a JSON file."""
    assert DiT(patch_size=[1, 2, 2]).patch_size == (1, 2, 2)


@pytest.mark.parametrize(
    ("change", "error", "name"),
    [
        ({"x": noise(3, 1, 2, 4, 6)}, ValueError, "x_t must have shape"),
        ({"x": noise(3, 2, 4, 6)}, ValueError, "x_t must have shape"),
        ({"x": noise(3, 2, 2, 5, 6)}, ValueError, "multiples of patch_size"),
        ({"x": noise(3, 2, 2, 4, 6) * math.nan}, ValueError, "x_t holds NaN"),
        ({"t": torch.rand(2)}, ValueError, "t must have shape"),
        ({"t": torch.tensor([0.0, 0.5, 1.5])}, ValueError, "t must lie in"),
        ({"label": None}, TypeError, "label"),
        ({"label": 3}, TypeError, "label"),
        ({"label": [1, 2, 3]}, TypeError, "label"),
        ({"label": torch.tensor([1.0, 2.0, 3.0])}, TypeError, "label"),
        ({"label": torch.tensor([True, False, True])}, TypeError, "label"),
        ({"label": torch.tensor([1, 2])}, TypeError, "label"),
        ({"label": torch.tensor([[1], [2], [3]])}, TypeError, "label"),
        ({"label": torch.tensor([1, 2, 11])}, ValueError, "label must lie in 0 to 10"),
        ({"label": torch.tensor([-1, 2, 3])}, ValueError, "label must lie in 0 to 10"),
    ],
)
def test_bad_inputs_are_told(change, error, name):
    x, t = inputs()
    given = {"x": x, "t": t, "label": torch.tensor([0, 5, 10])} | change
    with pytest.raises(error, match=name):
        small(classes=10)(given["x"], given["t"], given["label"])


def test_a_label_for_a_network_without_classes_is_told():
    with pytest.raises(ValueError, match="label: this network was built without classes"):
        small()(*inputs(), torch.tensor([0, 1, 2]))
