"""Studies on several workers: what can die, and what happens then."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest
import ray
import troubled
from conftest import mlp, optimize, small_data
from optuna.trial import TrialState
from programs import end_of, start, until, wait_for
from test_repeats import whole
from test_study import children, load, under_way

from lightning_tricks import Space, Task, Tricks, create_study, train
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.search.studies import finished
from lightning_tricks.tracking.agreement import differences

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_store")]


def test_a_trial_whose_workers_die_three_times_is_given_up_and_the_study_goes_on(tmp_path, capsys):
    """Each kind of trouble once, on two workers."""
    fixed = troubled.Troubled()
    pins = {stage: getattr(fixed, stage) for stage in type(fixed).model_fields if stage != "trouble"}
    space = Space(troubled.Troubled).pin(pins)
    study = optuna.create_study(
        study_name="tiny", direction="maximize", sampler=optuna.samplers.BruteForceSampler(0)
    )
    chosen = troubled.task(tmp_path, epochs=2)
    space = space.narrow({"trouble": ["none", "dies", "raises"]})
    optimize(study, chosen, n_trials=3, space=space, workers=2, keep=1)
    errors = capsys.readouterr().err
    by_trouble = {t.params["trouble"]: t for t in study.trials}
    assert {name: t.state for name, t in by_trouble.items()} == {
        "none": TrialState.COMPLETE,
        "dies": TrialState.FAIL,
        "raises": TrialState.FAIL,
    }
    reason = Outcome.read(by_trouble["dies"]).reason
    assert reason == "its worker was lost 3 times: its process died"
    assert errors.count("the trial goes on elsewhere") == 2
    assert errors.count("is given up") == 1
    assert "Traceback" not in errors
    assert not ray.is_initialized()
    assert not list(Path("checkpoints/tiny/running").iterdir())
    assert_agreement(study)


def assert_agreement(study, uri="sqlite:///mlflow.db"):
    assert differences(study, troubled.task("."), uri) == []


def rays_environment():
    """Return the environment without Lightning's own variable, which holds each trial's seed."""
    return {name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"}


def test_auto_moves_to_several_workers_with_the_same_scores(monkeypatch, capsys):
    from lightning_tricks.workers import placement

    def run(workers):
        study = create_study("tiny", storage=None, sampler="random", pruner="none")
        task = Task("tiny", small_data(), lambda tricks: mlp(), epochs=2)
        optimize(
            study,
            task,
            n_trials=6,
            workers=workers,
            tracking_uri=f"sqlite:///{workers}.db",
            checkpoints=workers,
        )
        return sorted((t.number, t.value) for t in study.trials)

    expected = run("inline")
    monkeypatch.setattr(placement, "WORTH_SECONDS", 1e-3)
    before = rays_environment()
    assert run("auto") == expected
    assert rays_environment() == before  # Ray's settings are not left behind
    assert "going on with 2 workers" in capsys.readouterr().err


def test_a_verdict_on_two_workers_trains_each_seed_on_the_split_of_that_seed():
    """An actor trains what this process trains, with the same recipe, seed and split."""
    judged = whole()
    study = create_study("whole", storage=None)
    held = optimize(study, judged, n_trials=4, finalists=2, seeds=3, workers=2, progress=False).verdict
    part = optuna.load_study(study_name="whole.verdict", storage=study._storage)
    reports = [t for t in part.trials if t.user_attrs["tricks:phase"] == "report"]
    assert {t.user_attrs["tricks:entry"] for t in reports} >= {"baseline", held.candidate}
    for trial in reports:
        outcome = Outcome.read(trial)
        alone = train(judged.rerun(), Tricks.parse(outcome.recipe), outcome.seed)
        assert trial.value == pytest.approx(alone.score, abs=1e-4)


def test_a_study_on_two_workers_survives_ctrl_c_and_kill_9_of_its_program():
    """Three programs in turn: the first is told to end, the second killed, the third finishes."""
    command = ("--n-trials", "12", "--workers", "2")
    first = start(*command, SLOW="1")
    wait_for(first, under_way(1))
    first.send_signal(signal.SIGINT)
    errors = end_of(first)
    assert first.returncode == 130, errors
    assert "finishing the running trials" in errors
    states = [t.state.name for t in load().trials]
    assert set(states) <= {"COMPLETE", "PRUNED", "WAITING"}
    done = len(finished(load()))
    assert 1 <= done < 12

    second = start(*command, SLOW="1")
    wait_for(second, lambda: len(finished(load())) > done)
    family = psutil.Process(second.pid).children(recursive=True)
    second.kill()
    end_of(second)
    psutil.wait_procs(family)  # no process outlives the program

    third = start("--n-trials", "12", "--workers", "inline")
    errors = end_of(third)
    assert third.returncode == 0, errors
    study = load()
    assert [t.number for t in finished(study)] == list(range(12))
    assert_agreement_of_tiny(study)
    scores = {t.number: (t.params, t.value) for t in study.trials}
    assert all(value is not None for _, value in scores.values())


def assert_agreement_of_tiny(study):
    import tiny_study

    assert differences(study, tiny_study.task(), "sqlite:///mlflow.db") == []


def rays_own(process, name):
    """Return Ray's own processes of this name that a program started."""
    return [p for p in psutil.Process(process.pid).children(recursive=True) if name in p.name()]


def test_the_death_of_rays_own_processes_costs_a_line_and_no_trial():
    process = start("--n-trials", "14", "--workers", "2", SLOW="2")
    study = load()

    def trains(more_than):
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        spared = all(
            t.user_attrs.get("tricks:losses", 0) < 2 for t in running
        )  # the third loss would be the last
        return len(finished(study)) > more_than and len(running) >= 2 and spared

    for name in ("raylet", "gcs_server", "ray::DashboardAge"):
        done = len(finished(study))
        wait_for(process, lambda done=done: trains(done))
        for one in rays_own(process, name):
            one.kill()
    errors = end_of(process)
    assert process.returncode == 0, errors
    # The raylet ends a while after its agent, which may be after the end of the study.
    assert errors.count("Ray died: starting it again") in (2, 3)
    for word in ("Traceback", "state-dump", "GCS", "raylet"):
        assert word not in errors
    assert len(finished(study)) == 14
    assert TrialState.FAIL not in [t.state for t in study.trials]
    assert_agreement_of_tiny(study)


def test_when_ray_cannot_be_had_again_the_study_says_so_and_its_records_are_true(cluster):
    """The only node of a cluster dies."""
    address = f"127.0.0.1:{cluster.port}"
    process = start("--n-trials", "4", "--ray-address", address, "--workers", "1", SLOW="0.3")
    study = load()
    wait_for(process, lambda: len(finished(study)) >= 1)
    cluster.stop()
    errors = end_of(process)
    assert process.returncode == 5, errors
    last = errors.splitlines()[-1]
    assert last.startswith("error: Ray died, and no Ray cluster answers")
    assert last.endswith("run the same command to go on")
    assert "Traceback" not in errors
    assert TrialState.RUNNING not in [t.state for t in study.trials]
    parents, nested = children()
    assert [run.info.status for run in parents] == ["KILLED"]
    assert set(nested) == {t.number for t in finished(study)}


class Cluster:
    """Ray on two nodes of one processor each, on this machine."""

    def __init__(self, port):
        self.port = port
        self.nodes = []

    def start(self, *arguments):
        program = Path(sys.executable).with_name("ray")
        options = ["--num-cpus=1", "--num-gpus=1", "--block", "--disable-usage-stats"]
        process = subprocess.Popen(
            [program, "start", *arguments, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.nodes.append(process)

    def raylets(self, node):
        """Return the processes of a node that hold its workers."""
        family = psutil.Process(self.nodes[node].pid).children(recursive=True)
        return [p for p in family if p.name() == "raylet"]

    def stop(self):
        for node in self.nodes:
            if node.poll() is None:
                for process in psutil.Process(node.pid).children(recursive=True):
                    process.kill()
                node.kill()
            node.wait()


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("SLOW", "0.5")  # its workers inherit the environment of their node
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Cluster(port)
    made.start("--head", f"--port={made.port}", "--include-dashboard=false")
    until(lambda: listens(made.port))
    made.start(f"--address=127.0.0.1:{made.port}")
    yield made
    made.stop()


def test_a_dead_node_costs_no_trial_and_the_cluster_is_left_running(cluster):
    until(lambda: cluster.raylets(0) and cluster.raylets(1))
    time.sleep(5)  # wait until the second node has joined
    process = start("--n-trials", "8", "--ray-address", f"127.0.0.1:{cluster.port}", SLOW="0.5")
    wait_for(process, under_way(3))
    for raylet in cluster.raylets(1):
        raylet.kill()
    errors = end_of(process)
    assert process.returncode == 0, errors
    study = load()
    assert {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(study.trials) == 8
    assert_agreement_of_tiny(study)
    assert cluster.raylets(0)
    assert "Traceback" not in errors
