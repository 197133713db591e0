"""The variational autoencoder: closed forms, a loss by hand, normalised latents, and PCA as the linear limit."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl
from torch.testing import assert_close

from sora_lib import digits
from sora_lib.autoencoder import Autoencoder, kl_divergence

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
