"""What each trick is worth alone, on Fashion-MNIST: plain with that one trick, against plain.

Plain is every trick off, except that inputs are in [0, 1], as torchvision returns images: on raw bytes
plain does not train at all. Each arm, including plain, gets its own learning rate. It is trained once at
six rates, evenly spaced on a log scale over the search range of its optimizer, and once more at the best
two; the rate with the best mean validation accuracy wins. At that rate, the arm is trained over further
seeds and compared with plain at plain's own rate, with the same initial draw and order of samples. The
table has the mean difference in test accuracy, in points, and its 95% interval (Student's t). A star
means that the interval excludes zero even if all intervals of a budget must hold together with 95%
confidence (Bonferroni). Five epochs are short and some tricks pay late, so there are two budgets. They
take hours: with `--keep`, finished trainings are kept, and the same command continues.

    python benchmarks/one_trick.py [--images 2500] [--epochs 5 20] [--seeds 5] [--jobs 2] [--keep FOLDER]
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch
from fresh_seeds import FIRST_SEED, test_accuracy
from joblib import Memory, Parallel, delayed

from lightning_tricks import ConvNet, ImageTricks, InMemoryData, Space, Split, Task, train
from lightning_tricks.selection.ablation import level_for
from lightning_tricks.selection.arms import AGAIN, rates, steadiest
from lightning_tricks.selection.intervals import difference, mean_interval
from lightning_tricks.space.trick import stages
from lightning_tricks.task.backbones import Residual

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from image_data import fashion_mnist

RESIDUAL = ("zero_gamma", "stochastic_depth")
"""Stages that need residual branches; they are measured on a network that has some."""
VALIDATION = 1000
RATE_SEEDS = (FIRST_SEED - 1, FIRST_SEED - 2)
"""Seeds of the trainings that find a learning rate, and of no others."""


def convnet(tricks):
    """Return the network of the study."""
    return ConvNet(depth=2, width=16).build((1, 28, 28), 10)


def residual(tricks):
    """Return the same network with residual branches that end in a norm."""
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
    """Return the data: `count` images to train on, 1,000 that find the rates, 10,000 that compare."""
    splits = fashion_mnist(data_dir, train=count).splits
    few = Split(*(part[:VALIDATION] for part in splits["validation"]))
    return InMemoryData(splits["train"], few, splits["test"], batch_size=128)


def arms():
    """Return the changes to plain, by network, stage and kind."""
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


def recipe(changes):
    """Return plain with some changes."""
    plain = {**ImageTricks.plain().model_dump(), "scaling": {"kind": "unit"}}
    return ImageTricks.parse({**plain, **changes})


def validated(tasks, network, tricks, seed):
    """Return the validation accuracy of one training; 0 if it diverged."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    result = train(tasks[network], tricks, seed)
    return result.score if result.state == "complete" and result.score is not None else 0.0


def tested(tasks, network, tricks, seed):
    """Return the test accuracy of one training, in percent; 0 if it diverged."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return test_accuracy(tasks[network], tricks, seed)


def measure(tasks, seeds, jobs, memory):
    """Return for each arm its learning rate, and its test accuracies at that rate, seed by seed.

    Args:
        tasks: the tasks, by network.
        seeds: the number of seeds that compare.
        jobs: the number of trainings at a time.
        memory: joblib's memory of earlier trainings.
    """

    def scores(function, tricks, seed):
        """Train several recipes, by arm and rate, with one seed; return their scores."""
        kept = memory.cache(function, ignore=["tasks"])
        trainings = (delayed(kept)(tasks, key[0][0], recipe, seed) for key, recipe in tricks.items())
        return dict(zip(tricks, Parallel(n_jobs=jobs)(trainings), strict=True))

    tried = {
        (arm, at.optimizer.lr): at
        for arm, changes in arms().items()
        for at in rates(Space(ImageTricks), recipe(changes))
    }
    once = scores(validated, tried, RATE_SEEDS[0])
    ranked = sorted(tried, key=once.get, reverse=True)
    short = {arm: [key for key in ranked if key[0] == arm][:AGAIN] for arm in arms()}
    twice = scores(validated, {k: tried[k] for keys in short.values() for k in keys}, RATE_SEEDS[1])
    best = {arm: steadiest(keys, once, twice) for arm, keys in short.items()}
    compared = {key: tried[key] for key in best.values()}
    found = [scores(tested, compared, FIRST_SEED + seed) for seed in range(seeds)]
    return {arm: (key[1], [accuracy[key] for accuracy in found]) for arm, key in best.items()}


def cells(arm, found):
    """Return the table cells of an arm: rate, accuracy and worth."""
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


def main():
    """Train everything, and print a line for each trick."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=-1, help="trainings at a time; -1 for one per core")
    parser.add_argument("--keep", help="a folder for finished trainings")
    given = parser.parse_args()
    data = images(given.data_dir, given.images)
    found = []
    for epochs in given.epochs:
        tasks = {n: Task("one", data, f, ImageTricks, epochs=epochs) for n, f in NETWORKS.items()}
        keep = given.keep and Path(given.keep, f"{given.images}x{epochs}")
        found.append(measure(tasks, given.seeds, given.jobs, Memory(keep, verbose=0)))
    heads = [f"{epochs} epochs: rate | accuracy, % | worth, points" for epochs in given.epochs]
    print(f"| {' | '.join(['stage', 'kind', *heads])} |")
    print("|---" * (2 + 3 * len(heads)) + "|")
    for arm in arms():
        network, stage, kind = arm
        name = f"plain, {network} | " if stage == "plain" else f"`{stage}` | {kind}"
        print(f"| {' | '.join([name, *(cell for budget in found for cell in cells(arm, budget))])} |")


if __name__ == "__main__":
    main()
