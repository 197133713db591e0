"""The variational autoencoder: closed forms, a loss by hand, normalised latents, and PCA as the linear limit.

That of video: its networks by hand, and what a frame may and may not change.
"""

import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl
from torch.testing import assert_close

from sora_lib import digits
from sora_lib.autoencoder import Autoencoder, CausalBlock, VideoAutoencoder, check_video, kl_divergence

SHAPES = {"image": (6, 3, 8, 8), "video": (6, 3, 4, 8, 8)}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(shape, channels=2):
    """An autoencoder with one strided convolution each way: half the height and width."""
    torch.manual_seed(0)
    image = len(shape) == 4
    conv, back = (nn.Conv2d, nn.ConvTranspose2d) if image else (nn.Conv3d, nn.ConvTranspose3d)
    stride = 2 if image else (1, 2, 2)
    encoder = conv(shape[1], 2 * channels, stride, stride)
    return Autoencoder(encoder, back(channels, shape[1], stride, stride), channels)


class Linear(nn.Module):
    """Images flattened, one matrix, and a fixed tiny variance: x `[B, 64]` to `[B, 2 k]`."""

    def __init__(self, k):
        super().__init__()
        self.matrix = nn.Linear(64, k)

    def forward(self, x):
        mean = self.matrix(x)
        return torch.cat([mean, torch.full_like(mean, -40.0)], dim=1)


# --- KL


def test_kl_is_that_of_torch_distributions():
    mean, log_var = 2 * torch.randn(2, 500, generator=seeded()).double()
    assert_close(
        kl_divergence(mean, log_var), torch_kl(Normal(mean, (log_var / 2).exp()), Normal(torch.zeros(500).double(), 1))
    )


def test_kl_is_zero_only_at_the_prior():
    assert kl_divergence(torch.zeros(1), torch.zeros(1)).item() == 0
    near = torch.tensor([-0.3, 0.3])
    assert (kl_divergence(near, torch.zeros(2)) > 0).all() and (kl_divergence(torch.zeros(2), near) > 0).all()


# --- The loss


@each_shape
@pytest.mark.parametrize("kl_weight", [0, 0.3])
def test_the_loss_by_hand(shape, kl_weight):
    model, x = small(shape), torch.randn(shape, generator=seeded(1))
    mean, log_var = model.encoder(x)[:, :2], model.encoder(x)[:, 2:]
    z = mean + log_var.exp().sqrt() * torch.randn(mean.shape, generator=seeded(7))
    error = ((model.decoder(z) - x) ** 2).sum() / math.prod(shape)
    kl = (0.5 * (mean**2 + log_var.exp() - 1 - log_var)).sum() / mean.numel()
    assert_close(model.loss(x, kl_weight, generator=seeded(7)), error + kl_weight * kl)


def test_the_loss_draws_with_the_generator():
    model, x = small(SHAPES["image"]), torch.randn(SHAPES["image"], generator=seeded(1))
    first, again, other = (model.loss(x, 0.1, generator=seeded(s)).item() for s in (3, 3, 4))
    assert first == again != other
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model.loss(x, 0.1, generator=seeded(3))
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_reach_mean_and_variance_through_the_draw():
    """With no KL in the loss, only reparameterisation can carry a gradient to the encoder's two halves."""
    model = small(SHAPES["image"])
    model.loss(torch.randn(SHAPES["image"], generator=seeded(1)), 0, generator=seeded()).backward()
    assert all((half.abs() > 0).all() for half in model.encoder.bias.grad.chunk(2))


def test_the_loss_is_the_negative_elbo_up_to_a_factor_and_a_constant():
    """With decoder noise s^2, kl_weight = 2 s^2 K / D: D / (2 s^2) loss + D/2 log(2 pi s^2) is -ELBO of a sample."""
    shape, s2 = SHAPES["image"], 0.05
    model, x = small(shape), torch.randn(shape, generator=seeded(1))
    d, k = math.prod(shape[1:]), 2 * 4 * 4
    mean, log_var = model.posterior(x)
    z = mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=seeded(7))
    likelihood = Normal(model.decoder(z), math.sqrt(s2)).log_prob(x).sum() / len(x)
    elbo = likelihood - torch_kl(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum() / len(x)
    loss = model.loss(x, 2 * s2 * k / d, generator=seeded(7))
    assert_close(d / (2 * s2) * loss + d / 2 * math.log(2 * math.pi * s2), -elbo)


def test_a_linear_autoencoder_without_kl_reaches_pcas_error():
    """No linear map through k numbers beats PCA (Eckart-Young); descent comes within 1 % of it, never below."""
    images, _ = digits("train")
    x = images.flatten(1) - images.flatten(1).mean(0)
    k = 5
    torch.manual_seed(0)
    model = Autoencoder(Linear(k), nn.Linear(k, 64), k)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = model.loss(x, 0, generator=seeded())
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    best = torch.linalg.svdvals(x)[k:].square().sum() / x.numel()
    error = model.loss(x, 0, generator=seeded())
    assert best * (1 - 1e-4) < error < best * 1.01


# --- Latents


@each_shape
def test_shapes_of_images_and_video(shape):
    model, x = small(shape), torch.randn(shape, generator=seeded(1))
    z = model.encode(x)
    assert z.shape == (6, 2, *shape[2:-2], 4, 4)
    assert model.decode(z).shape == shape


@each_shape
def test_normalised_latents_have_mean_0_and_std_1_in_each_channel(shape):
    """Also over more rows than are encoded at once."""
    x = torch.randn(300, *shape[1:], generator=seeded(1)) * 3 + 1
    model = small(shape)
    model.fit_normalisation(x)
    z = model.encode(x).transpose(0, 1).flatten(1)
    assert_close(z.mean(1), torch.zeros(2), rtol=0, atol=1e-5)
    assert_close(z.std(1, correction=0), torch.ones(2), rtol=0, atol=1e-5)


@each_shape
def test_decode_takes_the_normalisation_back(shape):
    model, x = small(shape), torch.randn(shape, generator=seeded(1)) * 3 + 1
    plain = model.decoder(model.posterior(x)[0])
    assert_close(model.decode(model.encode(x)), plain)
    model.fit_normalisation(x)
    assert_close(model.decode(model.encode(x)), plain, rtol=1e-4, atol=1e-5)


def test_the_normalisation_is_saved_with_the_weights_and_is_not_trained():
    model = small(SHAPES["image"])
    model.fit_normalisation(torch.randn(SHAPES["image"], generator=seeded(1)))
    other = small(SHAPES["image"])
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.mean, model.mean) and torch.equal(other.std, model.std)
    assert not {"mean", "std"} & {name for name, _ in model.named_parameters()}


# --- Errors


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, x: m.posterior(x.int()), TypeError, "x must be a float tensor"),
        (lambda m, x: m.posterior(x * math.nan), ValueError, "x holds NaN"),
        (lambda m, x: m.posterior(x[:0]), ValueError, "x is empty"),
        (lambda m, x: m.posterior(x[0]), ValueError, "encoder must give"),
        (lambda m, x: m.decode(x), ValueError, "z must be [B, 2, ...], got [6, 3, 8, 8]"),
        (lambda m, x: m.decode(x[0, 0, 0]), ValueError, "z must be"),
        (lambda m, x: m.loss(x, -1), ValueError, "kl_weight"),
        (lambda m, x: m.loss(x, "small"), TypeError, "kl_weight"),
        (lambda m, x: m.fit_normalisation(x[:0]), ValueError, "x is empty"),
        (lambda m, x: m.fit_normalisation(torch.ones_like(x)), ValueError, "latent channels [0, 1]"),
        (lambda m, x: Autoencoder(m.encoder, m.decoder, 0), ValueError, "channels"),
        (lambda m, x: Autoencoder(m.encoder, m.decoder, 3).encode(x), ValueError, "encoder must give [6, 6, ...]"),
        (lambda m, x: Autoencoder(m.encoder, nn.Conv2d(2, 3, 1), 2).loss(x, 0), ValueError, "decoder must give"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    x = torch.randn(SHAPES["image"], generator=seeded(1))
    with pytest.raises(error) as caught:
        call(small(SHAPES["image"]), x)
    assert words in str(caught.value)


# --- Causal in time

CLIP = (1, 3, 17, 8, 12)  # a grid of 5 latent frames, 2 rows and 3 columns


def clip(frames=17, seed=1, batch=1):
    return torch.randn(batch, *CLIP[1:], generator=seeded(seed)).double()[:, :, :frames]


def video_model(channels=2, width=6, depth=2):
    """Random weights in the blocks too: a new block's last layer is zero, and would hide whatever leaks."""
    torch.manual_seed(0)
    model = VideoAutoencoder(channels, width, depth).double()
    for block in model.modules():
        if isinstance(block, CausalBlock):
            nn.init.normal_(block.time.weight, std=0.5)
            nn.init.normal_(block.time.bias)
    return model


def changed_frames(function, x, frame):
    """For each frame of the output, whether it changes at all when one frame of x does."""
    other = x.clone()
    other[:, :, frame] = torch.randn(other[:, :, frame].shape, generator=seeded(9)).double()
    with torch.no_grad():
        return (function(x) != function(other)).flatten(3).any(3).any(1)[0].tolist()


def test_a_new_block_hands_its_input_on_unchanged():
    torch.manual_seed(0)
    h = torch.randn(2, 3, 4, 5, 6, generator=seeded())
    assert torch.equal(CausalBlock(6)(h), h)


def test_a_block_is_its_formula():
    """Frame by frame: norm over the channels of a place, convolution in space, then this frame and the two before."""
    block = video_model().encoder.blocks[0]
    with torch.no_grad():
        block.norm.weight.copy_(torch.rand(6, generator=seeded(2)) + 0.5)
        block.norm.bias.copy_(torch.randn(6, generator=seeded(3)))
    h = torch.randn(2, 4, 3, 5, 6, generator=seeded()).double()  # [B, F, h, w, width]
    mean, var = h.mean(-1, keepdim=True), h.var(-1, correction=0, keepdim=True)
    a = (h - mean) / (var + 1e-5).sqrt() * block.norm.weight + block.norm.bias
    a = (a * a.sigmoid()).permute(1, 0, 4, 2, 3)  # [F, B, width, h, w]
    looks = [nn.functional.conv2d(a_f, block.space.weight, block.space.bias, padding=1) for a_f in a]
    looks = [look * look.sigmoid() for look in looks]
    before, last, now = block.time.weight.split(6, dim=1)
    for f in range(4):
        wanted = h[:, f] + block.time.bias
        for matrix, g in ((before, f - 2), (last, f - 1), (now, f)):
            if g >= 0:
                wanted = wanted + torch.einsum("oc,bchw->bhwo", matrix, looks[g])
        assert_close(block(h)[:, f], wanted)


def group(j):
    """The frames of latent frame j: the first by itself, four times; then fours."""
    return [0] * 4 if j == 0 else list(range(4 * j - 3, 4 * j + 1))


def fresh():
    """New blocks do nothing, so that each latent place is a function of its own pixels alone."""
    torch.manual_seed(0)
    return VideoAutoencoder(2, 6, 2).double()


@pytest.mark.parametrize(("frame", "y", "x"), [(0, 0, 0), (1, 7, 3), (4, 3, 4), (5, 4, 11), (16, 2, 8)])
def test_a_latent_place_is_made_of_4_frames_and_4_by_4_pixels(frame, y, x):
    clips, other = clip(), clip()
    other[0, :, frame, y, x] += 1
    changed = (fresh().encode(clips) != fresh().encode(other)).any(1)[0]  # [n, h, w]
    assert changed.nonzero().tolist() == [[math.ceil(frame / 4), y // 4, x // 4]]


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 1, 0), (2, 0, 2), (4, 1, 2)])
def test_a_latent_place_makes_4_frames_of_4_by_4_pixels(place):
    z = torch.randn(1, 2, 5, 2, 3, generator=seeded()).double()
    other = z.clone()
    other[0, :, *place] += 1
    changed = (fresh().decode(z) != fresh().decode(other)).all(1)[0]  # [F, H, W]
    j, r, c = place
    rows, columns = range(4 * r, 4 * r + 4), range(4 * c, 4 * c + 4)
    assert changed.nonzero().tolist() == [list(p) for p in product(sorted(set(group(j))), rows, columns)]


def test_the_first_frame_is_shown_four_times_and_of_the_first_group_the_last_frame_is_kept():
    """So of five equal frames the first latent is that of the other four, and a frame's place in its group matters."""
    model, x = fresh(), clip()
    z = model.encode(x[:, :, :1].expand(-1, -1, 5, -1, -1))
    assert_close(z[:, :, 0], z[:, :, 1])
    assert_close(model.encode(x)[:, :, 0], z[:, :, 0])
    backwards = x[:, :, [0, 4, 3, 2, 1]]
    assert (model.encode(backwards) - model.encode(x[:, :, :5])).abs().amax((0, 1, 3, 4))[1] > 1e-2
    decoded = model.decode(z)
    assert_close(decoded[:, :, 0], decoded[:, :, 4])
    assert (decoded[:, :, 1:4] - decoded[:, :, :1]).abs().amax((0, 1, 3, 4)).min() > 1e-2


@pytest.mark.parametrize("frame", range(17))
def test_a_frame_changes_its_own_latent_and_later_ones_and_no_earlier_one(frame):
    """Bit for bit. Two blocks, each looking two latent frames back, carry it at least to the end of 5."""
    own = math.ceil(frame / 4)
    assert changed_frames(video_model().encoder, clip(), frame) == [False] * own + [True] * (5 - own)


@pytest.mark.parametrize("latent", range(5))
def test_a_latent_changes_its_own_frames_and_later_ones_and_no_earlier_one(latent):
    z = torch.randn(1, 2, 5, 2, 3, generator=seeded()).double()
    earlier = group(latent)[0]
    assert changed_frames(video_model().decoder, z, latent) == [False] * earlier + [True] * (17 - earlier)


def test_blocks_look_two_frames_back_and_no_further():
    block, h = video_model().encoder.blocks[0], torch.randn(1, 6, 6, 2, 3, generator=seeded()).double()
    for frame in range(6):
        reached = changed_frames(lambda x: block(x.movedim(1, -1)).movedim(-1, 1), h, frame)
        assert reached == [0 <= f - frame <= 2 for f in range(6)]


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_the_beginning_of_a_clip_has_the_latents_of_the_clips_beginning(frames):
    """Frame 1 alone, too: an image is a video of one frame. With a normalisation measured on other clips."""
    model, x = video_model(), clip()
    model.fit_normalisation(clip(seed=5, batch=3))
    n = 1 + frames // 4
    z = model.encode(x)
    assert_close(model.encode(x[:, :, :frames]), z[:, :, :n])
    assert_close(model.decode(z[:, :, :n]), model.decode(z)[:, :, :frames])
    assert model.mean.all() and not (model.std == 1).any()


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 12), (5, 4, 4), (33, 12, 8)])
def test_any_number_of_groups_and_any_multiple_of_four(frames, height, width):
    model = video_model()
    x = torch.randn(2, 3, frames, height, width, generator=seeded()).double()
    z = model.encode(x)
    assert z.shape == (2, 2, 1 + frames // 4, height // 4, width // 4)
    assert model.decode(z).shape == x.shape
    assert_close(model.encode(x[1:]), z[1:])  # clips of a batch do not mix
    assert_close(model.decode(z[1:]), model.decode(z)[1:])


def test_every_weight_of_a_video_autoencoder_is_taught():
    model = video_model()
    model.loss(clip(), 0.1, generator=seeded()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        *[(torch.zeros(1, 3, n, 8, 8), ValueError, f"1, 5, 9, ... frames (1 + 4n), got {n}") for n in (2, 3, 4, 16)],
        (torch.zeros(1, 3, 5, 30, 32), ValueError, "height and width of x must be multiples of 4, got 30 and 32"),
        (torch.zeros(1, 3, 5, 32, 31), ValueError, "height and width of x must be multiples of 4, got 32 and 31"),
        (torch.zeros(1, 1, 5, 8, 8), ValueError, "x must have shape [any, 3, any, any, any], got [1, 1, 5, 8, 8]"),
        (torch.zeros(3, 5, 8, 8), ValueError, "x must have shape"),
        (torch.zeros(0, 3, 5, 8, 8), ValueError, "x is empty"),
        (torch.full([1, 3, 1, 4, 4], math.nan), ValueError, "x holds NaN"),
        (torch.zeros(1, 3, 5, 8, 8, dtype=torch.uint8), TypeError, "x must be a float tensor, got dtype torch.uint8"),
        ([[0.0]], TypeError, "x must be a float tensor, got list"),
    ],
)
def test_a_video_that_does_not_fit_is_told(x, error, words):
    for call in (check_video, video_model().float().encode):
        with pytest.raises(error) as caught:
            call(x)
        assert words in str(caught.value)


def test_a_latent_of_other_channels_is_told():
    with pytest.raises(ValueError, match=r"z must be \[B, 2, ...\], got \[1, 3, 5, 2, 3\]"):
        video_model().decode(torch.zeros(1, 3, 5, 2, 3).double())
    with pytest.raises(ValueError, match=r"z must have shape \[any, 2, any, any, any\], got \[1, 2, 2, 3\]"):
        video_model().decode(torch.zeros(1, 2, 2, 3).double())
