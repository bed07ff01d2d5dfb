"""A database that goes away for a while, and a second program on the same study."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import tiny_study
from conftest import mlp, optimize, small_data
from mlflow.tracking import MlflowClient
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from programs import end_of, start, until, wait_for
from sqlalchemy import create_engine, text
from test_study import assert_agreement, children, store

from lightning_tricks import InputError, Task, create_study
from lightning_tricks.search.keys import CHAMPION
from lightning_tricks.search.storage import lock
from lightning_tricks.search.storage.waiting import retrying
from lightning_tricks.search.studies import finished
from lightning_tricks.tracking.agreement import differences

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_store")]


def task(backbone=lambda tricks: mlp()):
    return Task("tiny", small_data(), backbone, epochs=2)


class Database:
    """A PostgreSQL server of the test's own, on the loopback interface."""

    def __init__(self, folder, password=None):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # PostgreSQL refuses to run as root.
        self.user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self.user:
            shutil.chown(folder, "postgres")
        trust = ["-A", "trust"]
        if password is not None:
            (folder / "password").write_text(password)
            trust = ["-A", "scram-sha-256", "--pwfile", folder / "password"]
        self.run("initdb", "-D", folder / "data", "-U", "tricks", *trust)

    @property
    def url(self):
        return f"postgresql+psycopg://tricks@127.0.0.1:{self.port}/postgres"

    def run(self, name, *arguments):
        command = [*self.user, BINARIES[-1] / name, *arguments]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL)

    def start(self):
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder}"
        log = self.folder / "log"
        self.run("pg_ctl", "-D", self.folder / "data", "-o", options, "-l", log, "-w", "start")

    def stop(self):
        self.run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")


@contextmanager
def running(password=None):
    """Start a database outside of pytest's folders, because these are for one user only."""
    pytest.importorskip("psycopg", reason="needs psycopg")
    if not BINARIES:
        pytest.skip("needs Debian's postgresql")
    with tempfile.TemporaryDirectory() as folder:
        made = Database(Path(folder), password)
        made.start()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def database():
    with running() as made:
        yield made


def test_a_database_that_is_away_for_a_while_is_waited_for(database, capsys):
    """PostgreSQL is stopped abruptly in the middle of the second trial, and started again."""
    stopped = []

    def come_back():
        time.sleep(4)
        database.start()

    def backbone(tricks):
        if len(stopped) == 9:  # the checks before the first trial make some networks
            database.stop()
            threading.Thread(target=come_back).start()
        stopped.append(1)
        return mlp()

    study = create_study("tiny", storage=database.url, epochs=2)
    optimize(study, task(backbone), n_trials=6)
    errors = capsys.readouterr().err
    assert "the Optuna storage does not answer" in errors
    assert "the Optuna storage is back" in errors
    again = create_study("tiny", storage=database.url)
    assert [t.number for t in finished(again)] == list(range(6))
    assert differences(again, task(), "sqlite:///mlflow.db") == []


def test_sqlite_and_a_journal_hold_the_same_study():
    found = []
    for name, storage in (("a", "sqlite:///optuna.db"), ("b", "optuna.journal")):
        study = create_study("tiny", storage=storage, epochs=2)
        optimize(
            study,
            task(),
            n_trials=5,
            tracking_uri=f"sqlite:///{name}.db",
            checkpoints=name,
            progress=False,
        )
        found.append([(t.number, t.state, t.params, t.value) for t in study.trials])
    assert found[0] == found[1]


class Flaky(InMemoryStorage):
    """Does what it is asked, then reports a failure: the answer is lost."""

    def __init__(self):
        super().__init__()
        self.losing = False

    def _lose(self):
        if self.losing:
            self.losing = False
            raise ConnectionResetError("the server closed the connection")

    def create_new_trial(self, *arguments, **options):
        number = super().create_new_trial(*arguments, **options)
        self._lose()
        return number

    def set_trial_state_values(self, *arguments, **options):
        changed = super().set_trial_state_values(*arguments, **options)
        self._lose()
        return changed


def test_a_lost_answer_neither_doubles_a_trial_nor_fails_it(monkeypatch):
    monkeypatch.setattr("lightning_tricks.search.storage.waiting.PAUSE_SECONDS", 0.01)
    told = []
    flaky = Flaky()
    optuna.create_study(study_name="tiny", storage=flaky)
    study = optuna.load_study(study_name="tiny", storage=retrying(flaky, told.append, lambda: False))
    for _ in range(2):
        flaky.losing = True
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        flaky.losing = True
        study.tell(trial, 1.0)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 2
    assert len([line for line in told if "does not answer" in line]) == 4


def test_who_wants_to_leave_does_not_wait():
    flaky = Flaky()
    study = optuna.create_study(storage=retrying(flaky, print, lambda: True))
    flaky.losing = True
    with pytest.raises(ConnectionResetError):
        study.ask()


def other_machine(study, beat=0):
    held = {"host": "elsewhere:boot", "process": 1, "started": "1", "beat": beat}
    study.set_user_attr(lock.LOCK, held)


def test_a_program_on_another_machine_is_refused_while_it_is_alive(monkeypatch):
    monkeypatch.setattr(lock, "WATCH_SECONDS", 20)
    study = create_study("tiny", storage="optuna.journal")
    optimize(study, task(), n_trials=1, progress=False)
    other_machine(study)
    alive = threading.Timer(2, other_machine, [study, 1])
    alive.start()
    with pytest.raises(InputError, match=r"another program works on this study.*elsewhere"):
        optimize(study, task(), n_trials=2, progress=False)
    alive.join()
    assert len(finished(study)) == 1


def test_the_study_of_a_machine_that_died_is_taken_up(monkeypatch, capsys):
    monkeypatch.setattr(lock, "WATCH_SECONDS", 2)
    study = create_study("tiny", storage="optuna.journal")
    optimize(study, task(), n_trials=1, progress=False)
    other_machine(study)
    optimize(study, task(), n_trials=2)
    assert "checking whether it still does" in capsys.readouterr().err
    assert len(finished(study)) == 2
    assert not lock.held(study)


def test_a_second_program_with_other_checkpoints_is_refused_by_the_storage():
    study = create_study("tiny", storage="optuna.journal")
    with lock.study_lock(study, Path(), print):
        code = (
            "import sys; from pathlib import Path; import lightning_tricks as t\n"
            "from lightning_tricks.search.storage import lock\n"
            "Path('other').mkdir()\n"
            "try:\n"
            "    with lock.study_lock(t.create_study('tiny'), Path('other'), print): pass\n"
            "except t.InputError as error:\n"
            "    sys.exit(str(error))"
        )
        second = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
    assert second.returncode == 1
    assert f"another program works on this study: process {os.getpid()} of" in second.stderr


def on_machine(name, storage, trials="6"):
    """Start the study like a machine that shares only the databases."""
    flags = ["--storage", storage, "--checkpoints", f"checkpoints-{name}", "--n-trials", trials]
    return start(*flags, "--workers", "inline", MACHINE=name, SLOW="1")


def stop_between_writes(process, url):
    """Stop a program like a machine that sleeps, but not while it holds a database lock.

    Nor between two writes that belong together, such as those of a new run: MLflow was quiet before.
    """
    while True:
        until(lambda: time.time() - Path("mlflow.db").stat().st_mtime > 0.5)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        files = [*Path().glob("*.lock"), *Path().glob("*-journal")]
        if not files and not in_transaction(url) and all(map(is_free, Path().glob("*.db"))):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)


def is_free(database):
    """Return whether nobody uses a SQLite database: a reader, too, keeps others from writing."""
    with contextlib.closing(sqlite3.connect(database, timeout=0)) as connection:
        try:
            connection.execute("begin exclusive")
        except sqlite3.OperationalError:
            return False
        return True


def in_transaction(url):
    if not url.startswith("postgresql"):
        return False
    with create_engine(url).connect() as connection:
        query = "select count(*) from pg_stat_activity where state like 'idle in transaction%'"
        return bool(connection.execute(text(query)).scalar())


def known(study):
    """Return the number of finished trials; 0 while SQLite is busy, which lasts for a moment."""
    try:
        return len(finished(study))
    except StorageInternalError:
        return 0


def values(study):
    return [(t.number, t.state, t.params, t.value) for t in study.trials]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_program_that_stood_still_and_was_taken_over_writes_nothing_more(kind, request):
    """One of two real programs is stopped for longer than the other one watches it."""
    url = "sqlite:///optuna.db" if kind == "sqlite" else request.getfixturevalue("database").url
    first = on_machine("one", url, trials="10")
    # The folder is made after the study, and two programs cannot make the study at once.
    wait_for(first, Path("checkpoints-one", "tiny").exists)
    study = create_study("tiny", storage=url)
    wait_for(first, lambda: known(study) >= 2)
    stop_between_writes(first, url)
    stood_at = known(study)
    second = on_machine("two", url, trials="10")
    wait_for(second, lambda: known(study) > stood_at)
    first.send_signal(signal.SIGCONT)
    errors = end_of(first)
    assert first.returncode == 4, errors
    assert errors.splitlines()[-1].startswith("error: this program stood still for a while")
    assert f"was taken over by process {second.pid} of" in errors
    assert "Traceback" not in errors
    assert "warning" not in errors
    errors = end_of(second)
    assert second.returncode == 0, errors
    assert differences(study, tiny_study.task(), "sqlite:///mlflow.db") == []
    undisturbed = create_study("tiny", storage=None)
    optimize(
        undisturbed, tiny_study.task(), n_trials=10, tracking_uri="sqlite:///calm.db", progress=False
    )
    assert values(study) == values(undisturbed)


def shown():
    """Return all runs in MLflow."""
    parents, nested = children()
    return [run.to_dictionary() for run in (*parents, *nested.values())]


def test_a_program_that_was_taken_over_and_comes_back_after_the_end_changes_nothing():
    first = on_machine("one", "optuna.journal")
    study = create_study("tiny")
    wait_for(first, lambda: len(finished(study)) == 1)
    stop_between_writes(first, "optuna.journal")
    second = on_machine("two", "optuna.journal", trials="3")
    errors = end_of(second)
    assert second.returncode == 0, errors
    before = Path("optuna.journal").read_bytes(), shown()
    first.send_signal(signal.SIGCONT)
    errors = end_of(first)
    assert first.returncode == 4, errors
    assert "its study was taken over" in errors.splitlines()[-1]
    assert (Path("optuna.journal").read_bytes(), shown()) == before


def test_what_differs_between_optuna_and_mlflow_is_told():
    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=3, progress=False)
    uri = "sqlite:///mlflow.db"
    assert differences(study, task(), uri) == []
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    runs = client.search_runs(["1"], filter_string="tags.`trial.number` != ''")
    by_number = {int(run.data.tags["trial.number"]): run.info.run_id for run in runs}
    gone = study.user_attrs[CHAMPION]["trial"]
    changed, stopped = sorted({0, 1, 2} - {gone})
    client.delete_run(by_number[gone])
    client.set_tag(by_number[changed], "trial.state", "PRUNED")
    client.log_metric(by_number[changed], "objective", 7.0, step=1)
    client.set_terminated(by_number[stopped], "FAILED")
    client.log_param(by_number[stopped], "odd", 1)
    found = differences(study, task(), uri)
    assert len(found) == 6
    told = (gone, "no run of it"), (changed, "tag trial.state"), (changed, "metric objective")
    for number, words in told:
        assert any(line.startswith(f"trial {number}") and words in line for line in found), found
    for words in (
        "run status is FINISHED in Optuna, FAILED in MLflow",
        "param odd is 1 in MLflow",
        "whose run is not one of the study's: 1",  # that of the champion
    ):
        assert any(words in line for line in found), found
    other = create_study("other", storage=None)
    with pytest.raises(InputError, match="was never trained"):
        differences(other, task(), uri)


def check(capsys, *flags):
    """Run the study's command with `--check`; return its exit code and what it says."""
    capsys.readouterr()
    code = tiny_study.main(tiny_study.task, ["--check", *flags])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_what_an_earlier_write_left_behind_is_told_and_mended(capsys):
    """Everything that can be wrong in a real store; a repair from Optuna fixes all of it."""
    optimize(create_study("tiny", storage=None), tiny_study.task(), n_trials=2, progress=False)
    assert tiny_study.main(tiny_study.task, ["--n-trials", "3"]) == 0
    code, said = check(capsys)
    assert code == 1
    assert "3 runs in MLflow are of an earlier write" in said
    assert "versions of the registered model whose run is not one of the study's: 1" in said

    client = MlflowClient(store())
    found = {int(r.data.tags.get("trial.number", -1)): r.info.run_id for r in client.search_runs(["1"])}
    client.delete_run(create_study("tiny").user_attrs["tricks:mlflow_run"])
    client.delete_model_version("tiny", client.get_model_version_by_alias("tiny", "best").version)
    client.set_tag(found[2], "trial.state", "FAIL")
    code, said = check(capsys)
    assert code == 1
    for words in (
        "the study's own run is missing in MLflow",
        "trial 2: tag trial.state is COMPLETE in Optuna, FAIL in MLflow",
        "the best is version 2 in Optuna, none in MLflow",
    ):
        assert words in said
    code, said = check(capsys, "--repair")
    assert code == 0, said
    assert "Optuna and MLflow agree: 3 trials" in said
    assert_agreement(create_study("tiny"))
    assert check(capsys)[0] == 0
    (only,) = client.search_model_versions("name='tiny'")
    assert client.get_model_version_by_alias("tiny", "best").version == only.version


def test_the_run_of_a_study_that_was_deleted_is_written_anew_without_orphans(capsys):
    assert tiny_study.main(tiny_study.task, ["--n-trials", "2"]) == 0
    MlflowClient(store()).delete_run(create_study("tiny").user_attrs["tricks:mlflow_run"])
    assert tiny_study.main(tiny_study.task, ["--n-trials", "2"]) == 0
    assert_agreement(create_study("tiny"))


def test_a_journal_that_was_emptied_beside_old_runs_is_told_and_they_are_removed(capsys):
    assert tiny_study.main(tiny_study.task, ["--n-trials", "2"]) == 0
    Path("optuna.journal").write_text("")
    code, said = check(capsys)
    assert code == 1
    assert "there is no study 'tiny'" in said
    assert "3 runs in MLflow are of an earlier write" in said
    assert children()[1]  # a check changes nothing
    assert check(capsys, "--repair")[0] == 0
    assert children() == ([], {})
    assert MlflowClient(store()).search_model_versions("name='tiny'") == []
    assert check(capsys)[0] == 2


def test_a_repair_without_a_check_is_refused(capsys):
    assert tiny_study.main(tiny_study.task, ["--repair"]) == 2
    assert "--repair goes with --check" in capsys.readouterr().err
