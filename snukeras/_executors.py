"""Hand independent tasks to an executor: processes of this machine, or a cluster.

An executor is whatever has the `submit` of `concurrent.futures.Executor`: its pools, those of
mpi4py and loky, `distributed.Client.get_executor()`, and the client of Dask itself. Chips, seeds,
trials and cases of experiments all go through `gather`.
"""

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

import snukeras

# How often a task is given to a new worker after it lost one.
_ATTEMPTS = 3
# Seconds in which the scheduler of a cluster has to answer.
_ANSWER_S = 10
# A process that was forked from one with this module has its number still.
_IMPORTED_IN = os.getpid()
# A model belongs to one thread at a time.
_ONE_AT_A_TIME = threading.Lock()
_ALONE = "from snukeras._executors import answer_alone; answer_alone()"


class Executor(Protocol):
    """What `concurrent.futures.Executor` and all that resemble it can do."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Return a future of what the function returns."""


class WorkerDied(concurrent.futures.BrokenExecutor):
    """A task was lost with each worker that tried it."""


def checked(executor: Any) -> Any:
    """Return an executor, or None, as it was given.

    Raises:
        ValueError: It is neither.
    """
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ValueError(
            "Argument `executor` must be None or have a method submit(function, *arguments), as "
            f"concurrent.futures.Executor has. Received: {executor!r}"
        )
    return executor


def gather(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    executor: Executor | None = None,
    content: Any = None,
    seeded: bool = False,
) -> Generator[tuple[int, Any], None, None]:
    """Call a function with the arguments of each task; yield number and result as they are done.

    Where a worker dies and its executor cannot replace it, the results of all others come first.
    What is not done when the caller stops is cancelled.

    Args:
        function: Of a module that workers can import.
        tasks: The arguments of each call.
        executor: Where to call it. Default: here, one task after the other.
        content: What all calls share, before the arguments of the task; None for nothing. Dask's
            client sends it to a worker once.
        seeded: Whether the function seeds Keras, whose generators are those of the whole process.
            A worker whose threads share a process, as one of Dask, then starts one for each task.

    Raises:
        ValueError: The executor is none.
        RuntimeError: Tasks were lost with their workers, or a worker has other versions of
            snukeras, Keras or the backend than this process.
        Exception: Whatever the function raises.
    """
    checked(executor)
    shared = () if content is None else (content,)
    if executor is None:
        for number, task in enumerate(tasks):
            yield number, function(*shared, *task)
        return
    if shared and hasattr(executor, "scatter"):
        with warnings.catch_warnings():
            # Of large arguments; scattered ones would be lost with the worker that holds them.
            warnings.simplefilter("ignore", UserWarning)
            shared = (executor.submit(_same, shared[0]),)
    # Dask takes equal calls for one: without a name of its own, a call that failed fails for ever.
    call = (function, uuid.uuid4().hex, _versions())
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    futures: dict[int, Any] = {}
    lost: list[BaseException] = []
    try:
        for number, task in enumerate(tasks):
            try:
                futures[number] = executor.submit(_run, *call, seeded, *shared, *task)
            except concurrent.futures.BrokenExecutor as error:
                lost.append(error)
        for number, future in futures.items():
            future.add_done_callback(_putting(done, number))
        while futures:
            number = done.get()
            try:
                result = futures.pop(number).result()
            except Exception as error:
                if not _is_loss(error):
                    raise _explained(error) from error.__cause__
                lost.append(error)
            else:
                yield number, result
    finally:
        for future in futures.values():
            future.cancel()
    if lost:
        raise RuntimeError(
            f"{len(lost)} of {len(tasks)} tasks were lost with their workers "
            f"({' '.join(str(lost[0]).split()) or type(lost[0]).__name__}). What is done is kept "
            "where it goes to a file: run the same again, and it goes on."
        ) from lost[0]


def _putting(done: "queue.SimpleQueue[int]", number: int) -> Callable[[Any], None]:
    return lambda future: done.put(number)


def _is_loss(error: BaseException) -> bool:
    """Return whether a future failed since its worker, or all of the executor, is gone."""
    gone = (concurrent.futures.BrokenExecutor, concurrent.futures.CancelledError)
    # Those of Dask, which need not be installed.
    return isinstance(error, gone) or type(error).__name__ in (
        "KilledWorker",
        "FutureCancelledError",
    )


def _explained(error: Exception) -> Exception:
    """Return an error of a worker, in a sentence where it is that snukeras is missing there."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "snukeras":
        return RuntimeError(
            f"A worker does not have {error.name}. Install snukeras {snukeras.__version__} there."
        )
    return error


def _same(content: Any) -> Any:
    return content


def _versions() -> dict[str, str]:
    """Return the versions that figures depend on, the backend's among them."""
    import keras

    backend = keras.backend.backend()
    return {
        "snukeras": snukeras.__version__,
        "keras": str(keras.__version__),
        backend: str(getattr(sys.modules.get(backend), "__version__", "")),
    }


def _run(
    function: Callable[..., Any],
    call: str,
    versions: dict[str, str],
    seeded: bool,
    /,
    *arguments: Any,
) -> Any:
    """Call a function on a worker.

    Raises:
        RuntimeError: The worker was forked, or has other versions than the process that asks.
    """
    if os.getpid() != _IMPORTED_IN:
        raise RuntimeError(
            "A worker was forked from a process that has loaded its backend, which would hang "
            "there. Give the pool mp_context=multiprocessing.get_context('spawn')."
        )
    own = _versions()
    if own != versions:
        raise RuntimeError(
            f"A worker has {_listed(own)}; the process that asks has {_listed(versions)}. Their "
            "results would not compare: install the same versions on both."
        )
    if seeded and threading.current_thread() is not threading.main_thread():
        return _alone(function, arguments)
    with _ONE_AT_A_TIME:
        return function(*arguments)


def _alone(function: Callable[..., Any], arguments: tuple) -> Any:
    """Call a function in a process of its own, which ends with this one.

    Other threads of this process draw from the generator of Python that Keras takes seeds from:
    those of Dask do so for every message.
    """
    try:
        import cloudpickle  # for functions of scripts; Dask has it
    except ImportError:
        cloudpickle = pickle
    with tempfile.TemporaryDirectory() as folder:
        answer = os.path.join(folder, "answer")
        sent = pickle.dumps((sys.path, answer, cloudpickle.dumps((function, arguments))))
        with subprocess.Popen([sys.executable, "-c", _ALONE], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            with contextlib.suppress(OSError):  # it has ended already
                process.stdin.write(len(sent).to_bytes(8, "big") + sent)
                process.stdin.flush()
            code = process.wait()
        if not os.path.exists(answer):
            raise WorkerDied(f"a task ended its process by {_ending(code)}")
        with open(answer, "rb") as file:
            fine, result = pickle.load(file)
    if fine:
        return result
    raise result


def answer_alone() -> None:
    """Answer the call that `_alone` writes to the standard input, and end when that is closed."""
    length = int.from_bytes(sys.stdin.buffer.read(8), "big")
    paths, answer, call = pickle.loads(sys.stdin.buffer.read(length))
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
    sys.path[:] = paths
    found = _answered(call)
    with open(answer, "wb") as file:
        file.write(found)


def _answered(call: bytes) -> bytes:
    """Return True and the result of a call, or False and its exception."""
    try:
        function, arguments = pickle.loads(call)
        return pickle.dumps((True, function(*arguments)))
    except Exception as error:
        error.add_note(f"In a worker:\n{traceback.format_exc()}")
        try:
            return pickle.dumps((False, error))
        except Exception:
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}".rstrip() for name, version in versions.items())


class Workers(concurrent.futures.Executor):
    """Processes of this machine, each on its own: where one dies, a new one takes its task again.

    The pool of the standard library ends all its processes when one dies.
    """

    def __init__(self, count: int) -> None:
        """Start no process yet.

        Args:
            count: How many tasks are done at a time; the cores are shared out evenly.
        """
        self._threads = concurrent.futures.ThreadPoolExecutor(count)
        self._cores = max(1, _cores() // count)
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._started: list[_Worker] = []
        self._closed = False
        for _ in range(count):
            self._idle.put(None)

    def submit(  # type: ignore[override]
        self, function: Callable[..., Any], /, *arguments: Any
    ) -> "concurrent.futures.Future[Any]":
        """Return the future of a call in one of the processes."""
        return self._threads.submit(self._call, function, arguments)

    def _call(self, function: Callable[..., Any], arguments: tuple) -> Any:
        worker = self._idle.get()
        try:
            for _ in range(_ATTEMPTS):
                if worker is None:
                    worker = self._start()
                try:
                    fine, result = worker.call(function, arguments)
                except (EOFError, OSError):
                    ended = worker.end(grace=1.0)
                    worker = None
                    if self._closed:
                        raise WorkerDied("the workers were shut down") from None
                    continue
                if fine:
                    return result
                raise result
            raise WorkerDied(
                f"a task ended {_ATTEMPTS} workers, the last one by {ended}; where memory is "
                "short, take fewer workers"
            )
        finally:
            self._idle.put(worker)

    def _start(self) -> "_Worker":
        worker = _Worker(self._cores)
        self._started.append(worker)
        if self._closed:
            worker.end()
        return worker

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:
        """End the processes, whatever they do."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._started:
            worker.end()
        self._threads.shutdown(wait=wait)


class _Worker:
    """A process that waits for calls."""

    def __init__(self, cores: int) -> None:
        # TensorFlow does not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._connection, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, cores), daemon=True)
        self._process.start()
        far.close()
        self._ready = False

    def call(self, function: Callable[..., Any], arguments: tuple) -> tuple[bool, Any]:
        """Return True and the result of a call, or False and its exception.

        Raises:
            EOFError, OSError: The process is gone.
            RuntimeError: It could not start.
        """
        sent = pickle.dumps((function, arguments))
        if not self._ready:
            try:
                self._connection.recv()
            except EOFError:
                raise RuntimeError(
                    "The workers cannot start. A script that asks for workers needs "
                    '`if __name__ == "__main__":` around what it does, since each worker imports '
                    "it."
                ) from None
            self._ready = True
        self._connection.send_bytes(sent)
        fine, result = pickle.loads(self._connection.recv_bytes())
        return fine, result

    def end(self, grace: float = 0.0) -> str:
        """End the process if it has not ended after so many seconds; say how it did."""
        self._process.join(grace)
        self._process.terminate()
        self._process.join()
        return _ending(self._process.exitcode or 0)


def _ending(code: int) -> str:
    """Say how a process ended."""
    return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"


def _serve(connection: Any, cores: int) -> None:
    """Answer calls until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends its workers
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, str(cores))
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several share a GPU
    with contextlib.suppress(EOFError, OSError):
        connection.send(True)
        while True:
            connection.send_bytes(_answered(connection.recv_bytes()))


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --workers and --cluster to a command that has independent tasks."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="processes of this machine that share the work (default: 1)",
    )
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="scheduler of a Dask cluster that does it, such as tcp://node1:8786",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 1024 or len(text) > 9:
        raise argparse.ArgumentTypeError(
            f"a number of workers is an integer from 1 to 1024, not {text[:40]!r}"
        )
    return int(text)


@contextlib.contextmanager
def opened(workers: int | None = None, cluster: str | None = None) -> Iterator[Executor | None]:
    """Yield the executor that a command was asked for: None for this process alone.

    Args:
        workers: Number of processes.
        cluster: Address of the scheduler of a Dask cluster.

    Raises:
        ImportError: Dask is not installed.
        ConnectionError: No scheduler answers at the address.
    """
    if cluster is not None:
        with _client(cluster) as client:
            yield client
    elif workers is None or workers == 1:
        yield None
    else:
        with Workers(workers) as pool:
            yield pool


@contextlib.contextmanager
def _client(address: str) -> Iterator[Any]:
    """Connect to the scheduler of a Dask cluster."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "A cluster needs the package distributed: pip install 'snukeras[cluster]'."
        ) from error

    class Closed(Client):
        """A client that is closed where it fails.

        Otherwise the garbage collector closes it, and where that happens while another client
        starts, both wait for the same lock.
        """

        def __init__(self, address: str) -> None:
            try:
                super().__init__(address, timeout=_ANSWER_S, set_as_default=False)
            except Exception:
                with contextlib.suppress(AttributeError):  # it failed before it had a loop
                    self.close()
                raise

    try:
        client = Closed(address)
    except (OSError, ValueError, TypeError) as error:
        raise ConnectionError(
            f"No Dask scheduler answered at {address!r} within {_ANSWER_S} s. Give the address "
            "that `dask scheduler` prints, such as tcp://node1:8786, and see that this machine "
            f"reaches it. ({' '.join(str(error).split())})"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            print(
                f"{address} has no workers yet; the tasks wait for them (dask worker {address})",
                file=sys.stderr,
                flush=True,
            )
        yield client
