"""A one-line description of a trial: its role, how it ended, how it differs from the baseline."""

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.markdown import escaped
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.study_state import StudyState
from lightning_tricks.task.task import Task
from lightning_tricks.training.repeats import SPREAD


def story(
    task: Task, trial: FrozenTrial, outcome: Outcome, study_state: StudyState, links: str = ""
) -> str:
    """Return a description of a trial in one line of Markdown.

    Args:
        task: the study's task.
        trial: the finished trial.
        outcome: the trial's outcome.
        study_state: the study's state.
        links: Markdown links to include.
    """
    role = study_state.role(trial)
    changed = task.tricks.parse(outcome.recipe).differences(study_state.baseline)
    differs = "; ".join(f"{stage} {mine}" for stage, (mine, _) in changed.items())
    parts = [
        f"{role.capitalize()}{': nothing was trained' if outcome.duplicate_of is not None else ''}."
        if role
        else "",
        escaped(_ending(task, trial, outcome)),
        links,
        escaped(f"Differs from the baseline in: {differs}.") if differs else "",
        _over_seeds(trial, study_state),
    ]
    return " ".join(part for part in parts if part)


def _over_seeds(trial: FrozenTrial, study_state: StudyState) -> str:
    """Return the headline and fresh scores for the trial that the verdict is about; else empty."""
    verdict = study_state.verdict if study_state.is_of_verdict(trial) else None
    if verdict is None:
        return ""
    row = verdict.rows.get(verdict.champion)
    scores = {} if row is None else {"validation": row.validation, "test": row.test}
    told = ", ".join(f"{split} {score}" for split, score in scores.items() if score is not None)
    return escaped(f"{verdict.headline()}{f' Over fresh seeds: {told}.' if told else ''}")


def _ending(task: Task, trial: FrozenTrial, outcome: Outcome) -> str:
    score = "" if outcome.score is None else f"{task.monitor} {outcome.score:.4f}"
    epochs = len(outcome.epochs)
    after = f"{score} after {epochs} epoch{'s' if epochs > 1 else ''}" if score else ""
    spread = outcome.epochs[-1]["metrics"].get(SPREAD) if outcome.epochs else None
    if spread is not None:
        after += f", the mean of {task.repeats} trainings (standard deviation {spread:.4f})"
    if trial.state == TrialState.COMPLETE:
        return f"{after}."
    word = {"PRUNED": "Pruned", "FAIL": "Failed"}[trial.state.name]
    return f"{word}: {outcome.reason}{f', {score} by then' if score else ''}."
