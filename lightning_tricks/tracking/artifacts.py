"""The files of a run in MLflow.

MLflow's own functions for them also look for networks of the run, and for those at its global tracking
URI, which need not be that of the client.
"""

from pathlib import Path

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient


def repository(client: MlflowClient, artifact_uri: str) -> ArtifactRepository:
    """Return where files are written to and read from, by the address that a run has for it."""
    return get_artifact_repository(artifact_uri, tracking_uri=client.tracking_uri)


def files_of(client: MlflowClient, artifact_uri: str, folder: str | None = None) -> frozenset[str]:
    """Return the names of the files of a run, or of those in one of its folders."""
    found = repository(client, artifact_uri).list_artifacts(folder)
    return frozenset(Path(file.path).name for file in found)


def fetch(client: MlflowClient, run_id: str, path: str, to: str) -> Path:
    """Bring a file or a folder of a run to a folder of this machine; return where it lies.

    Raises:
        MlflowException, OSError: if there is no such run, or no such file.
    """
    place = repository(client, client.get_run(run_id).info.artifact_uri)
    return Path(place.download_artifacts(path, to))  # type: ignore[no-untyped-call]
