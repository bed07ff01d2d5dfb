"""The files of a run in MLflow.

MLflow's own functions are not used: they also look for networks of the run at MLflow's global tracking
URI, which may differ from the client's.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient


def repository(client: MlflowClient, artifact_uri: str) -> ArtifactRepository:
    """Return the repository that reads and writes files at a run's artifact URI."""
    return get_artifact_repository(artifact_uri, tracking_uri=client.tracking_uri)


def files_of(client: MlflowClient, artifact_uri: str, folder: str | None = None) -> frozenset[str]:
    """Return the names of a run's files, or of those in one of its folders."""
    found = repository(client, artifact_uri).list_artifacts(folder)
    return frozenset(Path(file.path).name for file in found)


Listed = Callable[[str | None], Iterable[FileInfo]]


def sizes_of(listed: Listed, folder: str | None = None) -> dict[str, int]:
    """Return the sizes of all files in a folder and below, by path.

    Args:
        listed: a function that lists a folder of a run or of an exported network.
        folder: the folder; None for all files.
    """
    found: dict[str, int] = {}
    for file in listed(folder):
        found |= sizes_of(listed, file.path) if file.is_dir else {file.path: int(file.file_size or 0)}
    return found


def holds(client: MlflowClient, run_id: str, names: Collection[str]) -> bool:
    """Return whether a run has files with these names; false if that cannot be seen."""
    try:
        return set(names) <= files_of(client, client.get_run(run_id).info.artifact_uri)
    except Exception:  # a server that is away may cause any error; whoever writes next reports it
        return False


def fetch(client: MlflowClient, run_id: str, path: str, to: str) -> Path:
    """Download a file or a folder of a run into a local folder; return its path.

    Raises:
        MlflowException, OSError: if there is no such run, or no such file.
    """
    place = repository(client, client.get_run(run_id).info.artifact_uri)
    return Path(place.download_artifacts(path, to))  # type: ignore[no-untyped-call]
