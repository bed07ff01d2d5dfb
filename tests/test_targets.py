"""Training targets: label smoothing, mixup and CutMix."""

import pytest
import torch
import torch.nn.functional as F
from conftest import convnet, mlp, optimize, samples, variant

from lightning_tricks import ImageTricks, Task, Tricks, TricksModule
from lightning_tricks.errors import InputError
from lightning_tricks.module.measures import accuracy
from lightning_tricks.search.studies import create_study


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.3])
def test_smoothing_equals_torchs(epsilon):
    outputs, targets = torch.randn(7, 5), torch.arange(7) % 5
    smooth = variant("smoothing", "label_smoothing", epsilon=epsilon).smooth(targets, 5)
    expected = F.cross_entropy(outputs, targets, label_smoothing=epsilon)
    torch.testing.assert_close(F.cross_entropy(outputs, smooth), expected)


def test_validation_is_measured_on_the_targets_as_they_are():
    module = TricksModule(mlp(), Tricks(smoothing={"kind": "label_smoothing"}, scaling={"kind": "none"}))
    inputs, targets = samples(9, 6)
    logged = {}
    module.log_dict = lambda values, **options: logged.update(values)
    module.eval()
    module.validation_step((inputs, targets), 0)
    torch.testing.assert_close(logged["val/loss"], F.cross_entropy(module(inputs), targets))
    assert not torch.isclose(module.learned_loss((inputs, targets)), logged["val/loss"])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_are_mixed_as_the_inputs_are(kind):
    """Images of one color each, which is their class: the mean color tells the share."""
    targets = torch.tensor([0, 1, 2, 3])
    inputs = F.one_hot(targets, 4).float()[:, :, None, None].expand(4, 4, 16, 16).clone()
    torch.manual_seed(1)
    shares = []
    for _ in range(40):
        mixed, soft = variant("mixing", kind, alpha=1.0).mix(inputs, targets, 4)
        torch.testing.assert_close(mixed.mean((2, 3)), soft, atol=1e-5, rtol=0)
        shares.append(float(soft.amax()))
    assert min(shares) < 0.6
    assert max(shares) > 0.9


def test_both_together_are_smooth_and_mixed():
    inputs, targets = samples(8, 2, 4, 4)
    tricks = ImageTricks(
        mixing={"kind": "mixup"}, smoothing={"kind": "label_smoothing"}, scaling={"kind": "none"}
    )
    assert torch.isfinite(TricksModule(convnet(), tricks).learned_loss((inputs, targets)))


def test_a_loss_that_takes_no_probabilities_is_an_error_before_the_first_trial():
    from conftest import small_data

    def hinge(outputs, targets):
        return F.multi_margin_loss(outputs, targets)

    task = Task("hinge", small_data(), lambda tricks: mlp(), loss=hinge, epochs=1)
    from lightning_tricks import Space

    space = Space(Tricks).pin({"smoothing": "label_smoothing"})
    study = create_study("hinge", storage=None)
    with pytest.raises(
        InputError, match="smoothing 'label_smoothing' does not fit the backbone, the data or the loss"
    ):
        optimize(study, task, n_trials=1, space=space)


@pytest.mark.parametrize("columns", [1, 4])
def test_numbers_and_several_labels_are_not_smoothed(columns):
    module = TricksModule(
        mlp(classes=columns), Tricks(smoothing="label_smoothing"), loss=F.mse_loss, metrics={}
    )
    with pytest.raises(InputError, match="label_smoothing needs classes"):
        module.learned_loss((torch.randn(8, 6), torch.rand(8, columns)))


def test_probabilities_are_smoothed():
    module = TricksModule(mlp(), Tricks(smoothing="label_smoothing", scaling="none"))
    inputs, targets = torch.randn(8, 6), torch.rand(8, 3).softmax(1)
    expected = F.cross_entropy(module(inputs), 0.9 * targets + 0.1 / 3)
    torch.testing.assert_close(module.learned_loss((inputs, targets)), expected)


@pytest.mark.parametrize("ignored", [-100, 255])
def test_samples_without_a_label_do_not_count_for_accuracy(ignored):
    outputs = torch.tensor([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [2.0, 1.0]])
    assert float(accuracy(outputs, torch.tensor([0, 0, ignored, 0]))) == pytest.approx(2 / 3)
    assert float(accuracy(outputs, torch.full((4,), ignored))) == 0.0
