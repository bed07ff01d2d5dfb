"""Can graph networks of torch_geometric, on its own batches, be searched and loaded?"""

import lightning as L
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from packages import check_study
from torch import nn

from lightning_tricks import ModuleTricks, Task

geometric = pytest.importorskip("torch_geometric.nn")
data = pytest.importorskip("torch_geometric.data")
loader = pytest.importorskip("torch_geometric.loader")

pytestmark = pytest.mark.zoo

NODES, FEATURES, CLASSES = 12, 5, 3


def graph(generator):
    """Return a ring of nodes with more edges; nodes of one kind have similar features."""
    ring = torch.arange(NODES)
    edges = torch.stack([ring, ring.roll(1)])
    more = torch.randint(NODES, (2, NODES), generator=generator)
    kinds = torch.randint(CLASSES, (NODES,), generator=generator)
    features = torch.randn(NODES, FEATURES, generator=generator)
    features[:, :CLASSES] += 2 * F.one_hot(kinds, CLASSES)
    edges = torch.cat([edges, edges.flip(0), more, more.flip(0)], 1)
    return features, edges, kinds


def of_nodes(count, seed):
    """Return graphs with a class for each node; half of the nodes are for training."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for _ in range(count):
        features, edges, kinds = graph(generator)
        graphs.append(
            data.Data(x=features, edge_index=edges, y=kinds, train_mask=torch.arange(NODES) % 2 == 0)
        )
    return graphs


def of_graphs(count, seed):
    """Return graphs with one class each."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for number in range(count):
        features, edges, _ = graph(generator)
        graphs.append(data.Data(x=features + number % 2, edge_index=edges, y=torch.tensor([number % 2])))
    return graphs


class Nodes(L.LightningModule):
    """A classifier of nodes, as in the tutorials of torch_geometric."""

    def __init__(self):
        super().__init__()
        self.conv1 = geometric.GCNConv(FEATURES, 16)
        self.conv2 = geometric.GCNConv(16, CLASSES)

    def forward(self, graphs):
        x = F.relu(self.conv1(graphs.x, graphs.edge_index))
        x = F.dropout(x, training=self.training)
        x = self.conv2(x, graphs.edge_index)
        return F.log_softmax(x, dim=1)

    def training_step(self, graphs, batch_idx):
        out = self(graphs)
        loss = F.nll_loss(out[graphs.train_mask], graphs.y[graphs.train_mask])
        self.log("train_loss", loss, batch_size=graphs.num_graphs)
        return loss

    def validation_step(self, graphs, batch_idx):
        out = self(graphs)
        self.log("val_loss", F.nll_loss(out, graphs.y), batch_size=graphs.num_graphs)
        accuracy = (out.argmax(1) == graphs.y).float().mean()
        self.log("val_acc", accuracy, batch_size=graphs.num_graphs)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-4, weight_decay=5e-4)


class Graphs(pl.LightningModule):
    """A classifier of graphs with attention, norms and a pooled head."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            [geometric.GATConv(FEATURES, 4, heads=2, dropout=0.1), geometric.GATConv(8, 4, heads=2)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm1d(8), nn.BatchNorm1d(8)])
        self.head = nn.Linear(8, 2)

    def forward(self, x, edge_index, batch):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.elu(norm(conv(x, edge_index)))
            x = F.dropout(x, p=0.2, training=self.training)
        return self.head(geometric.global_mean_pool(x, batch))

    def training_step(self, graphs, batch_idx):
        return F.cross_entropy(self(graphs.x, graphs.edge_index, graphs.batch), graphs.y)

    def validation_step(self, graphs, batch_idx):
        loss = F.cross_entropy(self(graphs.x, graphs.edge_index, graphs.batch), graphs.y)
        self.log("val_loss", loss, batch_size=graphs.num_graphs)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def task(name, make, samples):
    return Task(
        name,
        (
            loader.DataLoader(samples(32, 0), batch_size=8, shuffle=True),
            loader.DataLoader(samples(16, 1), batch_size=8),
        ),
        backbone=lambda tricks: make(),
        tricks=ModuleTricks,
        epochs=2,
        monitor="val_loss",
        mode="min",
    )


def batch_of(samples):
    return next(iter(loader.DataLoader(samples(4, 2), batch_size=4)))


def test_a_classifier_of_nodes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch = batch_of(of_nodes)
    check_study(task("nodes", Nodes, of_nodes), Nodes, lambda module: module(batch), tmp_path)


def test_a_classifier_of_graphs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch = batch_of(of_graphs)
    check_study(
        task("graphs", Graphs, of_graphs),
        Graphs,
        lambda module: module(batch.x, batch.edge_index, batch.batch),
        tmp_path,
    )
