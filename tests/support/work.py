"""Tasks for workers, and a Dask cluster on loopback. A function that a worker calls must be in a
module that it can import, which a test's own is not."""

import concurrent.futures
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import keras

from snukeras.pcm import GenericPCM

ROOT = Path(__file__).resolve().parents[2]


def square(number):
    return number * number


def times(content, number):
    return content * number


def twice(seed):
    return {"twice": 2 * seed}


def place(number, seconds=0.0):
    time.sleep(seconds)
    return number, os.getpid()


def die_once(folder, number):
    """Kill the process of task 1, unless this was done before; say where each task was done."""
    mark = Path(folder) / "died"
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return number, os.getpid()


def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number):
    raise ValueError(f"{number} is no good")


@keras.saving.register_keras_serializable("tests")
class DeadlyPCM(GenericPCM):
    """A device that kills the process that programs it, unless this was done before."""

    def __init__(self, folder, **arguments):
        super().__init__(**arguments)
        self.mark = Path(folder) / "died"

    def get_config(self):
        return {**super().get_config(), "folder": str(self.mark.parent)}

    def program(self, target, seed=None):
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().program(target, seed)


class Direct:
    """An executor that does each task at once, but for those that it loses."""

    def __init__(self, lost=()):
        self.lost = lost
        self.futures = []
        self.arguments = []

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        number = len(self.futures)
        self.futures.append(future)
        self.arguments.append(arguments)
        if number in self.lost:
            future.set_exception(BrokenProcessPool("a process died"))
            return future
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def environment():
    paths = (str(ROOT), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def started(*arguments, says, **changed):
    """Start a process of Dask; return it, and what `says` finds in its log."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**environment(), **changed},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stderr:
        found = re.search(says, line)
        if found:
            return process, found[0]
    raise AssertionError(f"{arguments} ended with {process.wait()}")


@contextlib.contextmanager
def cluster(workers=2, **changed):
    """Yield address and worker processes of a cluster; each worker takes one task at a time."""
    command = "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"
    scheduler, address = started(*command, "--host", "127.0.0.1", says=r"tcp://127\.0\.0\.1:\d+")
    processes = [scheduler]
    try:
        for _ in range(workers):
            options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
            worker, _ = started(
                "distributed.cli.dask_worker", address, *options, says="Registered to", **changed
            )
            processes.append(worker)
        yield address, processes
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
            process.stderr.close()
