"""The report of a study: made from its verdict, and kept with its results."""

import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial

from lightning_tricks.errors import error_words
from lightning_tricks.process import command
from lightning_tricks.search import dashboard, keys
from lightning_tricks.search.archive import MARKDOWN_REPORT, REPORT
from lightning_tricks.search.studies import finished, trials_of_part
from lightning_tricks.search.study_state import ablation_of
from lightning_tricks.selection.result import Verdict
from lightning_tricks.study.session import Session
from lightning_tricks.task.task import Task

if TYPE_CHECKING:
    from lightning_tricks.report.page import Report


def report_of(study: optuna.Study, task: Task, verdict: Verdict) -> "Report":
    """Return the report of a study that has a verdict."""
    # The libraries that draw take seconds to load, and a report that is kept already needs none.
    from lightning_tricks.report.page import Report  # noqa: PLC0415

    reruns = _reruns(study)
    return Report(study, reruns, task, verdict, commands_of(study), ablation_of(study))


def keep_report(session: Session, verdict: Verdict) -> None:
    """Write the report to the archive and for Optuna's dashboard, unless both hold this very one.

    A failure is a warning: the study stands without its report.
    """
    study, archive, folder = session.study, session.archive, session.folder.path
    made_of = _made_of(study, verdict)
    if (
        study.user_attrs.get(keys.REPORTED) == made_of
        and archive.holds_files({REPORT, MARKDOWN_REPORT})
        and dashboard.holds_report(study, folder)
    ):
        return
    try:
        report = report_of(study, session.task, verdict)
        page = report.html()  # which draws all figures
        dashboard.keep_report(study, folder, page)
        files = {REPORT: page, MARKDOWN_REPORT: report.markdown(), **report.images()}
    except Exception as error:
        session.progress.warn(f"the report cannot be made: {error_words(error)}")
        archive.whole = False
        return
    archive.keep_report(files)
    if archive.whole:
        study.set_user_attr(keys.REPORTED, made_of)


def commands_of(study: optuna.Study) -> list[str]:
    """Return the commands that made a study, in their order."""
    commands: list[str] = study.user_attrs.get(keys.COMMANDS, [command()])
    return commands


def remember_command(study: optuna.Study, repair: bool) -> None:
    """Keep the command of this run with its study, unless it only repairs."""
    commands = study.user_attrs.get(keys.COMMANDS, [])
    if (own := command()) not in commands and not repair:
        study.set_user_attr(keys.COMMANDS, [*commands, own])


def _reruns(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of the verdict and the ablation, once they have ended."""
    parts = [part for part in keys.PARTS if keys.kept(part) in study.user_attrs]
    return [trial for part in parts for trial in trials_of_part(study, part)]


def _made_of(study: optuna.Study, verdict: Verdict) -> str:
    """Return a digest of everything that a report is made of."""
    trials = [(t.number, t.state.name, t.value) for t in [*finished(study), *_reruns(study)]]
    attrs = study.user_attrs
    kept = [attrs.get(keys.kept(part)) for part in keys.PARTS]
    parts = [version("lightning_tricks"), attrs.get(keys.MLFLOW_RUN), commands_of(study), kept, trials]
    return hashlib.sha256(json.dumps([*parts, verdict.label], default=str).encode()).hexdigest()
