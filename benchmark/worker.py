"""A process that runs the contestants of one framework, and the handle on it.

The parent writes one request per line, as JSON, and reads one reply per line. Between requests the
process sleeps, so that the contestants of other processes have the processor to themselves.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmark import accelerators
from benchmark.contestants import Contestant
from benchmark.networks import Network

_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
_DEVICES = {
    # Where the processor is measured, all run on it: a GPU would serve some and not others.
    "cpu": {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"},
    # The processes of several frameworks share the memory of a GPU.
    "gpu": {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


class WorkerError(RuntimeError):
    """A request failed in the worker; the message is that of the error there."""


class Worker:
    """Handle on a process that runs contestants.

    Args:
        framework: "tensorflow", "torch", "jax", "keras-torch" or "keras-jax".
        threads: "one" or "all". One thread is one processor: where the system lets a process be
            bound to processors, all of its threads share one, whatever the framework does.
        device: "cpu", or "gpu" for what GPU the framework sees.
    """

    def __init__(self, framework: str, threads: str, device: str = "cpu"):
        environment = {**os.environ, **_ENVIRONMENT, **_DEVICES[device]}
        environment |= _ONE_THREAD if threads == "one" else {}
        if framework.startswith("keras-"):
            environment["KERAS_BACKEND"] = framework.removeprefix("keras-")
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in close)
        with _bound_to_one_processor() if threads == "one" else contextlib.nullcontext():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmark.worker", framework],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                text=True,
            )

    def ask(self, request: str, **arguments: Any) -> Any:
        """Send a request and return the reply.

        Raises:
            WorkerError: The request failed there, or the process died.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"request": request, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:] or ["no message"]
            raise WorkerError(f"the process ended (code {self._process.wait()}): {last[0]}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["result"]

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        if self.alive:
            self._process.terminate()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _bound_to_one_processor() -> Iterator[None]:
    """Bind this thread to one processor, which a process started meanwhile inherits."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class _Bench:
    """What a worker can be asked to do: each public method is a request."""

    def __init__(self, framework: str):
        homes = {"tensorflow": "in_keras", "torch": "in_torch", "jax": "in_jax"}
        home = homes.get(framework, "in_keras_elsewhere")
        self._framework, self._module = framework, importlib.import_module(f"benchmark.{home}")
        self._steps: dict[int, Any] = {}

    def prepare(
        self,
        key: int,
        contestant: dict,
        network: dict,
        work: str,
        optimizer: str,
        rate: float,
        learn: int,
        burst: float,
    ) -> dict:
        """Build a contestant, let it learn for some steps, and time these.

        Returns:
            The loss before and after (None for inference), and how many steps fill a burst of
            `burst` seconds.
        """
        step = self._module.build(
            Contestant(**contestant), Network.from_json(network), work, optimizer, rate
        )
        self._steps[key] = step
        first = self._loss(step) if work == "train" else None
        self._run(step, 2)
        seconds = self._run(step, max(3, learn)) / max(3, learn)
        last = self._loss(step) if work == "train" else None
        return {"losses": [first, last], "steps": max(1, round(burst / max(seconds, 1e-6)))}

    def burst(self, key: int, steps: int) -> float:
        """Run some steps and return the seconds that one took; one before them is not counted."""
        step = self._steps[key]
        self._run(step, 1)
        return self._run(step, steps) / steps

    def accelerator(self) -> str | None:
        """Return the name of the GPU that the framework sees, or None."""
        return accelerators.found(self._framework)

    def forget(self) -> None:
        """Drop all contestants."""
        self._steps.clear()

    def peak(self, contestant: dict, network: dict, arguments: dict) -> int:
        """Return the peak memory of this process after some training, in bytes."""
        self._module.train_a_little(Contestant(**contestant), Network.from_json(network), arguments)
        return peak_bytes()

    def stored(self, contestant: dict, network: dict) -> int | None:
        """Return the bytes that the first layer keeps for its backward pass."""
        return self._module.stored_bytes(Contestant(**contestant), Network.from_json(network))

    def _run(self, step: Any, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            result = step()
        self._module.wait(result)
        return time.perf_counter() - start

    def _loss(self, step: Any) -> float:
        if hasattr(step, "reset"):
            step.reset()
        return self._module.value(step())


def peak_bytes() -> int:
    """Return the largest memory that this process has had so far, in bytes."""
    # On Linux the figure of getrusage may be that of the parent, before it became this process.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(framework: str) -> None:
    """Serve requests until the standard input ends."""
    # Replies go out on a stream of their own: libraries print what they please to the other.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    bench = None
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            bench = bench or _Bench(framework)
            reply = {"result": getattr(bench, arguments.pop("request"))(**arguments)}
        except Exception as error:  # whatever a library raises is the answer
            words = " ".join(str(error).split())[:500]
            reply = {"error": f"{type(error).__name__}: {words}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
