"""The networks of `tasks.py` that the package does not have."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeSeriesNet(nn.Module):
    """Three convolutions over time, the mean over time, and a linear head; no norm of its own."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, width, 7, padding=3)
        self.second = nn.Conv1d(width, width, 5, padding=2)
        self.third = nn.Conv1d(width, width, 3, padding=1)
        self.head = nn.Linear(width, classes)

    def forward(self, series: Tensor) -> Tensor:
        hidden = F.relu(self.first(series))
        hidden = F.relu(self.second(hidden))
        hidden = F.relu(self.third(hidden))
        return self.head(hidden.mean(-1))


class CharacterTransformer(nn.Module):
    """Predicts the character after a text: embeddings, attention, and the last place."""

    def __init__(self, characters: int, length: int, width: int = 32, blocks: int = 1) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(characters, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, characters)

    def forward(self, text: Tensor) -> Tensor:
        hidden = self.tokens(text) + self.places(torch.arange(text.shape[1], device=text.device))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden[:, -1])


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, hidden: Tensor) -> Tensor:
        query, key, value = self.mixed(self.first(hidden)).chunk(3, -1)
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        hidden = hidden + self.out(weights @ value)
        return hidden + self.down(F.gelu(self.up(self.second(hidden))))
