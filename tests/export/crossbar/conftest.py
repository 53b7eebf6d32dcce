"""The readers of maps that stand beside the package: of NumPy alone, and in C99."""

import importlib.util
import subprocess

import pytest

from snukeras._content import folder
from snukeras.export.c import compiler

READERS = folder("export") / "readers"
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-I", str(READERS)]


@pytest.fixture(scope="session")
def reader():
    spec = importlib.util.spec_from_file_location("snumap_reader", READERS / "snumap_reader.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Compiles a C file, watched by the sanitisers where there are any."""
    if compiler.find() is None:
        pytest.skip("there is no C compiler")

    def program(source):
        found = tmp_path_factory.mktemp("c") / source.stem
        command = [compiler.find(), *FLAGS, str(source), "-o", str(found)]
        watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        if subprocess.run([*command, *watched], capture_output=True).returncode:
            subprocess.run(command, check=True)  # a compiler without sanitisers
        return found

    return program


@pytest.fixture(scope="session")
def dump(build):
    return build(READERS / "snumap_dump.c")
