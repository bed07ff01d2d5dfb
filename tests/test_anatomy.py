"""The anatomy of a network: the same for every order in which its layers are assigned."""

import copy
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


class SelfTaught(nn.Module):
    """A student, and its deep copy that runs without gradients; its parameters still ask for them."""

    def __init__(self, student, another):
        super().__init__()
        self.student, self.another = student, another

    def forward(self, inputs):
        with torch.no_grad():
            target = self.another(inputs)
        return self.student(inputs) - target


@pytest.mark.parametrize("same", [True, False])
def test_a_deep_copy_that_runs_without_gradients_is_a_teacher(same):
    student = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    another = copy.deepcopy(student)
    if not same:
        for layer in (another[0], another[2]):
            nn.init.normal_(layer.weight)
    anatomy = anatomy_of_given(SelfTaught(student, another), torch.randn(4, 6))
    assert anatomy.copies == ((("another", "student"),) if same else ())


def test_trained_copies_of_one_layer_are_no_teachers():
    block = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    network = nn.Sequential(block, copy.deepcopy(block), nn.Linear(6, 3))
    assert anatomy_of_given(network, torch.randn(4, 6)).copies == ()


class Physical(nn.Module):
    """Returns the derivatives of its outputs by its inputs, as a physics-informed loss does."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)
        )

    def forward(self, inputs):
        inputs = inputs.detach().requires_grad_()
        values = self.body(inputs)
        (slopes,) = torch.autograd.grad(values.sum(), inputs, create_graph=True)
        return values + slopes.sum(1, keepdim=True)


def test_a_loss_with_derivatives_makes_no_hidden_layer_an_output():
    layers = anatomy_of_given(Physical(), torch.randn(4, 2)).layers
    assert [layer.output for layer in layers] == [False, False, True]


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


class OverTime(nn.Module):
    """Mixes the steps of each feature, as DLinear and TSMixer do; its inputs are (N, time, features)."""

    def __init__(self):
        super().__init__()
        self.steps = nn.Linear(24, 4)

    def forward(self, inputs):
        return self.steps(inputs.transpose(1, 2)).flatten(1)


class Signal(nn.Module):
    """Takes a signal of (N, time) as one channel."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, 4, 3)

    def forward(self, inputs):
        return self.layer(inputs[:, None]).mean(2)


def test_steps_that_a_first_layer_mixes_are_no_features():
    torch.manual_seed(0)
    series = torch.randn(32, 24, 3)
    assert anatomy_of_given(OverTime(), series).axes == (3, None)
    units = torch.tensor([1.0, 1000.0, 0.01])
    assert anatomy_of_given(OverTime(), series * units).axes == (3, 2)
    decay = torch.linspace(0, 9, 24).neg().exp()[:, None]
    assert anatomy_of_given(OverTime(), series * decay).axes == (3, 1)
    assert anatomy_of_given(Signal(), torch.randn(4, 24)).axes == (2, None)


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


@pytest.mark.filterwarnings("ignore:.torch.jit")  # people still have such parts
@pytest.mark.parametrize(
    "compiling", [torch.jit.script, lambda part: torch.jit.trace(part, torch.ones(2, 8))]
)
def test_a_part_that_torch_compiled_leaves_the_rest_watched(compiling):
    compiled = compiling(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    network = nn.Sequential(nn.Linear(6, 8), compiled, nn.Linear(8, 3))
    anatomy = watch(network, [torch.ones(4, 6)])
    assert [(layer.path, layer.output) for layer in anatomy.layers] == [("0", False), ("2", True)]
    assert "no trick changes the layers in 1, which torch.jit compiled" in next(anatomy.notes())


PRODUCTS = {
    "x @ w": ((8, 5), lambda x, w: x @ w, 1),
    "x @ w.T": ((5, 8), lambda x, w: x @ w.T, 0),
    "x @ w.t()": ((5, 8), lambda x, w: x @ w.t().contiguous(), 0),
    "w @ x": ((5, 8), lambda x, w: (w @ x.T).T, 0),
    "matmul of a transposed": ((5, 8), lambda x, w: torch.matmul(x, w.transpose(-2, -1)), 0),
    "linear": ((5, 8), F.linear, 0),
    "linear of a transposed": ((8, 5), lambda x, w: F.linear(input=x, weight=w.permute(1, 0)), 1),
    "einsum": ((8, 5), lambda x, w: torch.einsum("nf,fo->no", x, w), 1),
    "einsum of a list": ((8, 5), lambda x, w: torch.einsum("nf,fo->no", [x, w]), 1),
    "einsum without a result": ((5, 8), lambda x, w: torch.einsum("nf,of", x, w), 0),
    "einsum from the right": ((5, 8), lambda x, w: torch.einsum("of,...f->...o", w, x), 0),
    "einsum of last axes": ((1, 8, 5), lambda x, w: torch.einsum("nf,...fo->...no", x, w)[0], 2),
    "tensordot": ((8, 5), lambda x, w: torch.tensordot(x, w, dims=1), 1),
    "tensordot of axes": ((5, 8), lambda x, w: torch.tensordot(x, w, dims=([1], [1])), 0),
    "inner": ((5, 8), torch.inner, 0),
    "a mask": ((5, 8), lambda x, w: x @ (w * torch.ones(5, 8).tril()).T, 0),
    "dropped connections": ((8, 5), lambda x, w: x @ F.dropout(w, 0.1), 1),
    "in half precision": ((8, 5), lambda x, w: (x.bfloat16() @ w.to(torch.bfloat16)).float(), 1),
    "with an adapter": ((5, 8), lambda x, w: F.linear(x, w + torch.zeros(5, 2) @ torch.ones(2, 8)), 0),
}


class HeadOf(nn.Module):
    """A first layer, and a head that multiplies in one of many ways."""

    def __init__(self, shape, multiply):
        super().__init__()
        self.body, self.head, self.multiply = nn.Linear(6, 8), nn.Parameter(torch.randn(shape)), multiply

    def forward(self, inputs):
        return self.multiply(self.body(inputs).relu(), self.head)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_weight_is_known_however_it_is_multiplied(name):
    shape, multiply, unit = PRODUCTS[name]
    body, head = watch(HeadOf(shape, multiply), [torch.randn(3, 6)]).layers
    assert [weight.name for weight in head.weights] == ["head"]
    assert (tuple(head.weights[0].fans), head.weights[0].unit) == ((8, 5), unit)
    assert (body.output, head.output, head.kept) == (False, True, "")


SLICES = {
    "index": ((15, 8), lambda x, w: F.linear(x, w[5:10]), 3),
    "chunk": ((8, 15), lambda x, w: sum(x @ part for part in w.chunk(3, 1)), 3),
    "split": ((15, 8), lambda x, w: sum(x @ part.T for part in w.split(5)), 3),
    "narrow": ((15, 8), lambda x, w: torch.einsum("nf,of->no", x, w.narrow(0, 10, 5)), 3),
    "unbind": ((3, 5, 8), lambda x, w: sum(F.linear(x, part) for part in w.unbind()), 1),
    "one of several": ((3, 5, 8), lambda x, w: F.linear(x, w[1]), 1),
}


@pytest.mark.parametrize("name", SLICES)
def test_a_slice_of_a_weight_is_drawn_as_the_matrix_that_it_is(name):
    shape, multiply, parts = SLICES[name]
    weight = watch(HeadOf(shape, multiply), [torch.randn(3, 6)]).layers[1].weights[0]
    assert (weight.name, tuple(weight.fans), weight.parts) == ("head", (8, 5), parts)


CHANGES = {
    "a scale": lambda x, w: x @ (w * 0.1).T,
    "unit length": lambda x, w: F.linear(F.normalize(x), F.normalize(w)),
    "standardized": lambda x, w: x @ ((w - w.mean()) / w.std()).t(),
    "a function": lambda x, w: x @ torch.tanh(w).T,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_weight_that_is_changed_before_its_use_is_a_layers_and_not_drawn_again(name):
    body, head = watch(HeadOf((5, 8), CHANGES[name]), [torch.randn(3, 6)]).layers
    assert [weight.name for weight in head.weights] == ["head"]
    assert (body.output, head.output) == (False, True)
    assert head.kept == "they are changed before they are used"


def test_a_weight_that_is_used_in_another_shape_is_not_drawn_again():
    by_head = HeadOf((10, 8), lambda x, w: torch.einsum("nf,hof->nho", x, w.view(2, 5, 8)))
    head = watch(by_head, [torch.randn(3, 6)]).layers[1]
    assert [weight.name for weight in head.weights] == ["head"]
    assert head.kept == "they are used in another shape"


def test_a_learned_query_is_no_weight():
    network = HeadOf((1, 2, 8), lambda x, w: w.expand(len(x), 2, 8) @ x.unsqueeze(-1))
    assert [layer.path for layer in watch(network, [torch.randn(3, 6)]).layers] == ["body"]


def test_experts_are_matrices_and_a_weight_of_several_axes_is_not_drawn_again():
    experts = HeadOf((2, 4, 5), lambda x, w: torch.einsum("ned,edo->neo", x.view(-1, 2, 4), w))
    heads = HeadOf((8, 2, 5), lambda x, w: torch.einsum("nf,fhd->nhd", x, w))
    twice = HeadOf((5, 8, 8), lambda x, w: F.bilinear(x, x, w))
    found = [watch(network, [torch.randn(3, 6)]).layers[1] for network in (experts, heads, twice)]
    assert [tuple(layer.weights[0].fans) for layer in found] == [(4, 5), (8, 10), (64, 5)]
    assert [layer.weights[0].blocks for layer in found] == [2, 1, 1]
    assert [layer.kept for layer in found] == ["", *["they are summed along several axes"] * 2]


def test_a_gain_in_an_equation_is_no_weight():
    network = HeadOf((3, 8), lambda x, w: torch.einsum("nf,of->nf", x, w))
    assert [layer.path for layer in watch(network, [torch.randn(3, 6)]).layers] == ["body"]


@pytest.mark.parametrize("as_list", [False, True])
def test_attention_by_an_equation_is_attention(as_list):
    def mix(x, w):
        shares = (x @ x.T).softmax(-1)
        return torch.einsum("qk,kf->qf", *([[shares, x]] if as_list else [shares, x])) @ w

    assert watch(HeadOf((8, 5), mix), [torch.randn(3, 6)]).attends
