"""What optuna-dashboard shows of a study beside its parameters: the score's name, notes, the report.

Notes are written if `optuna-dashboard` is installed beside the study.
"""

import importlib
import importlib.util
import io
import warnings
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.exceptions import ExperimentalWarning

from lightning_tricks.search.keys import kept

REPORT = kept("report")
"""What a study keeps of its report: the id of the artifact."""
ARTIFACTS = "artifacts"
"""The folder beside a study's checkpoints that the dashboard is given as its `--artifact-dir`."""


def name_score(study: optuna.Study, monitor: str) -> None:
    """Have a study's value shown under the name of the metric that it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if study.metric_names != [monitor]:
            study.set_metric_names([monitor])


def note(subject: optuna.Study | optuna.Trial, text: str) -> None:
    """Write the note of a study or of a trial, in Markdown."""
    if importlib.util.find_spec("optuna_dashboard") is not None:
        importlib.import_module("optuna_dashboard").save_note(subject, text)


def keep_report(study: optuna.Study, folder: Path, html: str) -> None:
    """Keep a report as an artifact of a study, in the place of the one before.

    Args:
        study: of the report.
        folder: of the study's checkpoints.
        html: the report.
    """
    place = folder / ARTIFACTS
    place.mkdir(exist_ok=True)
    store = FileSystemArtifactStore(place)
    held = study.user_attrs.get(REPORT)
    if held is not None:
        store.write(held, io.BytesIO(html.encode()))
        return
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    found = upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
    path.unlink()
    study.set_user_attr(REPORT, found)
