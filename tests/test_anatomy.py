"""The anatomy of a network: the same for every order in which its layers are assigned."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.errors import InputError
from lightning_tricks.surgery.anatomy import Anatomy
from lightning_tricks.surgery.watch import anatomy_of, watch

PARTS = {
    "first": lambda: nn.Linear(6, 8),
    "norm": lambda: nn.LayerNorm(8),
    "second": lambda: nn.Linear(8, 8),
    "act": nn.ReLU,
    "actor": lambda: nn.Linear(8, 4),
    "critic": lambda: nn.Linear(8, 1),
}


class Ordered(nn.Module):
    """An actor and a critic on one body; their parts are assigned in a given order."""

    def __init__(self, order):
        super().__init__()
        for name in order:
            setattr(self, name, PARTS[name]())

    def forward(self, inputs):
        hidden = self.norm(F.relu(self.first(inputs)))
        hidden = self.act(self.second(hidden))
        return self.actor(hidden), self.critic(hidden)


ORDERS = list(itertools.permutations(PARTS))[::71]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("given", [True, False], ids=["batch", "guess"])
def test_layers_are_described_in_the_order_in_which_they_run(order, given):
    network = Ordered(order)
    anatomy = watch(network, [torch.randn(4, 6)]) if given else anatomy_of(network)
    assert anatomy.watched
    assert [layer.path for layer in anatomy.layers] == ["first", "second", "actor", "critic"]
    assert [layer.output for layer in anatomy.layers] == [False, False, True, True]
    assert [layer.width for layer in anatomy.layers] == [8, 8, 4, 1]
    assert [norm.path for norm in anatomy.norms] == ["norm"]
    assert anatomy.layers[1].activation == "act"
    assert anatomy.outputs == 4
    assert Anatomy.read(anatomy.plain()) == anatomy


class WithChild(nn.Module):
    """Multiplies with a weight of its own, and has a child: what comes before or after it is unclear."""

    def __init__(self, child):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6))
        if child:
            self.act = nn.ReLU()

    def forward(self, inputs):
        hidden = F.linear(inputs, self.weight)
        return self.act(hidden) if hasattr(self, "act") else hidden


@pytest.mark.parametrize("child", [True, False])
def test_a_layer_with_children_is_not_one_to_attach_to(child):
    anatomy = watch(nn.Sequential(WithChild(child), nn.Linear(8, 3)), [torch.randn(4, 6)])
    assert [layer.called for layer in anatomy.layers] == [not child, True]
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(6, 8))
    assert watch(nn.Sequential(parametrized, nn.Linear(8, 3)), [torch.randn(4, 6)]).layers[0].called


def test_the_matrices_of_an_lstm_are_of_four_gates_and_its_projection_is_of_one():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.reader = nn.LSTM(6, 8, batch_first=True, proj_size=4)
            self.head = nn.Linear(4, 3)

        def forward(self, inputs):
            return self.head(self.reader(inputs)[0][:, -1])

    reader, _ = watch(Reader(), [torch.randn(2, 5, 6)]).layers
    found = {weight.name: (weight.parts, weight.fans.outputs) for weight in reader.weights}
    gates = {f"reader.weight_{name}_l0": (4, 8) for name in ("ih", "hh")}
    assert found == {**gates, "reader.weight_hr_l0": (1, 4)}


def test_what_is_read_back_is_input():
    with pytest.raises(InputError, match=r"an anatomy cannot be read: .*layers"):
        Anatomy.read({"layers": 3})


class Multiplies(nn.Module):
    """A layer of another package, which holds its weight as (inputs, outputs)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs):
        return torch.addmm(self.bias, inputs, self.weight)


class RootMeanSquare(nn.Module):
    """A norm that does not derive from a torch norm."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, inputs):
        return self.gain * inputs * torch.rsqrt(inputs.square().mean(-1, keepdim=True) + 1e-6)


class NormAndMore(RootMeanSquare):
    def forward(self, inputs):
        return super().forward(inputs).relu()


def test_layers_and_norms_of_other_makes_are_known_by_what_they_do():
    network = nn.Sequential(Multiplies(6, 8), RootMeanSquare(8), NormAndMore(8), Multiplies(8, 3))
    anatomy = anatomy_of_given(network, torch.randn(4, 6))
    assert [(layer.path, layer.output) for layer in anatomy.layers] == [("0", False), ("3", True)]
    assert anatomy.layers[0].weights[0].fans == (6, 8)
    assert anatomy.layers[0].weights[0].unit == 1
    assert [(norm.path, norm.width, norm.last) for norm in anatomy.norms] == [("1", 8, True)]


def anatomy_of_given(network, inputs):
    return watch(network, [inputs])


def test_recurrent_layers_and_attention_have_gates_and_parts():
    network = nn.ModuleDict({"lstm": nn.LSTM(6, 8, batch_first=True), "head": nn.Linear(8, 3)})
    network.forward = lambda inputs: network["head"](network["lstm"](inputs)[0][:, -1])
    anatomy = anatomy_of_given(network, torch.randn(4, 5, 6))
    lstm = anatomy.layers[0]
    assert [(w.name, w.fans, w.parts) for w in lstm.weights] == [
        ("lstm.weight_ih_l0", (6, 8), 4),
        ("lstm.weight_hh_l0", (8, 8), 4),
    ]
    assert lstm.biases == ("lstm.bias_ih_l0", "lstm.bias_hh_l0")
    assert anatomy.axes == (3, 2)
    attention = anatomy_of_given(nn.TransformerEncoderLayer(8, 2), torch.randn(4, 5, 8))
    assert attention.attends
    assert [w.parts for w in attention.layers[0].weights] == [3, 1]


class Tied(nn.Module):
    """A language model whose head is assigned first and shares the weight of the embedding."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 20, bias=False)
        self.words = nn.Embedding(20, 8)
        self.body = nn.Linear(8, 8)
        self.head.weight = self.words.weight

    def forward(self, inputs):
        return self.head(F.relu(self.body(self.words(inputs)))).transpose(1, 2)


def test_tied_weights_tables_and_heads_are_told_apart():
    anatomy = anatomy_of(Tied())
    assert [(layer.path, layer.output, layer.tied) for layer in anatomy.layers] == [
        ("body", False, False),
        ("head", True, True),
    ]
    assert set(anatomy.tables) == {"head.weight", "words.weight"}


def test_copies_without_gradients_are_teachers():
    network = nn.ModuleDict({"student": nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))})
    network["teacher"] = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    network["teacher"].requires_grad_(False)
    network.forward = lambda inputs: network["student"](inputs) - network["teacher"](inputs)
    anatomy = anatomy_of_given(network, torch.randn(4, 6))
    assert anatomy.copies == (("teacher", "student"),)
    assert [layer.path for layer in anatomy.layers if layer.trained] == ["student.0", "student.2"]


def test_zeros_and_parametrized_weights_are_kept():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
    nn.utils.parametrizations.spectral_norm(network[0])
    nn.init.zeros_(network[3].weight)
    kept = [layer.kept for layer in anatomy_of_given(network, torch.randn(4, 6)).layers]
    assert kept == ["they are parametrized", "", "they are zero on purpose"]


class Dropping(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.body, self.head, self.rate = nn.Linear(6, 8), nn.Linear(8, 3), rate

    def forward(self, inputs):
        hidden = F.dropout(self.body(inputs), self.rate, self.training)
        return self.head(F.dropout(hidden, 0.25, self.training))


def test_dropout_that_is_a_function_is_found_with_the_attribute_of_its_rate():
    draws = anatomy_of_given(Dropping(0.4), torch.randn(4, 6)).draws
    assert [(draw.path, draw.attribute, draw.rate) for draw in draws] == [
        ("", "rate", 0.4),
        ("", "", 0.25),
    ]


@pytest.mark.parametrize(
    ("network", "shape", "axis"),
    [
        (nn.Linear(6, 3), (4, 6), 1),
        (nn.Linear(6, 3), (4, 5, 6), 2),
        (nn.GRU(6, 3, batch_first=True), (4, 6, 6), 2),
        (nn.Conv1d(6, 3, 1), (4, 6, 9), 1),
        (nn.Conv2d(3, 4, 3), (4, 3, 8, 8), 1),
        (nn.Sequential(nn.Flatten(), nn.Linear(30, 3)), (4, 5, 6), None),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (4, 1, 8, 8), 1),
    ],
    ids=str,
)
def test_the_axis_of_features_is_that_of_the_first_layer(network, shape, axis):
    assert anatomy_of_given(network, torch.randn(shape)).axes == (len(shape), axis)


def test_the_axis_of_features_is_found_through_a_transposed_view():
    class Signals(nn.Module):
        """Takes (N, time, channels), with equal numbers of both."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv1d(6, 3, 1)

        def forward(self, inputs):
            return self.layer(inputs.transpose(1, 2)).mean(2)

    assert anatomy_of_given(Signals(), torch.randn(4, 6, 6)).axes == (3, 2)


def test_a_network_that_cannot_be_watched_is_described_by_the_order_of_assignment():
    class Unwilling(nn.Sequential):
        def forward(self, inputs):
            raise RuntimeError("not like this")

    anatomy = anatomy_of(Unwilling(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    assert not anatomy.watched
    assert anatomy.why == "RuntimeError: not like this"
    assert [(layer.path, layer.output) for layer in anatomy.layers] == [("0", False), ("2", True)]


def test_watching_draws_no_random_number_and_changes_nothing():
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    anatomy_of(network)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class DroppingByFunction(nn.Module):
    """Calls a dropout function whose rate no attribute holds, next to what has the same rate."""

    def __init__(self, beside):
        super().__init__()
        self.first, self.second, self.beside = nn.Linear(6, 8), nn.Linear(8, 3), beside
        if beside == "layer":
            self.drop = nn.Dropout(0.5)
        else:
            setattr(self, beside, 0.5)

    def forward(self, inputs):
        hidden = F.dropout(F.relu(self.first(inputs)), training=self.training)
        return self.second(self.drop(hidden) if self.beside == "layer" else hidden)


@pytest.mark.parametrize(
    ("beside", "holds"), [("layer", False), ("threshold", False), ("p", True), ("p_drop", True)]
)
def test_only_an_attribute_named_like_a_rate_holds_the_rate_of_a_dropout_function(beside, holds):
    (draw,) = watch(DroppingByFunction(beside), [torch.randn(4, 6)]).draws
    assert draw.rate == 0.5
    assert draw.attribute == (beside if holds else "")


def test_a_parametrized_layer_that_does_not_run_is_left_alone():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(6, 3)
            self.unused = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))

        def forward(self, inputs):
            return self.used(inputs)

    assert [layer.path for layer in watch(Unused(), [torch.randn(4, 6)]).layers] == ["used"]


def test_a_weight_that_is_made_of_several_parameters_is_no_weight_to_draw():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.deviation = (nn.Parameter(torch.rand(3, 6)) for _ in range(2))

        def forward(self, inputs):
            return F.linear(inputs, self.mean + self.deviation * torch.randn(3, 6))

    names = [w.name for layer in watch(Noisy(), [torch.randn(4, 6)]).layers for w in layer.weights]
    assert names == []
