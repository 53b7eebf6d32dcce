"""Tasks on executors: the same results anywhere, and what happens when workers die."""

import concurrent.futures
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest
import work

from snukeras import _executors
from snukeras._executors import Workers, gather, opened

NUMBERS = [(number,) for number in range(6)]
SPAWN = multiprocessing.get_context("spawn")


def found(*arguments, **named):
    return dict(gather(*arguments, **named))


def test_one_task_after_the_other_without_an_executor():
    called = []
    running = gather(lambda number: called.append(number) or number, NUMBERS)
    assert next(running) == (0, 0) and called == [0]
    assert [*running] == [(number, number) for number in range(1, 6)]
    assert found(work.times, NUMBERS[:2], content="ab") == {0: "", 1: "ab"}


def test_an_executor_gives_the_same_results():
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert found(work.square, NUMBERS, pool) == {n: n * n for n in range(6)}
        assert found(work.times, NUMBERS, pool, content=3) == {n: 3 * n for n in range(6)}
        assert found(work.square, [], pool) == {}


def test_threads_take_turns():
    inside = threading.Semaphore(1)

    def alone(number):
        assert inside.acquire(blocking=False)
        time.sleep(0.01)
        inside.release()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(found(alone, NUMBERS, pool)) == 6


@pytest.mark.parametrize("executor", [2, "tcp://node1:8786", concurrent.futures.Executor.submit])
def test_refuses_what_is_no_executor(executor):
    with pytest.raises(ValueError, match="`executor` must be None or have a method submit"):
        found(work.square, NUMBERS, executor)


def test_an_error_of_a_task_is_raised_and_the_rest_is_cancelled():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="0 is no good"):
            found(work.fail, NUMBERS, pool)
        running = gather(work.place, [(number, 0.05) for number in range(6)], pool)
        next(running)
        running.close()
        begun = time.monotonic()
    assert time.monotonic() - begun < 0.2


@pytest.mark.parametrize("lost", [(2,), (0, 1, 2, 3, 4, 5)])
def test_what_is_done_comes_before_the_message_of_loss(lost):
    results = {}
    with pytest.raises(RuntimeError, match=f"{len(lost)} of 6 tasks were lost.*run the same again"):
        for number, result in gather(work.square, NUMBERS, work.Direct(lost)):
            results[number] = result
    assert results == {n: n * n for n in range(6) if n not in lost}


def test_a_broken_pool_that_takes_nothing_more():
    class Broken(work.Direct):
        def submit(self, function, *arguments):
            if len(self.futures) == 4:
                raise BrokenProcessPool("a child process terminated abruptly")
            return super().submit(function, *arguments)

    results = {}
    with pytest.raises(RuntimeError, match=r"3 of 6 tasks were lost.*\(a"):
        for number, result in gather(work.square, NUMBERS, Broken([0])):
            results[number] = result
    assert results == {1: 1, 2: 4, 3: 9}


def test_a_worker_of_another_version_is_refused(monkeypatch):
    own = _executors._versions()
    answers = iter([{**own, "snukeras": "9.9"}, own])
    monkeypatch.setattr(_executors, "_versions", lambda: next(answers))
    with pytest.raises(RuntimeError, match=r"A worker has snukeras 0.*asks has snukeras 9\.9"):
        found(work.square, NUMBERS[:1], work.Direct())


def test_a_worker_without_the_package_is_refused():
    class Without(work.Direct):
        def submit(self, function, *arguments):
            def missing():
                raise ModuleNotFoundError("No module named 'snukeras'", name="snukeras")

            return super().submit(missing)

    with pytest.raises(RuntimeError, match=r"does not have snukeras\. Install snukeras 0"):
        found(work.square, NUMBERS[:1], Without())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_worker_is_refused():
    context = multiprocessing.get_context("fork")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool,
        pytest.raises(RuntimeError, match=r"forked.*get_context\('spawn'\)"),
    ):
        found(work.square, NUMBERS, pool)


def test_a_cluster_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"snukeras\[cluster\]"), opened(cluster="tcp://a:1"):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "tcp://127.0.0.1:port", ""])
def test_a_cluster_that_does_not_answer(monkeypatch, address):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr(_executors, "_ANSWER_S", 0.3)
    closed = []
    monkeypatch.setattr(distributed.Client, "close", _noted(distributed.Client.close, closed))
    answered = pytest.raises(ConnectionError, match="No Dask scheduler answered")
    with answered as raised, opened(cluster=address):
        pass
    # By itself, while the error still holds it, and not by the garbage collector at some time.
    assert raised.value and {client.status for client in closed} == {"closed"}


def _noted(close, closed):
    def noted(client, *arguments, **options):
        closed.append(client)
        return close(client, *arguments, **options)

    return noted


# What follows starts processes, which load TensorFlow.


@pytest.mark.slow
def test_workers_share_the_tasks_and_replace_one_that_is_killed(tmp_path):
    with Workers(2) as pool:
        done = found(work.place, [(number, 0.3) for number in range(6)], pool)
        assert len({pid for _, pid in done.values()} - {os.getpid()}) == 2
        before = {pid for _, pid in done.values()}
        done = found(functools.partial(work.die_once, tmp_path), NUMBERS, pool)
        assert [done[number][0] for number in range(6)] == [*range(6)]
        # The other process was not touched.
        after = {pid for _, pid in done.values()}
        assert len(after & before) == 1 and len(after) == 2
        with pytest.raises(ValueError, match="1 is no good") as raised:
            found(work.fail, NUMBERS[1:2], pool)
        assert "In a worker" in raised.value.__notes__[0]
        with pytest.raises(AttributeError, match="local object"):
            found(lambda number: number, NUMBERS[:1], pool)
        results = {}
        with pytest.raises(RuntimeError, match=r"1 of 6 tasks.*ended 3 workers.*SIGKILL"):
            for number, result in gather(work.die, NUMBERS, pool):
                results[number] = result
        assert sorted(results) == [0, 2, 3, 4, 5]


@pytest.mark.slow
def test_the_workers_end_with_what_they_do():
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2) as pool:
        for _ in gather(work.place, [(0, 0.0), (1, 60.0), (2, 60.0), (3, 60.0)], pool):
            raise KeyboardInterrupt
    assert time.monotonic() - begun < 50
    assert not any(worker._process.is_alive() for worker in pool._started)


@pytest.mark.slow
def test_a_pool_of_the_standard_library_loses_only_what_was_not_done(tmp_path):
    results = {}
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=SPAWN) as pool,
        pytest.raises(RuntimeError, match=r"5 of 6 tasks were lost.*terminated abruptly"),
    ):
        for number, result in gather(functools.partial(work.die_once, tmp_path), NUMBERS, pool):
            results[number] = result
    assert results.keys() == {0}


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("distributed", reason="Dask is not installed")
    with work.cluster() as (address, processes):
        yield address, processes


@pytest.mark.slow
def test_a_cluster_gives_the_same_results(cluster):
    from distributed import Client

    with opened(cluster=cluster[0]) as client:
        done = found(work.place, [(number, 0.3) for number in range(6)], client)
        assert len({pid for _, pid in done.values()}) == 2
        assert found(work.times, NUMBERS, client, content=3) == {n: 3 * n for n in range(6)}
        for _ in range(2):
            with pytest.raises(ValueError, match="0 is no good"):
                found(work.fail, NUMBERS[:1], client)
    with Client(cluster[0], set_as_default=False) as client:
        assert found(work.square, NUMBERS, client.get_executor()) == {n: n * n for n in range(6)}


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker(tmp_path, cluster):
    with opened(cluster=cluster[0]) as client:
        done = found(functools.partial(work.die_once, tmp_path), NUMBERS, client)
    assert [done[number][0] for number in range(6)] == [*range(6)]
    assert len([p for p in cluster[1] if p.poll() is None]) == 2


@pytest.mark.slow
def test_a_cluster_that_ends(tmp_path):
    pytest.importorskip("distributed", reason="Dask is not installed")
    with work.cluster(1) as (address, processes), opened(cluster=address) as client:
        results = {}
        with pytest.raises(RuntimeError, match=r"tasks were lost"):
            for number, result in gather(work.place, [(n, 0.5) for n in range(4)], client):
                results[number] = result
                for process in processes:
                    process.send_signal(signal.SIGKILL)
    assert 0 in results
