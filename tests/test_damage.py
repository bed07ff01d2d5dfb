"""Files and databases are input: they may hold anything, and no damage loses anything."""

import json
from pathlib import Path

import optuna
import pytest
import tiny_study
import torch
from conftest import optimize
from mlflow.tracking import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from test_study import children, load, run, store, task

from lightning_tricks import InputError, Space, Tricks, create_study
from lightning_tricks.errors import UnknownStudy
from lightning_tricks.search.keys import OUTCOME
from lightning_tricks.search.storage.journal import CHECKSUM
from lightning_tricks.search.studies import load_study
from lightning_tricks.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("with_store")


def test_mlflow_is_never_swept_because_the_storage_cannot_be_read(capsys):
    """MLflow may hold the only whole copy."""
    assert run("--n-trials", "2") == 0
    before = {run_.info.run_id for run_ in children()[1].values()}
    lines = Path("optuna.journal").read_text().splitlines()
    Path("optuna.journal").write_text("\n".join([*lines[:5], "damage", *lines[6:]]) + "\n")
    for storage in ("optuna.journal", "nothing.journal", "postgresql://u@127.0.0.1:1/x"):
        capsys.readouterr()
        assert run("--check", "--repair", "--storage", storage) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert {run_.info.run_id for run_ in children()[1].values()} == before


def test_a_changed_bit_anywhere_in_a_journal_is_found_and_its_line_named():
    study = create_study("tiny", storage="optuna.journal")
    study.enqueue_trial({"x": 0.5}, user_attrs={"ü": [1, None, 2.5]})
    study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.25)
    whole = Path("optuna.journal").read_bytes()
    for place in range(0, len(whole) - 1, 3):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 7
        Path("optuna.journal").write_bytes(changed)
        line = whole[:place].count(b"\n") + 1
        name = f'"{CHECKSUM}"'.encode()
        if name in whole[place - len(name) : place + len(name)]:
            continue  # this damages the key of the checksum, not its contents
        with pytest.raises(InputError, match=f"line {line} of the journal"):
            load_study("tiny", "optuna.journal").get_trials()


def test_a_journal_that_another_program_wrote_names_the_line_that_cannot_be(journal):
    lines = journal.splitlines(keepends=True)
    wrong = lines[20].replace('"op_code":', '"op_code":9')
    Path("optuna.journal").write_text("".join([*lines[:20], wrong, *lines[21:]]))
    with pytest.raises(InputError, match="line 21 of the journal"):
        load_study("tiny", "optuna.journal")


def test_a_journal_with_checksums_is_read_by_optuna_itself(journal):
    assert run("--n-trials", "2") == 0
    storage = JournalStorage(JournalFileBackend("optuna.journal"))
    theirs = optuna.load_study(study_name="tiny", storage=storage)
    assert [trial.value for trial in theirs.trials] == [trial.value for trial in load().trials]


def test_much_is_removed_only_if_that_was_asked_for(capsys):
    assert run("--n-trials", "6") == 0
    create_study("another", storage="other.journal")
    before = {run_.info.run_id for run_ in children()[1].values()}
    assert len(before) == 6
    repair = ("--check", "--repair", "--storage", "other.journal")
    assert run(*repair) == 2
    error = capsys.readouterr().err
    assert "would remove 8 things from MLflow" in error
    assert "add --remove" in error
    assert {run_.info.run_id for run_ in children()[1].values()} == before
    assert run(*repair, "--remove") == 0
    assert not MlflowClient(store()).search_model_versions("name='tiny'")
    assert run("--check", "--remove") == 2


WRONG_STUDY = {
    "lock": "x",
    "identity": [1],
    "champion": "x",
    "tests": {"x": 1},
    "mlflow_run": 7,
}
WRONG_OUTCOME = {
    "epochs": [{"number": 1}],
    "seconds": float("inf"),
    "state": "lost",
    "recipe": 5,
}


@pytest.fixture(scope="module")
def journal(tmp_path_factory, empty_store):
    """Return the journal of a study of two trials, without checksums."""
    folder = tmp_path_factory.mktemp("journal")
    study = create_study("tiny", storage=folder / "optuna.journal", epochs=2)
    options = {"tracking_uri": f"sqlite:///{folder}/mlflow.db", "checkpoints": folder / "checkpoints"}
    optimize(study, tiny_study.task(), n_trials=2, progress=False, **options)
    lines = (folder / "optuna.journal").read_text().splitlines()
    entries = [{k: v for k, v in json.loads(line).items() if k != CHECKSUM} for line in lines]
    return "".join(f"{compact(entry)}\n" for entry in entries)


def compact(value):
    """Write a value as Optuna's journal does."""
    return json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize("name", [*WRONG_STUDY, *WRONG_OUTCOME, "outcome"])
def test_a_journal_with_wrong_values_is_told_in_a_line(name, journal, capsys):
    Path("optuna.journal").write_text(journal)
    study = load()
    if name in WRONG_STUDY:
        study.set_user_attr(f"tricks:{name}", WRONG_STUDY[name])
    else:
        outcome = study.trials[1].user_attrs[OUTCOME]
        wrong = 5 if name == "outcome" else {**outcome, name: WRONG_OUTCOME[name]}
        text = journal.replace(compact(outcome), compact(wrong))
        assert text != journal
        Path("optuna.journal").write_text(text)
    for extra in ([], ["--check"]):
        capsys.readouterr()
        assert run("--n-trials", "2", *extra) == 2
        error = capsys.readouterr().err
        assert "the storage is damaged" in error
        assert "Traceback" not in error


def test_a_journal_of_a_later_version_is_read(journal):
    more = journal.replace('"duplicate_of":null', '"duplicate_of":null,"mood":"fine"')
    assert more != journal
    Path("optuna.journal").write_text(more)
    assert run("--n-trials", "3") == 0


def test_a_database_that_could_not_be_made_whole_is_not_there(monkeypatch):
    Path("mlflow.db").unlink()

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "search_experiments", killed)
        with pytest.raises(KeyboardInterrupt):
            Tracker("sqlite:///mlflow.db", "tiny", print)
    assert not list(Path().glob("mlflow.db*"))
    tracker = Tracker("sqlite:///mlflow.db", "tiny", print)
    tracker.open(None, {})
    assert tracker.close("FINISHED")
    assert [path.name for path in Path().glob("mlflow.db*")] == ["mlflow.db"]
    assert MlflowClient(store()).get_experiment_by_name("tiny") is not None


def test_what_stands_in_the_place_of_checkpoints_is_put_away():
    study = create_study("tiny", storage=None)
    for name in ("foo", "trial-00000.ckpt"):
        Path("checkpoints/tiny/running", name, "inside").mkdir(parents=True)
    optimize(study, task(), n_trials=1, progress=False)
    assert study.trials[0].state.name == "COMPLETE"
    assert not list(Path("checkpoints/tiny/running").iterdir())


def test_kept_weights_that_do_not_fit_are_trained_again():
    study = create_study("tiny", storage=None)
    space = Space(Tricks).pin({"normalization": "batch"})
    optimize(study, task(), n_trials=2, space=space, progress=False)
    study.set_user_attr("tricks:champion", {**study.user_attrs["tricks:champion"], "version": "9"})
    for path in Path("checkpoints/tiny").glob("trial-*.pt"):
        torch.save({"another": torch.zeros(3)}, path)
    optimize(study, task(), n_trials=2, space=space, progress=False)
    best = study.user_attrs["tricks:champion"]["trial"]
    kept = torch.load(f"checkpoints/tiny/trial-{best:05d}.pt", weights_only=True)
    assert "another" not in kept
    assert study.user_attrs["tricks:champion"]["version"] != "9"


def test_a_link_that_lies_in_wait_is_not_followed():
    victim = Path("victim")
    victim.write_text("mine")
    folder = Path("checkpoints/tiny")
    folder.mkdir(parents=True)
    (folder / "trial-00000.part").symlink_to(victim.absolute())
    optimize(create_study("tiny", storage=None), task(), n_trials=1, progress=False)
    assert victim.read_text() == "mine"
    assert not (folder / "trial-00000.pt").is_symlink()


REFUSED = {
    "--storage sqlite://": "threads cannot share",
    "--storage sqlite:///:memory:": "threads cannot share",
    "--storage sqlite:///mlflow.db": "--storage and --tracking-uri must be different places",
    "--storage mlflow.db": "must be different places",
    "--checkpoints mlflow.db": "--tracking-uri and --checkpoints must be different places",
    "--workers 999999999": "workers must be auto, inline or a number from 1 to 1000",
    "--devices-per-trial 1e308": "at most 1000 (got 1e+308)",
    f"--checkpoints {300 * 'x'}": "checkpoints cannot be kept",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_would_spoil_or_hang_is_refused_and_leaves_nothing(arguments, capsys):
    Path("mlflow.db").unlink()
    assert run("--n-trials", "1", *arguments.split()) == 2
    assert REFUSED[arguments] in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_looking_makes_no_database():
    with pytest.raises(InputError, match="there is no storage"):
        load_study("tiny", "sqlite+pysqlite:///none.db")
    assert not Path("none.db").exists()
    create_study("other", storage="sqlite:///some.db")
    with pytest.raises(UnknownStudy):
        load_study("tiny", "sqlite:///some.db")
