"""Extras that optuna-dashboard shows for a study: the score's name, notes, the report.

Notes are written only if `optuna-dashboard` is installed.
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
"""Study attribute: the artifact id of the report."""
ARTIFACTS = "artifacts"
"""Subfolder of a study's checkpoint folder; pass it to the dashboard as `--artifact-dir`."""


def name_score(study: optuna.Study, monitor: str) -> None:
    """Show a study's value under the name of its metric."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if study.metric_names != [monitor]:
            study.set_metric_names([monitor])


def note(subject: optuna.Study | optuna.Trial, text: str) -> None:
    """Write the Markdown note of a study or a trial."""
    if importlib.util.find_spec("optuna_dashboard") is not None:
        importlib.import_module("optuna_dashboard").save_note(subject, text)


def holds_report(study: optuna.Study, folder: Path) -> bool:
    """Return whether a report is saved as an artifact of a study; see `keep_report`."""
    held = study.user_attrs.get(REPORT)
    return held is not None and (folder / ARTIFACTS / held).exists()


def keep_report(study: optuna.Study, folder: Path, html: str) -> None:
    """Save a report as an artifact of a study; replace the previous one.

    Args:
        study: the study.
        folder: folder of the study's checkpoints.
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
