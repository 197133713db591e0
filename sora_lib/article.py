"""The article's model, layer for layer, so that the course can start from it."""

from torch import Tensor, nn


class SoraDiffusionModel(nn.Module):
    """The network of the article "OpenAI Sora diffusion model" (2024): `[B, input_size]` to `[B, output_size]`.

    The layers, their names and their order are the article's. It has no notion of time or noise; chapter 01 shows what
    it does and what is missing.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.diffusion_layer = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(hidden_size), nn.LeakyReLU())
        self.fc2 = nn.Linear(hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.diffusion_layer(self.fc1(x)))
