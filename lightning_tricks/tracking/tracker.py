"""Write one study to MLflow.

MLflow gets an experiment per study name, a run per study, and a nested run per trial. The calls of a
`Tracker` return at once, because its `Writer` has its own thread. Optuna holds the truth: when the
study is run again, `reconcile` writes from it whatever is missing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

from mlflow.entities import Metric, RunData, RunTag

from lightning_tricks.errors import InputError, locked, one_line
from lightning_tricks.redaction import redacted
from lightning_tricks.search.archive import Models
from lightning_tricks.task.task import Task
from lightning_tricks.tracking import registry, view
from lightning_tricks.tracking.artifacts import holds
from lightning_tricks.tracking.client import (
    active_run,
    connect,
    experiment_id,
    make_database,
    one_line_errors,
    unreachable,
)
from lightning_tricks.tracking.format import DESCRIPTION
from lightning_tricks.tracking.holdings import NUMBER, children, sweep
from lightning_tricks.tracking.names import Renamed
from lightning_tricks.tracking.registry import Registration
from lightning_tricks.tracking.run_update import NOT_ENDED, Status, Update
from lightning_tricks.tracking.writer import SOURCE, Writer


class Tracker:
    """Writes a study to MLflow without making the caller wait.

    Args:
        uri: anything MLflow takes as a tracking URI.
        name: name of the study and of its experiment, which is made if missing.
        warn: prints a line when the server is lost and when it is back.
        guard: called before each write; raises if the program may not write.
        kind: `study` for a search, else the name of its part.

    Raises:
        InputError: if MLflow cannot be reached.
    """

    writer: Writer
    """The writer; exists once the study's run is open."""

    def __init__(
        self,
        uri: str,
        name: str,
        warn: Callable[[str], None],
        guard: Callable[[], None] = lambda: None,
        kind: str = "study",
    ) -> None:
        self.kind, self.renamed = kind, Renamed(warn)
        self.uri, self.name, self._warn, self._guard = redacted(uri, whole=True), name, warn, guard
        with one_line_errors(uri):
            make_database(uri)
            self.client = connect(uri)
            self.experiment_id = experiment_id(self.client, name, uri) or ""

    def for_part(self, part: str) -> Self:
        """Return a tracker for a part of the study, such as its verdict."""
        own = type(self)(self.store, self.name, self._warn, self._guard, part)
        own.renamed = self.renamed  # each name is reported once
        own.experiment_id = self.experiment_id
        return own

    @property
    def store(self) -> str:
        """The tracking URI with its password, to connect with."""
        return str(self.client.tracking_uri)

    @property
    def link(self) -> str:
        """The page of the trials' table, relative to the server's address."""
        return view.link(self.experiment_id)

    def page_of(self, artifact: str) -> str:
        """Return the page of an artifact of the study's run, relative to any other."""
        return view.artifact_page(self.experiment_id, self.writer.run_id, artifact)

    def open(self, run_id: str | None, tags: Mapping[str, str]) -> str:
        """Open or reopen the study's run and start the writer; return the run's id.

        Raises:
            InputError: if MLflow cannot be written to.
        """
        try:
            run_id = self._open(run_id, tags)
        except Exception as error:  # such as a read-only file, or a server that went away
            if locked(error):
                raise unreachable(self.uri, error) from None
            raise InputError(
                f"MLflow cannot be written to: {one_line(error)} (got {self.uri})"
            ) from None
        self.writer = Writer(self.client, self.experiment_id, run_id, self.uri, self._warn, self._guard)
        self.writer.start()
        return run_id

    def _open(self, run_id: str | None, tags: Mapping[str, str]) -> str:
        if run_id is not None and (held := active_run(self.client, run_id)) is not None:
            self.experiment_id = str(held.info.experiment_id)  # which the user may have renamed
            self.client.update_run(run_id, status="RUNNING")
        else:
            self.experiment_id = self.experiment_id or self.client.create_experiment(self.name)
            if run_id is not None:  # the run was deleted: remove its trials and write all again
                for child in list(children(self.client, self.experiment_id, run_id)):
                    self.client.delete_run(child.info.run_id)
            run_id = str(
                self.client.create_run(
                    self.experiment_id, run_name=self.name if self.kind == "study" else self.kind
                ).info.run_id
            )
        tags = {**tags, **SOURCE}
        self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        self.client.log_text(run_id, tags.get("command", ""), "command.txt")
        return run_id

    def update(self, number: int, update: Update) -> None:
        """Queue an update of a trial, and return at once."""
        self.writer.update(number, update)

    def flush(self, timeout: float) -> bool:
        """Wait until everything is written; return whether it is. See `Writer.flush`."""
        return self.writer.flush(timeout)

    def reconcile(
        self, written: Mapping[int, Callable[[], Update]], wrong: Collection[int] = ()
    ) -> dict[int, RunData]:
        """Rewrite missing or wrong runs of trials; return the data of the runs that stay.

        Args:
            written: for each finished or paused trial's number, a function that returns its full update.
            wrong: numbers of the trials whose runs are known to be wrong.

        Raises:
            InputError: if MLflow went away.
        """
        runs, gone, held = self.writer.runs, [], {}
        try:
            for run in list(children(self.client, self.experiment_id, self.writer.run_id)):
                number = int(run.data.tags[NUMBER])
                whole = number in written and run.info.status not in NOT_ENDED
                if whole and number not in runs and number not in wrong:
                    runs[number], held[number] = run.info.run_id, run.data
                else:
                    self.client.delete_run(run.info.run_id)  # unfinished, doubled or wrong
                    gone.append(run.info.run_id)
            registry.remove_versions(self.client, self.name, gone)
        except Exception as error:  # a server that goes away may cause any error
            raise unreachable(self.uri, error) from None
        for number in written:
            if number not in runs:
                self.update(number, written[number]())
        return held

    def attempt(self, write: Callable[[], Any]) -> bool:
        """Write something optional; return whether it succeeded."""
        try:
            self._guard()
            write()
        except Exception as error:
            self._warn(f"MLflow at {self.uri}: {one_line(error)}")
            return False
        return True

    def describe(
        self, markdown: str, metrics: Sequence[Metric], tags: Mapping[str, str] | None = None
    ) -> None:
        """Write the description of the study's run (also as a file), its metrics and more tags."""
        markdown = redacted(markdown)
        for name, value in {**(tags or {}), DESCRIPTION: markdown}.items():
            self.client.set_tag(self.writer.run_id, name, value)
        if self.kind == "study":  # the note of the experiment, which MLflow shows on every page of it
            self.client.set_experiment_tag(self.experiment_id, DESCRIPTION, markdown)
        self.client.log_text(self.writer.run_id, markdown, "summary.md")
        self.client.log_batch(self.writer.run_id, metrics=metrics)

    def holds_files(self, names: Collection[str]) -> bool:
        """Return whether the study's run has artifacts with these names, as far as can be seen."""
        return holds(self.client, self.writer.run_id, names)

    def log_report(self, files: Mapping[str, str]) -> None:
        """Store a report's files with the study's run, without passwords."""
        for name, text in files.items():
            self.client.log_text(self.writer.run_id, redacted(text), name)

    def save_view(self, columns: Sequence[str], task: Task) -> None:
        """Save a view of the runs table that shows the search's scores and tricks, best first."""
        view.save_view(self.client, self.experiment_id, self.writer.run_id, columns, task)

    def register(self, models: Models, shown_by: str) -> tuple[str, bool]:
        """Register models under the run of their trial; see `registry.register`."""
        self._guard()
        run_id = self.writer.runs[models.home]
        of = Registration(self.name, models.alias, run_id, models.trials, shown_by)
        return registry.register(self.client, of, models.files, models.answering)

    def holds(self, versions: Mapping[str, str]) -> bool:
        """Return whether the registered versions (by alias) are complete; see `registry.holds`."""
        return registry.holds(self.client, self.name, versions)

    def describe_model(self, version: str, text: str, page: str = "") -> None:
        """Write a version's description in Markdown; with `page`, also the registered model's."""
        if page:
            self.client.update_registered_model(self.name, page)
        self.client.update_model_version(self.name, version, text)

    def run_of(self, number: int) -> str | None:
        """Return the id of a trial's run."""
        return self.writer.runs.get(number)

    def sweep(self, known: Collection[str]) -> None:
        """Remove what an earlier write of this study left.

        Args:
            known: ids of the runs of its search and its parts.

        Raises:
            InputError: if MLflow went away.
        """
        self._guard()
        sweep(self.store, self.name, self.writer.run_id, known)

    def answers(self) -> bool:
        """Return whether MLflow can be reached."""
        try:
            self.client.get_run(self.writer.run_id)
        except Exception:  # a server that is away may cause any error
            return False
        return True

    def close(self, status: Status) -> bool:
        """End the study's run; return whether everything is written. The next run writes the rest."""
        run_id, written = self.writer.run_id, self.writer.close()
        if self.writer.down:
            return False
        ended = self.attempt(lambda: self.client.set_terminated(run_id, status))
        return ended and written
