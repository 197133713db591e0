"""The article's model, layer for layer."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sora_lib import SoraDiffusionModel


def test_layers_names_and_size_are_the_articles():
    model = SoraDiffusionModel(10, 50, 2)
    assert [name for name, _ in model.named_children()] == ["fc1", "diffusion_layer", "fc2"]
    assert [type(layer) for layer in model.diffusion_layer] == [nn.ReLU, nn.BatchNorm1d, nn.LeakyReLU]
    assert (model.fc1.in_features, model.fc1.out_features, model.fc2.out_features) == (10, 50, 2)
    assert sum(p.numel() for p in model.parameters()) == 752


def test_forward_equals_the_layers_written_by_hand():
    torch.manual_seed(0)
    model, x = SoraDiffusionModel(10, 50, 2), torch.randn(16, 10)
    h = torch.relu(x @ model.fc1.weight.T + model.fc1.bias)
    h = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()  # BatchNorm starts with scale 1 and shift 0
    h = torch.where(h > 0, h, 0.01 * h)
    assert_close(model(x), h @ model.fc2.weight.T + model.fc2.bias, rtol=1e-5, atol=1e-5)


def test_one_row_needs_eval():
    model = SoraDiffusionModel(10, 50, 2)
    with pytest.raises(ValueError, match="more than 1 value"):
        model(torch.randn(1, 10))
    assert model.eval()(torch.randn(1, 10)).shape == (1, 2)
