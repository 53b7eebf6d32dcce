"""Sound as log-mel spectra: what reaches a network of spiking units, frame by frame."""

from typing import Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments, _strategy
from snukeras._arguments import LayerArguments
from snukeras._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="snukeras")
class LogMel(keras.layers.Layer):
    """Log-mel spectra of a sound, in frames that overlap.

    A frame of `frame_length` samples is weighted by a Hann window; the power of its spectrum is
    summed in bands that are triangles on the mel scale, those of `keras.layers.MelSpectrogram`.
    The output is log(1 + power / floor), which is 0 for silence and grows by 2.3 for 10 dB.

    A frame depends on its own samples alone, so the layer can stream: `MelSpectrogram` itself pads
    by the samples' mirror image, and its decibels depend on the loudest frame of the whole batch.
    There are no weights. The layer exports to ONNX, as the operator STFT.

    Args:
        bands: positive integer, number of mel bands.
        sampling_rate: samples a second of the input.
        frame_length: samples of a frame, a positive integer.
        frame_step: samples from one frame to the next, a positive integer.
        low: lower edge of the lowest band in Hz, at least 0.
        high: upper edge of the highest band in Hz; default: half the sampling rate.
        floor: positive number, the power of a band that counts as next to silence. A sine of
            amplitude A has a power of (A * frame_length / 4)^2 in its band.

    Call arguments:
        inputs: samples in [-1, 1], shape (batch, samples), at least `frame_length` of them.

    Returns:
        Shape (batch, frames, bands), with `1 + (samples - frame_length) // frame_step` frames.

    Raises:
        ValueError: an argument is outside what is allowed, or a band holds no frequency of the
            spectrum; the message names it.

    Example:

        model = keras.Sequential([
            keras.Input((None,)),
            snukeras.layers.LogMel(40),
            keras.layers.BatchNormalization(),
            snukeras.layers.SNU(128, return_sequences=True),
        ])
    """

    def __init__(
        self,
        bands: int = 40,
        sampling_rate: int = 8000,
        frame_length: int = 256,
        frame_step: int = 80,
        low: float = 20.0,
        high: float | None = None,
        floor: float = 0.001,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(**_arguments.of_keras(type(self), kwargs))
        self.bands = _arguments.whole("bands", bands)
        self.sampling_rate = _arguments.whole("sampling_rate", sampling_rate)
        self.frame_length = _arguments.whole("frame_length", frame_length)
        self.frame_step = _arguments.whole("frame_step", frame_step)
        self.high = high
        top = sampling_rate / 2 if high is None else high
        low, top = _arguments.number("low", low), _arguments.number("high", top)
        if not 0 <= low < top <= sampling_rate / 2:
            raise ValueError(
                "Arguments `low` and `high` must be frequencies with 0 <= low < high <= "
                f"sampling_rate / 2 = {sampling_rate / 2:g} Hz. "
                f"Received: low={low!r}, high={high!r}"
            )
        self.low = float(low)
        self.floor = _arguments.number("floor", floor, above=0.0)
        self.mel_matrix = self._mel_matrix(top)
        """float32 (frame_length // 2 + 1, bands), from powers to bands."""

    def _mel_matrix(self, top: float) -> np.ndarray:
        # The filters do not depend on the other arguments of MelSpectrogram.
        matrix = keras.layers.MelSpectrogram(dtype="float32").linear_to_mel_weight_matrix(
            num_mel_bins=self.bands,
            num_spectrogram_bins=self.frame_length // 2 + 1,
            sampling_rate=self.sampling_rate,
            lower_edge_hertz=self.low,
            upper_edge_hertz=top,
        )
        matrix = ops.convert_to_numpy(matrix)
        empty = [band for band in range(self.bands) if not matrix[:, band].any()]
        if empty:
            raise ValueError(
                f"Band {empty[0]} of `bands`={self.bands} is narrower than the spectrum's step of "
                f"{self.sampling_rate / self.frame_length:.3g} Hz, so it would be silent for good. "
                "Take fewer bands, a longer `frame_length`, or a higher `low`."
            )
        return matrix

    def build(self, input_shape: Shape) -> None:
        self._check_shape(input_shape)
        self.built = True

    def _check_shape(self, input_shape: Shape) -> None:
        if len(input_shape) != 2 or (
            input_shape[1] is not None and input_shape[1] < self.frame_length
        ):
            raise ValueError(
                f"{type(self).__name__} takes samples of shape (batch, samples), at least "
                f"{self.frame_length} of them, a frame. Received: input_shape="
                f"{tuple(input_shape)}. Pad shorter sounds with zeros."
            )

    def call(self, inputs: Tensor) -> Tensor:
        # The layer may have been built for any length; of no frame there would be no mean.
        self._check_shape(inputs.shape)
        # Half precision has neither the range nor the FFT.
        exact = "float64" if self.compute_dtype == "float64" else "float32"
        samples = ops.cast(inputs, exact)
        # Converters to these formats know neither the FFT nor log1p.
        portable = _strategy.exporting() in ("onnx", "litert", "openvino")
        if portable:
            power = self._power_by_products(samples)
        else:
            real, imaginary = ops.stft(
                samples,
                sequence_length=self.frame_length,
                sequence_stride=self.frame_step,
                fft_length=self.frame_length,
                window="hann",
                center=False,
            )
            power = ops.square(real) + ops.square(imaginary)
        bands = ops.matmul(power, ops.cast(self.mel_matrix, exact))
        above = bands / self.floor
        return ops.cast(ops.log(1.0 + above) if portable else ops.log1p(above), self.compute_dtype)

    def _power_by_products(self, samples: Tensor) -> Tensor:
        """Return the powers (batch, frames, frequencies) by a convolution, for what has no FFT."""
        # Not at the top: all other layers do without SciPy.
        from scipy.signal import get_window

        window = get_window("hann", self.frame_length)
        spectrum = np.fft.rfft(np.eye(self.frame_length) * window)
        kernel = np.concatenate([spectrum.real, spectrum.imag], axis=1)[:, None]
        parts = ops.conv(
            ops.expand_dims(samples, -1),
            ops.cast(kernel, samples.dtype),
            strides=self.frame_step,
            padding="valid",
        )
        real, imaginary = ops.split(parts, 2, axis=-1)
        return ops.square(real) + ops.square(imaginary)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, samples = input_shape
        frames = None if samples is None else 1 + (samples - self.frame_length) // self.frame_step
        return (batch, frames, self.bands)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "bands": self.bands,
            "sampling_rate": self.sampling_rate,
            "frame_length": self.frame_length,
            "frame_step": self.frame_step,
            "low": self.low,
            "high": self.high,
            "floor": self.floor,
        }
