"""Real MLflow servers for the tests: started, killed and started again on the same port."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class Server:
    """MLflow's server of the UI and of tracking, with its stores in a folder."""

    HEALTH = "health"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{self.port}.log"
        self.process: subprocess.Popen | None = None

    def arguments(self) -> list[str]:
        stores = [
            "--backend-store-uri",
            f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        return ["server", "--workers", "1", *stores]

    def environment(self) -> dict[str, str]:
        return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        place = ["--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *self.arguments(), *place],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment()},
            )

    def wait(self) -> None:
        """Wait until the server answers."""
        while not self.up():
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)

    def up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/{self.HEALTH}", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class ModelServer(Server):
    """A server that answers with a registered model, in this environment."""

    HEALTH = "ping"

    def __init__(self, folder: Path, model: str, tracking_uri: str) -> None:
        super().__init__(folder)
        self.model, self.tracking_uri = model, tracking_uri

    def arguments(self) -> list[str]:
        # A virtual environment would take minutes, so the packages are those of this one.
        return ["models", "serve", "--model-uri", self.model, "--env-manager", "local"]

    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.tracking_uri}
