import pytest
import torch
from conftest import mlp, small_data, trainer, variant

from lightning_tricks import InputError, Task, Tricks, TricksModule, train
from lightning_tricks.tricks.stopping import BestWeights

PLAIN = Tricks.plain()
# Scores by epoch, patience as a share of the ten epochs, and what must follow.
TABLE = [
    ("max", [0.1, 0.2, 0.2, 0.2, 0.9], 0.2, 4, 1),
    ("max", [0.5, 0.4, 0.6, 0.5, 0.4], 0.2, 5, 2),
    ("min", [0.5, 0.6, 0.7, 0.1], 0.2, 3, 0),
    ("min", [-0.5, -0.6, -0.55, -0.58, -0.9], 0.2, 4, 1),
    ("max", [0.1, 0.0, 0.9], 0.1, 2, 0),
    ("max", [0.1, 0.0, 0.9], 0.01, 2, 0),  # at least one epoch
    ("max", [0.1, 0.2, 0.3], 0.1, None, 2),
]


class Scripted(TricksModule):
    """Validates to scripted scores; its weights tell the epoch."""

    script: list[float] = []

    def validation_step(self, batch, batch_idx):
        epoch = self.current_epoch
        torch.nn.init.constant_(self.backbone[0].bias, float(epoch))
        self.log("val/accuracy", self.script[min(epoch, len(self.script) - 1)])
        self.log("val/loss", 0.0)


@pytest.mark.parametrize(("mode", "scores", "patience", "stops_after", "best"), TABLE)
def test_when_it_stops_and_what_it_restores(mode, scores, patience, stops_after, best):
    tricks = PLAIN.model_copy(update={"stopping": variant("stopping", "patience", patience=patience)})
    module = Scripted(mlp(), tricks, mode=mode)
    module.script = scores
    run = trainer(10, num_sanity_val_steps=0)
    if stops_after is None:
        run.fit_loop.max_epochs = len(scores)
    run.fit(module, datamodule=small_data())
    assert run.current_epoch == (stops_after or len(scores))
    assert module.backbone[0].bias[0].item() == best
    trick = tricks.stopping
    assert trick.score(scores[: run.current_epoch], mode) == scores[best]


def test_without_stopping_the_last_epoch_counts():
    assert PLAIN.stopping.score([0.9, 0.3], "max") == 0.3


def test_a_monitor_that_is_never_logged_is_an_error():
    tricks = PLAIN.model_copy(update={"stopping": variant("stopping", "patience")})
    module = TricksModule(mlp(), tricks, monitor="val/acuracy")
    with pytest.raises(InputError, match=r"'val/acuracy' is never logged; must be one of.*val/acc"):
        trainer(2).fit(module, datamodule=small_data())


def test_the_state_survives():
    callback = BestWeights(0.2, "val/loss", "min")
    callback.best, callback.best_epoch, callback.weights = 0.3, 2, {"w": torch.ones(1)}
    other = BestWeights(0.2, "val/loss", "min")
    other.load_state_dict(callback.state_dict())
    assert other.state_dict() == callback.state_dict()


class Halves(TricksModule):
    """Validates twice per epoch, better in the middle than at the end; its weights tell when."""

    scores = [(0.9, 0.1), (0.8, 0.3), (0.7, 0.2), (0.6, 0.2)]

    def validation_step(self, batch, batch_idx):
        epoch, half = self.current_epoch, int(self.trainer.is_last_batch)
        torch.nn.init.constant_(self.backbone[0].bias, epoch + half / 2)
        self.log("val/accuracy", self.scores[epoch][half])
        self.log("val/loss", 0.0)


def test_validations_in_the_middle_of_an_epoch_neither_count_nor_stop():
    tricks = PLAIN.model_copy(update={"stopping": variant("stopping", "patience", patience=0.25)})
    module = Halves(mlp(), tricks)
    run = trainer(4, num_sanity_val_steps=0, val_check_interval=2)
    run.fit(module, datamodule=small_data(batch_size=6))
    assert module.backbone[0].bias[0].item() == 1.5
    assert (run.current_epoch, run.global_step) == (3, 3 * 4)


@pytest.mark.parametrize("seed", range(4))
def test_the_score_of_a_trial_is_that_of_its_weights(seed):
    data = small_data(batch_size=6)
    settings = {"val_check_interval": 1, "accelerator": "cpu"}
    task = Task("halves", data, lambda tricks: mlp(), epochs=6, trainer=settings)
    tricks = Tricks(stopping={"kind": "patience"}, optimizer={"kind": "sgd", "lr": 1.0})
    result = train(task, tricks, seed)
    module = task.module(tricks)
    module.load_state_dict(result.weights)
    assert trainer(1).validate(module, data, verbose=False)[0][task.monitor] == result.score


def test_patience_says_when_no_validation_was_at_the_end_of_an_epoch():
    tricks = PLAIN.model_copy(update={"stopping": variant("stopping", "patience")})
    run = trainer(2, num_sanity_val_steps=0, val_check_interval=2)  # an epoch has three batches
    with pytest.warns(UserWarning, match="'patience' did nothing: no validation at the end"):
        run.fit(TricksModule(mlp(), tricks), datamodule=small_data())
