"""The first screen of a report: the answer in numbers, what to change, how to load the model."""

from collections.abc import Iterator, Sequence

import optuna

from lightning_tricks.report import figures
from lightning_tricks.report.blocks import Block, Code, Table, Tiles
from lightning_tricks.scores import without_split
from lightning_tricks.search.keys import CHAMPION
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.intervals import Interval
from lightning_tricks.selection.result import ENSEMBLE, WORDS, Verdict
from lightning_tricks.task.task import Task
from lightning_tricks.tricks.recipe import Tricks
from lightning_tricks.tricks.recipe_types import import_of


def first_screen(
    verdict: Verdict,
    changes: Sequence[tuple[str, str, str]],
    ablation: Ablation | None,
    search: optuna.Study,
    cost: str,
    task: Task,
) -> Iterator[Block]:
    """Return what is seen first.

    Args:
        verdict: of the study.
        changes: of the recipe that is new: stage, from, to.
        ablation: of the study, if there is one.
        search: the study.
        cost: the time of all devices, in words.
        task: of the study.
    """
    yield _tiles(verdict, cost)
    if changes:
        yield _changes(verdict, changes, ablation)
    if gains := _gains(verdict):
        yield figures.differences(gains, without_split(task.monitor))
    if CHAMPION in search.user_attrs:
        yield _loading(search, task.tricks)


def _tiles(verdict: Verdict, cost: str) -> Tiles:
    row, together = (verdict.rows.get(f"{verdict.champion}{end}") for end in ("", ENSEMBLE))
    gains = {}
    if verdict.gain is not None:
        gains[f"gain over {WORDS[verdict.incumbent]}"] = verdict.gain.interval.signed
    scores = {
        f"{name}'s {'test' if held.test else 'validation'} score": str(held.test or held.validation)
        for name, held in (("champion", row), ("its ensemble", together))
        if held is not None and not held.unfinished
    }
    return Tiles({**gains, **scores, "device time": cost})


def _changes(
    verdict: Verdict, changes: Sequence[tuple[str, str, str]], ablation: Ablation | None
) -> Table:
    """Return what to change, and what each change is worth where that was measured."""
    worth = {
        effect.stages[0]: str(effect.worth)
        for effect in (() if ablation is None else ablation.effects)
        if effect.family == "leave one out" and effect.worth is not None
    }
    header = (f"{verdict.changer} changes", "from", "to")
    if ablation is None or ablation.trial != verdict.trial or verdict.changer != verdict.champion:
        return Table(header, changes)
    return Table((*header, "worth"), [(*row, worth.get(row[0], "")) for row in changes])


def _gains(verdict: Verdict) -> dict[str, Interval]:
    other = verdict.incumbent
    found = {} if verdict.gain is None else {f"{verdict.candidate} − {other}": verdict.gain.interval}
    if verdict.ensemble_gain is not None:
        found[f"ensembles of {verdict.candidate} − {other}"] = verdict.ensemble_gain
    return found


def _loading(search: optuna.Study, recipe: type[Tricks]) -> Code:
    """Say how to load the champion: from MLflow, or from the study's folder."""
    in_mlflow = search.user_attrs[CHAMPION]["run_id"] is not None
    place = f"models:/{search.study_name}@champion" if in_mlflow else "champion"
    where = "" if in_mlflow else "; `champion` is the folder next to this file"
    uri = ", tracking_uri=..." if in_mlflow else ""
    also = "; the URI is the study's" if in_mlflow else ""
    return Code(
        f"from lightning_tricks import load_with_tricks\n{import_of(recipe)}\n"
        f"# A new network, or the function that makes it{where}{also}.\n"
        f'model = load_with_tricks("{place}", network{uri})'
    )
