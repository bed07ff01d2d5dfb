import copy
import math

import pytest
import torch
from conftest import VARIANTS, variant
from torch import nn

from lightning_tricks.surgery.anatomy import describe
from lightning_tricks.surgery.layers import fans, known_layer, unit_dims
from lightning_tricks.surgery.watch import watch

LAYERS = [
    nn.Linear(400, 300),
    nn.Conv1d(16, 64, 9, padding=4),
    nn.Conv2d(32, 64, 3, padding=1),
    nn.Conv2d(32, 64, 3, groups=4, padding=1),
    nn.Conv2d(64, 64, 3, groups=64, padding=1),
    nn.Conv2d(32, 64, 3, dilation=2, padding=2),
    nn.Conv3d(4, 6, 3, padding=1),
    nn.ConvTranspose2d(32, 48, 3, padding=1),
    nn.ConvTranspose2d(32, 48, 3, padding=1, groups=4),
    nn.ConvTranspose1d(8, 24, 5, padding=2),
]


def counted(layer):
    """Count what the middle output sums over, and what the middle input reaches, by gradients."""
    dims = 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    channels = layer.in_features if dims == 0 else layer.in_channels
    inputs = torch.ones(1, channels, *[11] * dims, requires_grad=True)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    outputs = layer(inputs)
    middle = (0, 0, *[5] * dims)
    (gradient,) = torch.autograd.grad(outputs[middle], inputs, retain_graph=True)
    reached = torch.zeros_like(inputs)
    reached[middle] = 1.0
    bias = layer.bias
    layer.bias = None
    out = int((layer(reached) != 0).sum())
    layer.bias = bias
    return int((gradient != 0).sum()), out


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_fans_are_the_true_ones(layer):
    assert tuple(fans(layer)) == counted(layer)


STDS = {
    "uniform": lambda i, o: 1 / math.sqrt(3 * i),
    "normal": lambda i, o: 1.0,
    "gaussian": lambda i, o: 1 / i,
    "lecun_normal": lambda i, o: 1 / math.sqrt(i),
    "glorot_normal": lambda i, o: math.sqrt(2 / (i + o)),
    "glorot_uniform": lambda i, o: math.sqrt(2 / (i + o)),
    "he_normal": lambda i, o: math.sqrt(2 / i),
    "he_uniform": lambda i, o: math.sqrt(2 / i),
}


def test_every_variant_is_checked():
    kinds = {kind for stage, kind in VARIANTS if stage == "initialization"}
    assert kinds == {*STDS, "torch", "keep", "orthogonal"}


@pytest.mark.parametrize("kind", STDS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_weights_have_the_std_of_the_formula(kind, layer):
    torch.manual_seed(0)
    fan = fans(layer)
    drawn = []
    while sum(w.numel() for w in drawn) < 100_000:
        variant("initialization", kind).draw(layer.weight, fan, head=False)
        drawn.append(layer.weight.detach().flatten().clone())
    weights = torch.cat(drawn)
    assert float(weights.std()) == pytest.approx(STDS[kind](*fan), rel=0.03)
    assert float(weights.mean()) == pytest.approx(0, abs=0.02 * STDS[kind](*fan))


def test_orthogonal_rows_have_the_length_of_the_gain():
    layer = nn.Linear(50, 20)
    variant("initialization", "orthogonal", gain=2.0).draw(layer.weight, fans(layer), head=False)
    torch.testing.assert_close(layer.weight @ layer.weight.T, 4 * torch.eye(20))


def test_each_group_of_a_convolution_is_orthogonal_and_each_matrix_of_a_stack():
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    variant("initialization", "orthogonal", gain=2.0).apply(depthwise)
    lengths = torch.linalg.vector_norm(depthwise[0].weight, dim=(1, 2, 3))
    torch.testing.assert_close(lengths, torch.full((8,), 2.0))

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack, self.head = nn.Parameter(torch.randn(3, 5, 5)), nn.Linear(5, 2)

        def forward(self, inputs):
            return self.head((inputs[:, None, None] @ self.stack).sum((1, 2)).relu())

    experts = Experts()
    describe(experts, watch(experts, [torch.randn(4, 5)]))
    variant("initialization", "orthogonal", gain=2.0).apply(experts)
    products = experts.stack @ experts.stack.mT
    torch.testing.assert_close(products, 4 * torch.eye(5).expand(3, 5, 5))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (2, 2), (4, 2)])
def test_he_keeps_the_signal_through_transposed_convolutions(kernel, stride):
    sizes = [nn.ConvTranspose2d(32, 32, kernel, stride) for _ in range(3)]
    network = nn.Sequential(
        *(layer for size in sizes for layer in (size, nn.ReLU())), nn.Conv2d(32, 2, 1)
    )
    inputs = torch.randn(4, 32, 6, 6).relu()
    describe(network, watch(copy.deepcopy(network), [inputs]))
    variant("initialization", "he_normal").apply(network)
    with torch.no_grad():
        outputs = network[:-1](inputs)[..., 4:-4, 4:-4]  # borders sum over fewer inputs
    assert 0.7 < float(outputs.square().mean() / inputs.square().mean()) ** 0.5 < 1.4


@pytest.mark.parametrize("kind", ["he_normal", "he_uniform", "orthogonal"])
def test_the_head_has_gain_one_and_biases_are_zero(kind):
    module = nn.Sequential(nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 500))
    variant("initialization", kind).apply(module)
    ratio = module[0].weight.detach().std() / module[2].weight.detach().std()
    assert float(ratio) == pytest.approx(math.sqrt(2), rel=0.03)
    assert not module[0].bias.any()
    assert not module[2].bias.any()


@pytest.mark.parametrize("kind", ["torch", "keep"])
def test_torch_and_keep_leave_everything_as_it_was(kind):
    module = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    before = [p.clone() for p in module.parameters()]
    variant("initialization", kind).apply(module)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


def signal(kind, depth=20, width=256):
    """Return the std of the last of many linear and ReLU layers, for inputs of std 1."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())),
        nn.Linear(width, 1),
    )
    variant("initialization", kind).apply(module)
    with torch.no_grad():
        return float(module[:-1](torch.randn(500, width)).square().mean().sqrt())


def test_he_keeps_the_signal_through_relu_and_the_others_lose_it():
    assert 0.5 < signal("he_normal") < 2
    assert signal("lecun_normal") < 0.01
    assert signal("gaussian") < 1e-20
    assert signal("normal") > 1e10


def test_unit_dims_are_those_of_one_output():
    for layer, dims in (
        (nn.Linear(3, 4), (1,)),
        (nn.Conv2d(3, 4, 3), (1, 2, 3)),
        (nn.ConvTranspose2d(3, 4, 3), (0, 2, 3)),
    ):
        found = known_layer("", layer)
        assert unit_dims(layer.weight, found.weights[0].unit) == dims
