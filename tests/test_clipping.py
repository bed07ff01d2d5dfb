import numpy as np
import pytest
import torch
from conftest import convnet, mlp, variant
from hypothesis import given
from hypothesis import strategies as st

from lightning_tricks.tricks.clipping import norm_factor, unit_factor


def clip(kind, gradients, **fields):
    """Clip the gradients of parameters that nothing else uses; return them and the flag."""
    tensors = [torch.tensor(g, dtype=torch.float32) for g in gradients]
    norm = torch.linalg.vector_norm(torch.cat([t.flatten() for t in tensors]))
    flag = variant("clipping", kind, **fields).clip(torch.nn.Identity(), tensors, norm)
    return tensors, bool(flag)


def length(tensors):
    return float(torch.cat([t.flatten() for t in tensors]).norm())


def test_the_standard_rule_leaves_theta_and_the_lessons_leaves_one():
    gradients = [[30.0, 0.0], [[40.0]]]  # of norm 50
    assert length(clip("norm", gradients, theta=10.0)[0]) == pytest.approx(10.0)
    assert length(clip("unit", gradients, theta=10.0)[0]) == pytest.approx(1.0)
    assert length(clip("norm", gradients, theta=1.0)[0]) == pytest.approx(1.0)
    assert length(clip("none", gradients)[0]) == pytest.approx(50.0)


@pytest.mark.parametrize("kind", ["norm", "unit"])
def test_short_gradients_stay(kind):
    tensors, clipped = clip(kind, [[0.3], [0.4]], theta=1.0)
    assert not clipped
    assert length(tensors) == pytest.approx(0.5)


@given(theta=st.floats(0.01, 100), values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6))
def test_norm_clipping_equals_torch(theta, values):
    tensors, clipped = clip("norm", [values], theta=theta)
    parameter = torch.nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values, dtype=torch.float32)
    before = torch.nn.utils.clip_grad_norm_([parameter], theta)
    torch.testing.assert_close(tensors[0], parameter.grad, rtol=1e-4, atol=1e-4 * theta)
    assert clipped == bool(before > theta)


def test_value_clipping_cuts_each_coordinate():
    tensors, clipped = clip("value", [[0.05, -3.0]], theta=0.1)
    np.testing.assert_allclose(tensors[0], [0.05, -0.1])
    assert clipped
    assert not clip("value", [[0.05]], theta=0.1)[1]


@pytest.mark.parametrize("backbone", [mlp, convnet])
def test_adaptive_clipping_equals_the_formula_unit_by_unit(backbone):
    torch.manual_seed(0)
    module = backbone()
    with torch.no_grad():
        module[0].weight[0] = 0.0  # its norm counts as 10⁻³, so it can move
    expected = {}
    layers = [m for m in module if hasattr(m, "weight")]
    for layer in layers:
        sizes = torch.rand(len(layer.weight)).view(-1, *[1] * (layer.weight.dim() - 1))
        layer.weight.grad = torch.randn_like(layer.weight).detach() * sizes.detach()
        weight = layer.weight.detach().numpy()
        gradient = layer.weight.grad.detach().numpy().copy()
        for unit in range(len(weight)):
            limit = 0.05 * max(np.linalg.norm(weight[unit]), 1e-3)
            size = np.linalg.norm(gradient[unit])
            if size > limit and layer is not layers[-1]:
                gradient[unit] *= limit / size
        expected[layer] = gradient
    clipped = variant("clipping", "adaptive", ratio=0.05).clip(module, [], torch.tensor(1.0))
    assert bool(clipped)
    for layer, gradient in expected.items():
        np.testing.assert_allclose(layer.weight.grad.detach().numpy(), gradient, rtol=1e-5, atol=1e-8)
    assert module[0].weight.grad[0].norm() > 0


def test_theta_may_be_a_vector_one_for_each_model():
    norms, thetas = torch.tensor([0.5, 5.0, 50.0]), torch.tensor([1.0, 1.0, 10.0])
    torch.testing.assert_close(norm_factor(norms, thetas), torch.tensor([1.0, 0.2, 0.2]))
    torch.testing.assert_close(unit_factor(norms, thetas), torch.tensor([1.0, 0.2, 0.02]))
