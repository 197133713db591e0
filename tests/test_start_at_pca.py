"""Where the shipped video autoencoder starts (training/video_autoencoder.py): at PCA, whose error is known."""

import sys
from pathlib import Path

import torch
from einops import rearrange

from sora_lib.autoencoder import PATCH, VideoAutoencoder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from video_autoencoder import both, in_fours, pca, start_at_pca, turn


@torch.no_grad()
def test_it_starts_at_the_error_of_pca_and_turning_changes_the_latents_alone():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    model, x = VideoAutoencoder(8, 128, 1), both(64, g)
    start_at_pca(model, x)
    z, log_var = model.posterior(x)
    patches = rearrange(x, PATCH, ph=4, pw=4)  # 48 numbers each, and all 48 directions fit into the width
    rows = rearrange(in_fours(patches), "b (n pf) h w c -> (b n h w) (pf c)", pf=4)
    _, _, variances = pca(rows)
    back = rearrange(
        in_fours(rearrange(model.decoder(z), PATCH, ph=4, pw=4)), "b (n pf) h w c -> (b n h w) (pf c)", pf=4
    )
    error = (back - rows)[:, 144:].square().sum(1).mean()  # the last frame of each group, the first group's only one
    exact = rows - rows.mean(0)
    directions = pca(rows)[1][:8]
    exact = (exact - exact @ directions.T @ directions)[:, 144:].square().sum(1).mean()
    torch.testing.assert_close(error, exact, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(z.var((0, 2, 3, 4)), torch.ones(8), rtol=0.01, atol=0)
    assert (log_var == -6).all()

    before = model.decoder(z)
    turn(model, g)
    turned, _ = model.posterior(x)
    torch.testing.assert_close(model.decoder(turned), before, rtol=0, atol=1e-4)
    rows = turned.movedim(1, -1).flatten(0, 3)
    own = torch.linalg.eigvalsh(torch.cov(rows.T)).flip(0)
    torch.testing.assert_close(own / own[0], variances[:8] / variances[0], rtol=0.02, atol=0)
