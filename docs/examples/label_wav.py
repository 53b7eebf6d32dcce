"""Label a wav file as it comes, frame by frame, with nothing but NumPy and ONNX Runtime.

    snukeras-export zoo:speech_snu --target onnx --streaming --output exported
    python label_wav.py exported/model-streaming.onnx my.wav

The sound is read in pieces, as a microphone would give it. A frame goes to the network as soon as
it is whole, with the states that the frame before left; the label is that of all frames so far.
"""

import argparse
import json
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

PIECE = 400  # samples that are read at once


class Listener:
    """A streaming network that hears sound in pieces of any length."""

    def __init__(self, path: Path) -> None:
        try:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # each fault of a file has a class of its own
            raise ValueError(f"{path} cannot be read as an ONNX file: {error}") from error
        frames = self.session.get_modelmeta().custom_metadata_map.get("snukeras.frames")
        if frames is None:
            raise ValueError(
                f"{path} does not take frames of sound. Export a model that begins with LogMel, "
                "with --streaming, and give model-streaming.onnx."
            )
        self.input, cut = next(iter(json.loads(frames).items()))
        self.length, self.step, self.rate = (
            cut[key] for key in ("frame_length", "frame_step", "sampling_rate")
        )
        self.waiting = np.zeros(0, np.float32)
        self.states = {
            entry.name: np.zeros((1, entry.shape[1]), np.float32)
            for entry in self.session.get_inputs()
            if entry.name.endswith("_in")
        }

    def hear(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Take samples in [-1, 1); yield the probabilities of the labels after each whole frame."""
        self.waiting = np.concatenate([self.waiting, samples])
        while len(self.waiting) >= self.length:
            feeds = {self.input: self.waiting[None, : self.length], **self.states}
            names = [output.name for output in self.session.get_outputs()]
            results = dict(zip(names, self.session.run(names, feeds), strict=True))
            self.states = {
                name: results.pop(name.removesuffix("_in") + "_out") for name in self.states
            }
            self.waiting = self.waiting[self.step :]
            yield next(iter(results.values()))[0]


def pieces(path: Path, rate: int) -> Iterator[np.ndarray]:
    """Read a wav file in pieces, float32 in [-1, 1)."""
    convert = f"Convert it: sox {path} -r {rate} -c 1 -b 16 converted.wav"
    try:
        with wave.open(str(path)) as file:
            found = file.getframerate(), file.getnchannels(), 8 * file.getsampwidth()
            left = file.getnframes()
            if found != (rate, 1, 16):
                raise ValueError(
                    f"{path} must have {rate} samples a second, one channel and 16 bits. Received: "
                    f"{found[0]} Hz, {found[1]} channel(s), {found[2]} bits. {convert}"
                )
            if not left:
                raise ValueError(f"{path} has no samples. Record it again.")
            while content := file.readframes(PIECE):
                left -= len(content) // 2
                whole = content[: len(content) // 2 * 2]
                yield np.frombuffer(whole, "<i2").astype(np.float32) / np.float32(32768)
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise ValueError(f"{path} cannot be read as a wav file ({reason}). {convert}") from error
    if left:
        raise ValueError(f"{path} is cut short: {left} of its samples are missing.")


def main(argv: list[str] | None = None) -> int:
    """Print a line for each piece; 0 if all went well."""
    parser = argparse.ArgumentParser(description="Label a wav file as it comes.")
    parser.add_argument("model", type=Path, help="model-streaming.onnx of an export")
    parser.add_argument("wav", type=Path)
    given = parser.parse_args(argv)
    try:
        listener = Listener(given.model)
        heard = 0
        for piece in pieces(given.wav, listener.rate):
            heard += len(piece)
            for chances in listener.hear(piece):
                latest = chances
            if heard >= listener.length:
                label = int(np.argmax(latest))
                print(f"{heard / listener.rate:5.2f} s: {label} ({100 * latest[label]:.0f} %)")
        if heard < listener.length:
            raise ValueError(
                f"{given.wav} has {heard} samples, and a frame takes {listener.length}. Add "
                "silence."
            )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
