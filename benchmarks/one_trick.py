"""What each trick is worth alone, on Fashion-MNIST: plain with that one trick, against plain.

Plain is every trick off, but for inputs in [0, 1], as torchvision hands images out: on raw bytes plain
does not train at all. Every arm, plain too, is trained at six learning rates, evenly on a log scale over
the range in which a search looks for its optimizer's, once each; the one of the best validation accuracy
is its own. At that it is trained over further seeds, and compared with plain at plain's own rate: the
same initial draw and order of samples, the mean difference in test accuracy, in points, and its 95 %
interval (Student's t). A star where the interval still leaves out zero when all of a table's are to be
right together in 95 of 100 cases (Bonferroni). Five epochs are short, and some tricks pay late: ask for
20, too.

    python benchmarks/one_trick.py [--images 2500] [--epochs 5] [--seeds 5] [--data-dir FOLDER]
"""

import argparse
import re
import sys
import warnings
from pathlib import Path

import torch
from fresh_seeds import FIRST_SEED, test_accuracy
from joblib import Parallel, delayed

from lightning_tricks import ConvNet, ImageTricks, InMemoryData, Space, Split, Task, train
from lightning_tricks.selection.ablation import level_for
from lightning_tricks.selection.arms import rates
from lightning_tricks.selection.intervals import difference, mean_interval
from lightning_tricks.space.trick import stages
from lightning_tricks.task.backbones import Residual

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from image_data import fashion_mnist

RESIDUAL = ("zero_gamma", "stochastic_depth")
"""Stages that need residual branches: measured against plain on a network that has some."""
VALIDATION = 1000
RATE_SEED = FIRST_SEED - 1
"""Of the trainings that find a learning rate, and no others."""


def convnet(tricks):
    """Return the network of the study."""
    return ConvNet(depth=2, width=16).build((1, 28, 28), 10)


def residual(tricks):
    """Return the same with a residual branch in each stage, which ends in its norm."""
    nn = torch.nn
    layers, wide = [], 1
    for width in (16, 32):
        norm = nn.BatchNorm2d(width)
        branch = Residual(nn.Conv2d(width, width, 3, padding=1, bias=False), norm)
        layers += [nn.Conv2d(wide, width, 3, padding=1), nn.ReLU(), branch, nn.ReLU(), nn.MaxPool2d(2)]
        wide = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10))


NETWORKS = {"convnet": convnet, "residual": residual}


def images(data_dir, count):
    """Return the data: so many images to learn from, 1,000 that find the rates, 10,000 that compare."""
    splits = fashion_mnist(data_dir, train=count).splits
    few = Split(*(part[:VALIDATION] for part in splits["validation"]))
    return InMemoryData(splits["train"], few, splits["test"], batch_size=128)


def arms():
    """Return what differs from plain, by network, stage and kind."""
    own = {"normalization": {"kind": "own"}}
    found = {("convnet", "plain", ""): {}, ("residual", "plain", ""): own}
    for stage, options in stages(ImageTricks).items():
        for kind, option in options.items():
            known = stage == "scaling" and kind == "unit"  # plain has it
            if not known and (stage == "scaling" or not option.neutral):
                network = "residual" if stage in RESIDUAL else "convnet"
                more = own if network == "residual" else {}
                found[network, stage, kind] = {**more, stage: {"kind": kind}}
    return found


def record(changes):
    """Return plain with some changes."""
    plain = {**ImageTricks.plain().model_dump(), "scaling": {"kind": "unit"}}
    return ImageTricks.parse({**plain, **changes})


def validated(task, tricks):
    """Return the validation accuracy of one training; 0 if it diverged."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    result = train(task, tricks, RATE_SEED)
    return result.score if result.state == "complete" and result.score is not None else 0.0


def tested(task, tricks, seed):
    """Return the test accuracy of one training, in per cent; 0 if it diverged."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return test_accuracy(task, tricks, FIRST_SEED + seed)


def measure(tasks, seeds):
    """Return for each arm its own learning rate, and its test accuracies there, seed by seed."""
    space, parallel = Space(ImageTricks), Parallel(n_jobs=-1)
    tried = [(arm, r) for arm, changes in arms().items() for r in rates(space, record(changes))]
    scores = parallel(delayed(validated)(tasks[arm[0]], tricks) for arm, tricks in tried)
    best = {}
    for (arm, tricks), score in zip(tried, scores, strict=True):
        if arm not in best or score > best[arm][0]:
            best[arm] = score, tricks
    jobs = [(arm, seed) for arm in best for seed in range(seeds)]
    values = parallel(delayed(tested)(tasks[arm[0]], best[arm][1], seed) for arm, seed in jobs)
    found = {arm: [] for arm in best}
    for (arm, _), value in zip(jobs, values, strict=True):
        found[arm].append(value)
    return {arm: (best[arm][1].optimizer.lr, found[arm]) for arm in best}


def cells(arm, found):
    """Return an arm's rate, accuracy and worth, as a table has them."""
    lr, scores = found[arm]
    accuracy = mean_interval(scores).mean
    if arm[1] == "plain":
        return [f"{lr:.2g}", f"{accuracy:.2f}", ""]
    plain = found[arm[0], "plain", ""][1]
    alone = difference(scores, plain)
    together = difference(scores, plain, level_for(len(found) - len(NETWORKS)))
    star = "*" if together.excludes_zero else ""
    worth = f"{alone.mean:+.1f} ± {(alone.high - alone.low) / 2:.1f}{star}".replace("-", "−")
    return [f"{lr:.2g}", f"{accuracy:.2f}", f"**{worth}**" if alone.excludes_zero else worth]


def paper(stage, kind):
    """Return the paper that a trick's docstring names, the first one."""
    option = stages(ImageTricks).get(stage, {}).get(kind)
    found = re.search(r"\(([^()]*?\b(?:19|20)\d\d)[^()]*\)", option.__doc__ or "") if option else None
    return " ".join(found[1].split()) if found else "—"


def main():
    """Train everything, and print a line for each trick."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    data = images(given.data_dir, given.images)
    tasks = {n: Task("one", data, f, ImageTricks, epochs=given.epochs) for n, f in NETWORKS.items()}
    found = measure(tasks, given.seeds)
    print("| stage | kind | paper | learning rate | test accuracy, % | worth, points |")
    print("|---|---|---|---|---|---|")
    for arm in arms():
        network, stage, kind = arm
        told = f"`{stage}` | {kind} | {paper(stage, kind)}"
        name = f"plain, {network} | | " if stage == "plain" else told
        print(f"| {name} | {' | '.join(cells(arm, found))} |")


if __name__ == "__main__":
    main()
