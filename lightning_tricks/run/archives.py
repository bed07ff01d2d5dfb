"""The archive of a study: MLflow, or its folder.

MLflow is imported only if it is used, because that takes seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from lightning_tricks.search.archive import Archive
from lightning_tricks.search.storage.lock import StudyLock
from lightning_tricks.space.space import Space
from lightning_tricks.study.folder import StudyFolder
from lightning_tricks.study.folder_archive import FolderArchive
from lightning_tricks.study.progress import Progress
from lightning_tricks.task.task import Task
from lightning_tricks.tracking.addresses import uri_of


def check_archive(tracking_uri: str | Path | None, name: str) -> None:
    """Check that MLflow answers, if the study uses it. Nothing is created.

    Raises:
        InputError: if it does not answer, or refuses a study of this name.
    """
    if tracking_uri is not None:
        from lightning_tricks.tracking.client import check_tracking  # noqa: PLC0415 - as said above

        check_tracking(uri_of(tracking_uri), name)


@contextmanager
def open_archive(
    tracking_uri: str | Path | None,
    study: optuna.Study,
    task: Task,
    space: Space[Any],
    folder: StudyFolder,
    display: Progress,
    lock: StudyLock,
    repair: bool,
) -> Iterator[Archive]:
    """Open the archive of a study for one run of it.

    Raises:
        InputError: if MLflow cannot be written to.
    """
    if tracking_uri is None:
        yield FolderArchive(folder.path, display.warn)
        return
    from lightning_tricks.tracking.mlflow_archive import MLflowArchive  # noqa: PLC0415 - as said above
    from lightning_tricks.tracking.tracker import Tracker  # noqa: PLC0415 - as said above

    tracker = Tracker(uri_of(tracking_uri), study.study_name, display.warn, lock.verify)
    with MLflowArchive(tracker, study, task, space, repair=repair).opened() as archive:
        yield archive
