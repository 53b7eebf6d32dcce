"""Seeds and trials on executors: the same results, in the folder that was asked for."""

import concurrent.futures
import json
import subprocess
import sys

import pytest
import work
from tiny_zoo import make_task, write_recipe

import snukeras
from snukeras import _executors
from snukeras.zoo import command, tasks, training
from snukeras.zoo.publishing import publish
from snukeras.zoo.training import search


def silent(event):
    pass


def train(content, runs="runs", **arguments):
    arguments = {"tasks": {"scales": make_task()}, "progress": silent, **arguments}
    return training.train("tiny", content, content / runs, **arguments)


def alike(results):
    """Results without the seconds that they took."""
    return {**results, "seeds": [{**seed, "seconds": 0} for seed in results["seeds"]]}


class Elsewhere(work.Direct):
    """An executor whose workers do not see the folders of this process."""

    def submit(self, function, *arguments):
        *call, sent, _, left = arguments
        self.left = left
        return super().submit(function, *call, sent, "/nowhere/.here.1", left)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    content = write_recipe(tmp_path_factory.mktemp("whole"), epochs=2)
    return train(content), content / "runs" / "tiny"


def test_seeds_on_an_executor_have_the_same_results(tmp_path, whole, capsys):
    content = write_recipe(tmp_path, epochs=2)
    with pytest.raises(RuntimeError, match="1 of 2 tasks were lost"):
        train(content, executor=work.Direct(lost=(0,)), progress=None)
    assert "tiny seed 1 is done, 1 of 2." in capsys.readouterr().out
    events = []
    executor = work.Direct()
    results = train(content, executor=executor, progress=events.append)
    # The seed that was done is not trained again.
    assert len(executor.futures) == 1
    assert alike(results) == alike(whole[0])
    assert [(event["seed"], event["epoch"], event["epochs"]) for event in events] == [(0, 2, 2)]
    assert json.loads((content / "runs" / "tiny" / "results.json").read_text()) == results
    assert not [*content.rglob(".here.*")]


def test_states_come_back_from_workers_that_do_not_see_the_folder(tmp_path, whole):
    content = write_recipe(tmp_path, epochs=2, seeds=[1])

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(content, progress=interrupt)
    folder = content / "runs" / "tiny" / "seed-1"
    begun = (folder / "state.npz").read_bytes()
    executor = Elsewhere()
    results = train(content, executor=executor)
    assert executor.left == {"state.npz": begun}
    assert (folder / "state.npz").read_bytes() != begun
    assert alike(results)["seeds"] == alike(whole[0])["seeds"][1:]
    assert json.loads((folder / "result.json").read_text()) == results["seeds"][0]
    # And the weights are there to be published.
    publish.train_and_publish(
        "tiny", content, content / "runs", progress=silent, tasks={"scales": make_task()}
    )
    assert snukeras.zoo.info("tiny", content)["seed"] == 1


def test_results_of_other_settings_are_refused(tmp_path):
    content = write_recipe(tmp_path, epochs=1, seeds=[0])
    train(content)
    write_recipe(tmp_path, epochs=1, seeds=[0], batch_size=3)
    for executor in (work.Direct(), Elsewhere()):
        with pytest.raises(ValueError, match="is from another recipe"):
            train(content, executor=executor)


def test_a_worker_with_other_models_to_start_from_is_refused(tmp_path, monkeypatch):
    content = write_recipe(tmp_path, epochs=1, seeds=[0])
    monkeypatch.setattr(training.spread, "identity_of", lambda recipe, sources: "another")
    with pytest.raises(ValueError, match=r"tiny seed 0 from other pretrained models"):
        train(content, executor=work.Direct())


def test_a_seed_that_diverges(tmp_path):
    rate = {"class": "AdamW", "learning_rate": 1e9}
    content = write_recipe(tmp_path, epochs=2, optimizer=rate)
    with pytest.raises(FloatingPointError, match="seed 0 diverged"):
        train(content, executor=work.Direct())


@pytest.mark.slow
def test_trials_on_an_executor_are_those_of_one_process(tmp_path, whole):
    found = []
    for name in ("serial", "lost"):
        content = write_recipe(tmp_path / name)
        arguments = {
            "vary": {"batch_size": [4, 5], "optimizer.learning_rate": [0.05]},
            "epochs": 1,
            "runs": content / "runs",
            "content": content,
            "progress": silent,
            "tasks": {"scales": make_task()},
        }
        if name == "lost":
            with pytest.raises(RuntimeError, match="1 of 2 tasks were lost"):
                search.search("tiny", executor=work.Direct(lost=(0,)), **arguments)
            arguments["executor"] = work.Direct()
        trials = search.search("tiny", **arguments)["trials"]
        found.append([{**trial, "seconds": 0} for trial in trials])
    assert found[0] == found[1] and len(found[0]) == 2


@pytest.mark.parametrize("words", [["train", "tiny"], ["search", "tiny", "--vary", "{}"]])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--workers", "0"], "a number of workers is an integer from 1 to 1024, not '0'"),
        (["--workers", "-2"], "a number of workers"),
        (["--workers", "many"], "a number of workers"),
        (["--workers", "2", "--cluster", "tcp://a:1"], "not allowed with argument --workers"),
    ],
)
def test_bad_options(words, options, says, capsys):
    with pytest.raises(SystemExit) as raised:
        command.main([*words, *options])
    assert raised.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_one_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr(_executors, "_ANSWER_S", 0.3)
    monkeypatch.setitem(tasks.TASKS, "scales", make_task())
    options = ["--cluster", "tcp://127.0.0.1:1", "--content", str(write_recipe(tmp_path))]
    assert command.main(["train", "tiny", *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "snukeras-zoo: error: No Dask scheduler answered at 'tcp://127.0.0.1:1'" in lines[-1]


# What follows starts processes.


@pytest.mark.slow
def test_threads_train_in_processes_of_their_own(tmp_path, whole):
    content = write_recipe(tmp_path, epochs=2)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert alike(train(content, executor=pool)) == alike(whole[0])


@pytest.mark.slow
def test_a_cluster_trains_the_same(tmp_path, whole):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    content = write_recipe(tmp_path, epochs=2)
    with work.cluster() as (address, _), distributed.Client(address) as client:
        assert alike(train(content, executor=client)) == alike(whole[0])
        results = train(content, "others", executor=client.get_executor(), seeds=[1])
    assert alike(results)["seeds"] == alike(whole[0])["seeds"][1:]


# One worker is killed after its first epoch, by whoever asks for them.
KILLING = """
import os, signal, sys, threading, time
from pathlib import Path
import tiny_zoo
from snukeras._executors import opened
from snukeras.zoo import training

def kill(pool, state):
    while not state.exists():
        time.sleep(0.01)
    os.kill(pool._started[0]._process.pid, signal.SIGKILL)

if __name__ == "__main__":
    content = Path(sys.argv[1])
    with opened(workers=2) as pool:
        state = content / "runs" / "tiny" / "seed-0" / "state.npz"
        threading.Thread(target=kill, args=(pool, state), daemon=True).start()
        training.train("tiny", content, content / "runs",
                       tasks={"scales": tiny_zoo.make_task()}, executor=pool)
        assert len(pool._started) == 3, len(pool._started)
"""


@pytest.mark.slow
def test_a_seed_whose_worker_is_killed_goes_on_in_another(tmp_path, whole):
    content = write_recipe(tmp_path, epochs=40)
    script = tmp_path / "script.py"
    script.write_text(KILLING)
    done = subprocess.run(
        [sys.executable, str(script), str(content)],
        env=work.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alone = write_recipe(tmp_path / "alone", epochs=40)
    results = json.loads((content / "runs" / "tiny" / "results.json").read_text())
    assert alike(results) == alike(train(alone))
    assert "tiny seed 0 epoch 40/40" in done.stdout and "2 of 2." in done.stdout
