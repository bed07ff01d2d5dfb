"""Trials per second of a study, compared to the loop that a competent user writes by hand.

Both run the same search on the same machine in the same run: scikit-learn's digits, a two-layer MLP of
width 128 with dropout and decoupled weight decay, Adam, batch 64, 10 epochs per trial, no pruning. TPE
searches learning rate, dropout and decay. Optuna and MLflow both write to SQLite. With
`--storage journal` our study uses a journal file, the default of its scripts.

- by hand: Optuna + `Trainer` + `DataLoader(TensorDataset)` + `MLFlowLogger` + `ModelCheckpoint`
- ours:    `lightning_tricks.optimize`, in one process, or with `--workers 2` on two
- bare:    a PyTorch loop over sliced tensors with validation, no Optuna, MLflow or Lightning

The first two take turns, and each turn has its ratio. `--growth` shows instead whether the cost of a
trial, or memory, grows from the first 20 trials of a study to trials 181 to 200.

`then` is the time that ours takes after the last trial: MLflow's thread writes the rest, and the
champion is tested and registered, which the loop by hand does not do.

With workers, their start (tens of seconds, once per study) is left out: with two workers, the clock runs
from the end of the fourth trial to the end of the last.

    python benchmarks/trial_throughput.py [--rounds 5] [--trials 20] [--workers 2] [--fuse off]
        [--storage journal]
    python benchmarks/trial_throughput.py --growth
"""

import argparse
import logging
import resource
import statistics
import tempfile
import time
import warnings
from datetime import datetime
from pathlib import Path

import mlflow
import optuna
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks import MLP, InMemoryData, Space, Task, Tricks, create_study, optimize

EPOCHS, BATCH = 10, 64
LR, P, DECAY = (1e-4, 1e-2), (0.05, 0.5), (1e-3, 1e-1)


def network(p: float) -> nn.Sequential:
    """Return the MLP with dropout, as a user writes it."""
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(128, 10),
    )


class ByHand(pl.LightningModule):
    """The LightningModule of the tutorials."""

    def __init__(self, lr: float, p: float, decay: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = network(p)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = F.cross_entropy(self.network(inputs / 16), targets)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        outputs = self.network(inputs / 16)
        self.log("val_loss", F.cross_entropy(outputs, targets))
        self.log("val_accuracy", (outputs.argmax(1) == targets).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.decay)


def by_hand(data: InMemoryData, folder: Path, trials: int) -> optuna.Study:
    """Run the loop written by hand."""
    train, validation = (TensorDataset(*data.splits[name]) for name in ("train", "validation"))
    store = f"sqlite:///{folder / 'mlflow.db'}"

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", *LR, log=True)
        p = trial.suggest_float("p", *P)
        decay = trial.suggest_float("decay", *DECAY, log=True)
        checkpoint = ModelCheckpoint(folder / str(trial.number), monitor="val_accuracy", mode="max")
        trainer = pl.Trainer(
            max_epochs=EPOCHS,
            logger=MLFlowLogger("by-hand", tracking_uri=store, run_name=f"trial-{trial.number}"),
            callbacks=[checkpoint],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(
            ByHand(lr, p, decay),
            DataLoader(train, batch_size=BATCH, shuffle=True),
            DataLoader(validation, batch_size=BATCH),
        )
        return float(checkpoint.best_model_score)

    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.db'}",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )
    study.optimize(objective, n_trials=trials)
    return study


def space() -> Space[Tricks]:
    """Return the search space of the loop: three numbers, everything else pinned."""
    fixed = Tricks.plain().model_dump()
    fixed["scaling"] = {"kind": "unit"}
    for stage in ("dropout", "weight_decay", "optimizer"):
        del fixed[stage]
    kinds = {"dropout": "dropout", "weight_decay": "decoupled", "optimizer": "adam"}
    searched = {
        "optimizer.adam.lr": {"low": LR[0], "high": LR[1], "log": True},
        "dropout.dropout.p": {"low": P[0], "high": P[1]},
        "weight_decay.decoupled.strength": {"low": DECAY[0], "high": DECAY[1], "log": True},
    }
    rest = {"optimizer.adam.beta1": 0.9, "weight_decay.decoupled.norms_and_biases": True}
    return Space(Tricks).pin({**fixed, **kinds, **rest}).narrow(searched)


def ours(
    data: InMemoryData,
    folder: Path,
    trials: int,
    workers: int | str = "inline",
    fuse: int | str = "auto",
    storage: str = "sqlite",
) -> optuna.Study:
    """Run the same search with this package."""
    shape = MLP(depth=2, width=128)
    task = Task("ours", data, lambda tricks: shape.build((64,), 10), epochs=EPOCHS)
    places = {"journal": folder / "optuna.journal", "sqlite": f"sqlite:///{folder / 'optuna.db'}"}
    study = create_study(
        "ours",
        storage=places[storage],
        pruner="none",
        epochs=EPOCHS,
    )
    optimize(
        study,
        task,
        n_trials=trials,
        workers=workers,
        fuse=fuse,
        space=space(),
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        checkpoints=folder / "checkpoints",
        progress=False,
    )
    return study


def bare(data: InMemoryData) -> float:
    """Return the seconds of one trial without Optuna, MLflow and Lightning."""
    start = time.perf_counter()
    model = network(0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    inputs, targets = data.splits["train"]
    held, truth = data.splits["validation"]
    for _ in range(EPOCHS):
        model.train()
        for index in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[index] / 16), targets[index]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            (model(held / 16).argmax(1) == truth).float().mean().item()
    return time.perf_counter() - start


def seconds_a_trial(study: optuna.Study, first: int = 0, last: int | None = None) -> float:
    """Return the mean seconds of a trial, including writes."""
    trials = study.trials[first:last]
    span = trials[-1].datetime_complete - trials[0].datetime_start
    return span.total_seconds() / len(trials)


def seconds_an_end(study: optuna.Study, workers: int) -> float:
    """Return the mean seconds from the end of a trial to the end of the next, once all workers train."""
    ends = sorted(trial.datetime_complete for trial in study.trials)[2 * workers - 1 :]
    return (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1)


def quiet() -> None:
    """Keep Lightning, Optuna and MLflow from printing, because printing is not compared."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def compare(
    data: InMemoryData, rounds: int, trials: int, workers: int | str, fuse: int | str, storage: str
) -> None:
    """Print each turn and the median ratio."""
    ratios = []
    heads = ("by hand", "ours", "bare")
    print(f"round  {'  '.join(f'{h:>8}' for h in heads)}  seconds a trial   ours : by hand  then")
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            for folder in (one, other):  # make the tables beforehand for both
                mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
            hand = seconds_a_trial(by_hand(data, Path(one), trials))
            if isinstance(workers, int):
                study = ours(data, Path(other), trials + 2 * workers, workers, fuse, storage)
                mine = seconds_an_end(study, workers)
            else:
                study = ours(data, Path(other), trials, fuse=fuse, storage=storage)
                mine = seconds_a_trial(study)
            then = datetime.now() - max(trial.datetime_complete for trial in study.trials)
        loop = statistics.median(bare(data) for _ in range(5))
        if number == 0:
            continue  # warm-up
        ratios.append(hand / mine)
        print(
            f"{number:5}  {hand:8.3f}  {mine:8.3f}  {loop:8.3f}  {'':15}   {ratios[-1]:14.2f}"
            f"  {then.total_seconds():.1f} s"
        )
    print(
        f"ours runs {statistics.median(ratios):.2f} times the trials per second of the loop by hand "
        f"(median of {rounds}; {min(ratios):.2f} to {max(ratios):.2f})"
    )


def growth(data: InMemoryData) -> None:
    """Print the cost of trials 1 to 20 and 181 to 200 of one study."""
    with tempfile.TemporaryDirectory() as folder:
        ours(data, Path(folder), 20)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        study = ours(data, Path(folder), 200)
        late = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        first, last = seconds_a_trial(study, 0, 20), seconds_a_trial(study, 180, 200)
        held = sum(
            path.stat().st_size for path in Path(folder, "checkpoints").rglob("*") if path.is_file()
        )
    print(f"trials   1 to  20: {first:.3f} s a trial, peak memory {memory:.0f} MB")
    print(f"trials 181 to 200: {last:.3f} s a trial, peak memory {late:.0f} MB")
    print(f"ratio {last / first:.2f}; checkpoints hold {held / 1024:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workers", type=int, help="0: in this process", default=0)
    parser.add_argument("--fuse", default="auto", help="auto, off, or a number of trials")
    parser.add_argument("--storage", choices=("sqlite", "journal"), default="sqlite", help="our storage")
    parser.add_argument("--growth", action="store_true", help="compare the first trials with late ones")
    given = parser.parse_args()
    quiet()
    digits = InMemoryData.from_arrays(*load_digits(return_X_y=True), batch_size=BATCH)
    if given.growth:
        growth(digits)
    else:
        fuse = int(given.fuse) if given.fuse.isdecimal() else given.fuse
        compare(digits, given.rounds, given.trials, given.workers or "inline", fuse, given.storage)
