"""Devices per second: python -m snukeras.pcm.benchmark --help."""

import argparse
import sys
import time


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m snukeras.pcm.benchmark",
        description="Programs and reads chips with the matrices of an 88-150-88 network and tells "
        "how many devices per second that is. If aihwkit is installed, its PCM noise model gets "
        "the same weights in the same run.",
    )
    parser.add_argument("--chips", type=int, default=100, help="number of chips (default 100)")
    parser.add_argument("--time", type=float, default=86400.0, help="s of drift (default a day)")
    arguments = parser.parse_args(argv)
    if arguments.chips < 1:
        parser.error("--chips must be at least 1")

    import numpy as np

    from snukeras.pcm import Chip, GenericPCM

    generator = np.random.default_rng(0)
    matrices = {
        "hidden": generator.normal(size=(88, 150)).astype("float32"),
        "output": generator.normal(size=(150, 88)).astype("float32"),
    }
    device = GenericPCM()

    def program_and_read(seed):
        return Chip(matrices, device, seed=seed).weights(arguments.time)

    program_and_read(0)  # imports and caches are not part of the work
    begin = time.perf_counter()
    for seed in range(arguments.chips):
        program_and_read(seed)
    ours = time.perf_counter() - begin
    devices = 2 * sum(matrix.size for matrix in matrices.values())
    print(f"chips              {arguments.chips} of {devices} devices")
    print(f"snukeras           {ours:.2f} s   {devices * arguments.chips / ours:.3g} devices/s")

    try:
        import torch
        from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
    except ImportError as error:
        print(f"aihwkit            not compared: {error}")
        return 0
    model = PCMLikeNoiseModel()
    tensors = [torch.from_numpy(matrix) for matrix in matrices.values()]
    model.apply_noise(tensors[0], arguments.time)
    begin = time.perf_counter()
    for _ in range(arguments.chips):
        for tensor in tensors:
            model.apply_noise(tensor, arguments.time)
    theirs = time.perf_counter() - begin
    print(f"aihwkit            {theirs:.2f} s   {devices * arguments.chips / theirs:.3g} devices/s")
    print(f"ratio of times     {theirs / ours:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
