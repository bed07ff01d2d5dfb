"""Normalization and dropout: where layers are inserted, and what happens to biases."""

import itertools
import warnings
from collections import OrderedDict

import pytest
import torch
from conftest import VARIANTS, convnet, in_order, mlp, small_data, variant
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_tricks import MLP, ConvNet, InputError, Space, Task, Tricks, TricksModule
from lightning_tricks.surgery.anatomy import describe
from lightning_tricks.surgery.dropout import UniformDropout
from lightning_tricks.surgery.layers import channels, known_layer
from lightning_tricks.surgery.norm_places import Place
from lightning_tricks.surgery.norms import NORMS, declare_norm
from lightning_tricks.surgery.watch import watch
from lightning_tricks.task.checks import check

LAYER_NORMS = ["batch", "layer", "group"]


def kinds(module):
    return [type(child).__name__ for child in in_order(module)]


def normalized(backbone, kind, **fields):
    variant("normalization", kind, **fields).apply(backbone)
    return backbone


def test_before_the_activation():
    module = normalized(mlp(), "batch")
    assert kinds(module) == [
        "Linear",
        "LastBatchNorm",
        "ReLU",
        "Linear",
        "LastBatchNorm",
        "ReLU",
        "Linear",
    ]


def test_after_the_activation():
    module = normalized(mlp(), "batch", position="after")
    assert kinds(module) == [
        "Linear",
        "ReLU",
        "LastBatchNorm",
        "Linear",
        "ReLU",
        "LastBatchNorm",
        "Linear",
    ]


def test_on_images():
    module = normalized(convnet(), "batch")
    assert kinds(module)[:4] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert kinds(module)[-4:] == ["Linear", "LastBatchNorm", "ReLU", "Linear"]
    assert kinds(normalized(convnet(), "layer"))[1] == "GroupNorm"


def test_biases_go_with_a_following_batch_norm_and_come_back():
    module = normalized(mlp(), "batch")
    assert [m.bias is None for m in module if isinstance(m, nn.Linear)] == [True, True, False]
    variant("normalization", "none").apply(module)
    assert kinds(module) == kinds(mlp())
    assert [m.bias is None for m in module if isinstance(m, nn.Linear)] == [False] * 3
    normalized(module, "batch", position="after")
    assert [m.bias is None for m in module if isinstance(m, nn.Linear)] == [False] * 3


@pytest.mark.parametrize("network", [mlp, convnet])
@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_a_bias_goes_only_where_the_norm_subtracts_it_again(kind, network):
    """A bias without effect is removed, and a bias with effect stays."""
    module = normalized(network(), kind, **({"groups": 2} if kind == "group" else {}))
    for layer, norm in itertools.pairwise(in_order(module)):
        if isinstance(norm, NORMS):
            assert (layer.bias is None) == (kind == "batch")
            features = torch.randn(16, channels(layer), *[4] * (layer.weight.dim() - 2))
            bias = torch.randn(features.shape[1:2] + (1,) * (features.dim() - 2))
            assert torch.allclose(norm(features), norm(features + bias), atol=1e-5) == (kind == "batch")


def test_a_bias_before_a_frozen_norm_stays():
    """In evaluation mode, the norm subtracts statistics that it gathered earlier."""
    frozen = nn.BatchNorm1d(4).requires_grad_(False)
    module = nn.Sequential(nn.Linear(4, 4), frozen, nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    normalized(module, "batch")
    assert [m.bias is None for m in module if isinstance(m, nn.Linear)] == [False, True, False]


class NormAct(nn.BatchNorm2d):
    """A norm that also applies an activation, as a user may write it."""

    def __init__(self, width):
        super().__init__(width)
        self.act = nn.ReLU()

    def forward(self, input):
        return self.act(super().forward(input))


class DeclaredNormAct(NormAct):
    pass


declare_norm(DeclaredNormAct)


def norm_acts(kind, *others):
    return nn.Sequential(nn.Conv2d(2, 4, 3), kind(4), *others, nn.Conv2d(4, 2, 3))


@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_a_norm_that_does_more_is_left_alone_beside_others(kind):
    module = norm_acts(NormAct, nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
    own, plain = module[1], module[3]
    with pytest.warns(UserWarning, match=rf"'{kind}' leaves the norms of \S+\.NormAct alone"):
        normalized(module, kind)
    assert module[1] is own
    assert module[3] is not plain
    assert module[0].bias is not None


@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_a_network_whose_norms_all_do_more_is_an_error_that_says_what_to_do(kind):
    with pytest.raises(InputError, match=r"NormAct, which do more .* set normalization to 'own'"):
        normalized(norm_acts(NormAct), kind)


@pytest.mark.parametrize("kind", ["none", "weight"])
def test_a_norm_that_does_more_is_not_taken_out(kind):
    module = norm_acts(NormAct)
    own = module[1]
    with pytest.warns(UserWarning, match=rf"'{kind}' leaves the norms of \S+\.NormAct alone"):
        normalized(module, kind)
    assert module[1] is own


@pytest.mark.parametrize("kind", [*LAYER_NORMS, "none", "weight"])
def test_a_norm_that_is_declared_goes_and_its_activation_stays(kind):
    module = normalized(norm_acts(DeclaredNormAct), kind)
    assert not any(isinstance(m, NormAct) for m in module.modules())
    assert sum(isinstance(m, nn.ReLU) for m in module.modules()) == 1
    assert (module[:2](torch.randn(4, 2, 8, 8)) >= 0).all()


def test_a_branch_that_ends_in_an_activation_does_not_begin_as_nothing():
    """With γ = 0, no gradient would ever pass the activation after it."""

    class Block(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(2, 2, 1), kind(2))

        def forward(self, inputs):
            return inputs + self.body(inputs)

    for kind in (NormAct, DeclaredNormAct):
        block = Block(kind)
        with pytest.warns(UserWarning, match="looked for branches that end in a norm"):
            variant("zero_gamma", "zero_gamma").apply(block)
        assert block.body[1].weight.all()


def test_a_layer_without_activation_is_normalized_too():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    normalized(module, "batch", position="after")
    assert kinds(module) == ["Linear", "LastBatchNorm", "Linear", "ReLU", "LastBatchNorm", "Linear"]


@pytest.mark.parametrize("first", LAYER_NORMS)
@pytest.mark.parametrize("second", [*LAYER_NORMS, "weight"])
def test_norms_that_are_there_are_swapped(first, second):
    module = normalized(mlp(), first)
    normalized(module, second)
    assert kinds(module) == kinds(normalized(mlp(), second))


def test_a_norm_outside_of_a_sequential_is_taken_out():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()
            self.norm = nn.LayerNorm(3)

        def forward(self, inputs):
            return self.norm(self.body(inputs))

    module = Own()
    variant("normalization", "none").apply(module)
    assert isinstance(module.norm, nn.Identity)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (nn.LazyLinear, r"'0' \(LazyLinear\) does not know its sizes yet: pass a batch through"),
        (lambda out: nn.utils.weight_norm(nn.Linear(4, out)), "use torch.nn.utils.parametrizations"),
        (
            lambda out: nn.utils.prune.l1_unstructured(nn.Linear(4, out), "weight", 0.5),
            r"is pruned and cannot be copied because of it: .* torch\.nn\.utils\.prune\.remove",
        ),
    ],
)
def test_a_network_that_no_trick_can_act_on_is_refused_in_a_line(layer, what):
    def backbone(tricks):
        return nn.Sequential(layer(8), nn.ReLU(), nn.Linear(8, 3))

    with pytest.raises(InputError, match=what):
        TricksModule(backbone(None), Tricks())
    with pytest.raises(InputError, match=what):
        check(Task("unfit", small_data(), backbone, epochs=1), Space(Tricks))


def test_the_users_network_is_left_as_it_was():
    backbone = mlp()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    TricksModule(backbone, Tricks(dropout={"kind": "dropout"}))
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert kinds(backbone) == kinds(mlp())


@given(width=st.integers(1, 97), groups=st.integers(1, 40))
def test_groups_divide_and_no_feature_stands_alone(width, groups):
    trick = variant("normalization", "group", groups=groups)
    on_images = trick.layer(Place.of(known_layer("", nn.Conv2d(1, width, 3))))
    assert width % on_images.num_groups == 0
    assert on_images.num_groups <= groups
    on_features = trick.layer(Place.of(known_layer("", nn.Linear(1, width))))
    if width == 1:
        assert on_features is None  # a single feature would become zero
    else:
        assert width % on_features.num_groups == 0
        assert on_features.num_groups < width


class Gated(nn.Module):
    """A convolution scaled by squeeze and excitation, then attention pooling with one score a pixel."""

    def __init__(self, norm=nn.Identity):
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3)
        self.squeeze, self.between, self.excite = nn.Conv2d(8, 4, 1), norm(4), nn.Conv2d(4, 8, 1)
        self.score, self.head = nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, images):
        maps = self.convolution(images)
        self.gate = self.excite(self.between(self.squeeze(maps.mean((2, 3), keepdim=True)))).sigmoid()
        pixels = (maps * self.gate).flatten(2).mT
        self.scores = self.score(pixels)
        return self.head((pixels * self.scores.softmax(1)).sum(1))


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm2d])
@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_no_norm_makes_a_single_number_zero(kind, norm):
    data = small_data(1, 8, 8)
    fields = {"groups": 32} if kind == "group" else {}
    tricks = Tricks.plain().model_copy(
        update={"normalization": variant("normalization", kind, **fields)}
    )
    module = Task("t", data, lambda tricks: Gated(norm), epochs=1).module(tricks)
    module(data.splits["train"].inputs[:8])
    assert (module.backbone.gate - 0.5).abs().max() > 1e-3
    assert module.backbone.scores.std() > 1e-3


class Causal(nn.Module):
    """Predicts each next token from the ones before it, by convolutions."""

    def __init__(self, norm):
        super().__init__()
        self.words, self.body, self.head = nn.Embedding(8, 16), nn.Conv1d(16, 16, 3), nn.Conv1d(16, 8, 1)
        self.norm = norm(16)

    def forward(self, tokens):
        padded = nn.functional.pad(self.words(tokens).mT, (2, 0))
        return self.head(self.norm(self.body(padded)).relu())


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_no_norm_shows_a_step_what_comes_later(kind, norm):
    recipe = Tricks(normalization={"kind": kind}, scaling={"kind": "none"})
    module = TricksModule(Causal(norm), recipe).eval()
    tokens = torch.randint(0, 8, (4, 12))
    later = tokens.clone()
    later[:, -1] = (later[:, -1] + 1) % 8
    with torch.no_grad():
        change = (module(tokens) - module(later)).abs().amax((0, 1))
    assert change[-1] > 1e-3
    assert change[:-1].max() < 1e-6


class MaskedConvolution(nn.Conv2d):
    """Multiplies with the row above and the pixels on the left (van den Oord et al., 2016)."""

    def forward(self, images):
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, 2:] = mask[:, :, 2:] = 0
        return nn.functional.conv2d(images, self.weight * mask, self.bias, padding=1)


class PaddedConvolution(nn.Conv2d):
    """Multiplies with the row above and the pixel's own row, by what it pads."""

    def __init__(self, inputs, outputs, size):
        super().__init__(inputs, outputs, (2, size))

    def forward(self, images):
        return super().forward(nn.functional.pad(images, (1, 1, 1, 0)))


class Pixels(nn.Module):
    """Predicts each pixel from those before it."""

    def __init__(self, convolution, norm):
        super().__init__()
        self.body = nn.Sequential(
            convolution(1, 16, 3),
            nn.ReLU(),
            convolution(16, 16, 3),
            norm(16),
            nn.ReLU(),
            nn.Conv2d(16, 4, 1),
        )

    def forward(self, images):
        return self.body(images)


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm2d])
@pytest.mark.parametrize("convolution", [MaskedConvolution, PaddedConvolution])
@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_no_norm_shows_a_pixel_what_comes_later(kind, convolution, norm):
    recipe = Tricks(normalization={"kind": kind}, scaling={"kind": "none"})
    module = TricksModule(Pixels(convolution, norm), recipe).eval()
    images = torch.rand(4, 1, 8, 8)
    later = images.clone()
    later[:, :, 5] += 1
    with torch.no_grad():
        change = (module(images) - module(later)).abs().amax((0, 1, 3))
    assert change[5] > 1e-3
    assert change[:5].max() < 1e-6


def test_pixels_are_normalized_together_where_they_see_each_other():
    module = TricksModule(Pixels(lambda *sizes: nn.Conv2d(*sizes, padding=1), nn.Identity), Tricks())
    assert not any(layer.apart for layer in watch(module, [torch.rand(4, 1, 8, 8)]).layers)


def test_new_norms_have_the_number_type_of_their_place():
    swapped = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)).double()
    for network in (mlp().double(), swapped):
        normalized(network, "batch")
        assert network(torch.randn(4, 6, dtype=torch.float64)).dtype == torch.float64


def test_a_norm_stays_before_an_activation_that_halves_the_features():
    network = nn.Sequential(nn.Linear(6, 16), nn.GLU(), nn.Linear(8, 3))
    with pytest.warns(UserWarning, match="stays before the activations"):
        normalized(network, "batch", position="after")
    assert network(torch.randn(4, 6)).shape == (4, 3)


class Idle(nn.Module):
    """Has dropout that never acts: between the layers of an LSTM of one layer, and in a layer unused."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that it does nothing
            self.reader = nn.LSTM(6, 16, dropout=0.2, batch_first=True)
        self.unused, self.body, self.head = nn.Dropout(0.1), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, inputs):
        return self.head(self.body(self.reader(inputs[:, None])[0][:, -1]).relu())


def test_dropout_that_never_acts_does_not_count():
    network, inputs = Idle(), torch.randn(4, 6)
    describe(network, watch(network, [inputs]))
    variant("dropout", "dropout", p=0.5).apply(network.train())
    assert not torch.equal(network(inputs), network(inputs))


class Stepwise(nn.Module):
    """Features of six steps, normalized over steps and features."""

    def __init__(self):
        super().__init__()
        self.into, self.norm, self.head = nn.Linear(5, 4), nn.LayerNorm([6, 4]), nn.Linear(4, 3)

    def forward(self, steps):
        return self.head(self.norm(self.into(steps)).mean(1))


class Channelwise(Stepwise):
    """The same with a convolution: channels, then steps."""

    def __init__(self):
        super().__init__()
        self.into, self.norm = nn.Conv1d(6, 4, 1), nn.LayerNorm([4, 5])

    def forward(self, steps):
        return self.head(self.norm(self.into(steps)).mean(2))


@pytest.mark.parametrize("network", [Stepwise, Channelwise])
@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_a_norm_over_steps_and_features_is_replaced_by_one_of_the_features(network, kind):
    tricks = Tricks.plain().model_copy(update={"normalization": variant("normalization", kind)})
    module = Task("t", small_data(6, 5), lambda tricks: network(), epochs=1).module(tricks)
    assert sum(p.numel() for p in module.backbone.norm.parameters()) == 2 * 4


@pytest.mark.parametrize("kind", LAYER_NORMS)
def test_a_backbone_without_hidden_layer_is_an_error_that_says_what_was_looked_for(kind):
    with pytest.raises(InputError, match="found nothing to act on: looked for norm layers"):
        normalized(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), kind)


def test_weight_norm_keeps_the_weights_that_were_drawn():
    given = {"initialization": "he_normal"}
    torch.manual_seed(0)
    wrapped = TricksModule(mlp(width=64), Tricks(**given, normalization="weight")).backbone[2].weight
    torch.manual_seed(0)
    bare = TricksModule(mlp(width=64), Tricks(**given, normalization="none")).backbone[2].weight
    torch.testing.assert_close(wrapped, bare)


def test_weight_norm_has_a_length_for_each_output_of_a_transposed_convolution():
    layer = nn.Sequential(nn.ConvTranspose2d(3, 5, 3))
    variant("normalization", "weight").wrap(layer)
    assert layer[0].parametrizations.weight.original0.shape == (1, 5, 1, 1)


def test_dropout_stands_before_each_linear_layer_but_the_first():
    module = mlp()
    variant("dropout", "dropout", p=0.3).apply(module)
    assert kinds(module) == [
        "Linear",
        "ReLU",
        "UniformDropout",
        "Linear",
        "ReLU",
        "UniformDropout",
        "Linear",
    ]
    assert {m.p for m in module.modules() if isinstance(m, nn.Dropout)} == {0.3}


def test_dropout_beside_batch_norm_stands_after_the_last_norm_only():
    module = normalized(mlp(), "batch")
    variant("dropout", "dropout").apply(module)
    assert kinds(module)[-2:] == ["UniformDropout", "Linear"]
    assert kinds(module).count("UniformDropout") == 1


def test_dropout_layers_that_are_there_get_the_rate_or_none():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.7), nn.Linear(4, 2))
    variant("dropout", "dropout", p=0.2).apply(module)
    assert [m.p for m in module if isinstance(m, nn.Dropout)] == [0.2]
    variant("dropout", "none").apply(module)
    assert [m.p for m in module if isinstance(m, nn.Dropout)] == [0.0]


def test_dropout_removes_the_share_p_and_keeps_the_mean():
    module = TricksModule(
        mlp(), Tricks.plain().model_copy(update={"dropout": variant("dropout", "dropout", p=0.25)})
    )
    layer = next(m for m in module.modules() if isinstance(m, nn.Dropout))
    dropped = layer(torch.ones(100_000))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_our_dropout_is_that_of_torch_but_for_its_masks(dtype):
    ours, theirs = UniformDropout(0.1), nn.Dropout(0.1)
    inputs = torch.full((1000, 1000), 3.0, dtype=dtype, requires_grad=True)
    for layer in (ours, theirs):
        dropped = layer(inputs)
        (gradient,) = torch.autograd.grad(dropped.sum(), inputs)
        assert dropped.dtype == dtype
        assert set(dropped.unique().tolist()) == set(theirs(inputs).unique().tolist())
        torch.testing.assert_close(gradient * 3, dropped.detach())
        # 0.1 within five standard deviations of a mean of a million; bfloat16 alone is coarser.
        assert float((dropped == 0).double().mean()) == pytest.approx(0.1, abs=5 * 3e-4)
    assert ours.eval()(inputs) is inputs


def test_dropout_that_finds_nothing_is_an_error():
    with pytest.raises(InputError, match="dropout found nothing to act on"):
        variant("dropout", "dropout").apply(nn.Sequential(nn.Conv2d(1, 1, 3)))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("norm", [kind for stage, kind in VARIANTS if stage == "normalization"])
def test_the_built_in_networks_take_every_norm(residual, depth, norm):
    tricks = Tricks(normalization={"kind": norm}, dropout={"kind": "dropout"})
    flat = MLP(depth=depth, width=16, residual=residual).build((2, 8, 8), 5)
    images = ConvNet(depth=depth, width=8, residual=residual).build((2, 8, 8), 5)
    for backbone in (flat, images):
        module = TricksModule(
            backbone, tricks.model_copy(update={"scaling": variant("scaling", "none")})
        )
        assert module(torch.randn(4, 2, 8, 8)).shape == (4, 5)


def test_the_shape_of_the_built_in_networks():
    count = sum(isinstance(m, nn.Linear) for m in MLP(depth=3).build((4,), 2).modules())
    assert count == 4
    with pytest.raises(InputError, match="needs samples of shape"):
        ConvNet().build((64,), 10)


def test_names_of_a_named_sequential_stay():
    layers = OrderedDict(first=nn.Linear(4, 4), act=nn.ReLU(), head=nn.Linear(4, 2))
    module = normalized(nn.Sequential(layers), "batch")
    names = [name for name, _ in module.named_children()]
    assert [n for n in names if n in layers] == ["first", "act", "head"]
    assert kinds(module) == ["Linear", "LastBatchNorm", "ReLU", "Linear"]


def test_a_named_sequential_may_use_one_activation_twice():
    relu = nn.ReLU()
    layers = OrderedDict(
        fc1=nn.Linear(4, 4), act1=relu, fc2=nn.Linear(4, 4), act2=relu, head=nn.Linear(4, 2)
    )
    module = normalized(nn.Sequential(layers), "layer")
    names = ["Linear", "LayerNorm", "ReLU"]
    assert kinds(module) == [*names, *names, "Linear"]
    assert [n for n, _ in module.named_children() if n in layers] == ["fc1", "act1", "fc2", "head"]
    assert "act2" in dict(module._modules)


@pytest.mark.parametrize("kind", ["none", "batch", "group", "layer", "weight"])
def test_a_transformer_answers_alike_with_and_without_gradients(kind):
    """Torch has an inference kernel that reads the weights of layer norms and of no other norms."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    backbone = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(40, 3))
    module = TricksModule(
        backbone, Tricks(normalization={"kind": kind}, scaling={"kind": "none"})
    ).eval()
    inputs = torch.randn(4, 5, 8)
    with torch.no_grad():
        alone = module(inputs)
    torch.testing.assert_close(module(inputs), alone)
    dropouts = [m.dropout for m in module.modules() if isinstance(m, nn.MultiheadAttention)]
    assert dropouts == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["none", "batch", "group", "layer"])
def test_a_transformer_takes_padding_in_evaluation_with_every_norm(kind):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

        def forward(self, inputs):
            padded = inputs[..., 0] == 0
            return self.head(self.encoder(inputs, src_key_padding_mask=padded).mean(1))

    module = TricksModule(Padded(), Tricks(normalization=kind, scaling="none")).eval()
    inputs = torch.randn(4, 5, 8)
    inputs[:, 3:, 0] = 0
    with torch.no_grad():
        assert module(inputs).isfinite().all()


def test_what_is_frozen_stays_as_it_is():
    class Distilled(nn.Module):
        def __init__(self):
            super().__init__()
            self.teacher = nn.Sequential(
                nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU()
            ).requires_grad_(False)
            self.student = mlp(inputs=8)

        def forward(self, inputs):
            return self.student(self.teacher(inputs))

    for kind in ("none", "group", "weight"):
        backbone = Distilled()
        changed = TricksModule(backbone, Tricks(normalization={"kind": kind})).backbone
        before, after = backbone.teacher.state_dict(), changed.teacher.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_weight_norm_leaves_zeros_alone_and_unties_nothing():
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    nn.init.zeros_(module[2].weight)
    variant("normalization", "weight").wrap(module)
    assert torch.isfinite(module(torch.randn(2, 3))).all()
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    tied[1].weight = tied[0].weight
    variant("normalization", "weight").wrap(tied)
    assert tied[1].weight is tied[0].weight
    assert isinstance(tied[2], nn.Linear)
    assert hasattr(tied[2], "parametrizations")
    with pytest.raises(InputError, match=r"looked for layers with one weight that is neither shared"):
        variant("normalization", "weight").wrap(tied[:2])
