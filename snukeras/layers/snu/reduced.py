"""Kernels of units in fewer bits, and with low-rank additions: what Keras has for Dense.

A cell holds W and H as float variables, until it is quantised or adapted. `kernel` and
`recurrent_kernel` are what it computes with: the variable itself, or a tensor made of what is held.
"""

import math
from typing import Any

import keras
from keras import ops

from snukeras._types import Constraint, Initializer, Regularizer, Shape, Tensor

_MODES = ("int8", "int4")
_ROLES = ("kernel", "recurrent_kernel")
_RANGES = {"int8": (-127, 127), "int4": (-8, 7)}


class ReducedKernels:
    """Part of a cell: its kernel and recurrent kernel.

    A quantised kernel is held as integers, rows by units, with a scale for each unit (filter), or
    for each unit in blocks of rows (int4 with a block size). Inputs and states stay in floating
    point: spikes are exact in any number of bits.

    Attributes:
        lora_enabled: whether low-rank matrices are added to the kernels.
        lora_rank, lora_alpha: their rank, and the numerator of their factor alpha / rank.
    """

    lora_enabled = False
    lora_rank = 0
    lora_alpha = 0.0
    # From Keras.
    add_weight: Any
    built: bool
    dtype_policy: Any
    name: str
    quantization_mode: str | None
    weights: list[Any]
    _tracker: Any

    @property
    def kernel(self) -> keras.Variable | Tensor:
        """W: a variable, or a tensor where it is quantised or adapted."""
        return self._matrix("kernel")

    @kernel.setter
    def kernel(self, variable: Any) -> None:
        self._kernel = variable

    @property
    def recurrent_kernel(self) -> keras.Variable | Tensor | None:
        """H: a variable, a tensor where it is quantised or adapted, or None."""
        return self._matrix("recurrent_kernel")

    @recurrent_kernel.setter
    def recurrent_kernel(self, variable: Any) -> None:
        self._recurrent_kernel = variable

    def held(self, role: str) -> list[Any]:
        """Return the variables that "kernel" or "recurrent_kernel" is made of."""
        names = [f"_{role}", *(role + end for end in ("_scale", "_zero", "_lora_a", "_lora_b"))]
        found = (getattr(self, name, None) for name in names)
        return [variable for variable in found if variable is not None]

    def _matrix(self, role: str) -> Any:
        value = getattr(self, f"_{role}", None)
        if value is None:
            return None
        if getattr(self, f"{role}_scale", None) is not None:
            value = self._dequantized(role)
        if self.lora_enabled:
            value = ops.add(value, self._addition(role))
        return value

    def _addition(self, role: str) -> Tensor:
        """Return what LoRA adds to a kernel."""
        a, b = getattr(self, f"{role}_lora_a"), getattr(self, f"{role}_lora_b")
        product = ops.matmul(a, b) * (self.lora_alpha / self.lora_rank)
        return ops.reshape(product, self._shapes()[role])

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return self._kernel_shapes

    def add_kernel(
        self,
        role: str,
        shape: tuple[int, ...],
        initializer: Initializer,
        regularizer: Regularizer,
        constraint: Constraint,
    ) -> None:
        """Add the variable of "kernel" or "recurrent_kernel"; of integers by an int8 policy."""
        self._kernel_shapes = {**getattr(self, "_kernel_shapes", {}), role: tuple(shape)}
        if self.quantization_mode is not None:
            self._check_mode(self.quantization_mode)
            self._add_integers(role, self.quantization_mode, self._block_size())
            return
        variable = self.add_weight(
            shape=shape,
            name=role,
            initializer=initializer,
            regularizer=regularizer,
            constraint=constraint,
        )
        setattr(self, role, variable)

    def _block_size(self) -> int | None:
        """Return the rows of a block that the dtype policy names, or None."""
        size = getattr(self.dtype_policy, "block_size", None)
        return size if size is not None and size > 0 else None

    def _check_mode(self, mode: str) -> None:
        if mode not in _MODES:
            raise NotImplementedError(
                f"Cells of units such as {self.name!r} quantise to one of {_MODES}. "
                f"Received: mode={mode!r}, which Keras offers to Dense and EinsumDense alone."
            )

    def quantized_build(self, input_shape: Shape, mode: str) -> None:
        """Nothing is left to do: `build` adds what a quantised cell has."""

    def quantize(
        self, mode: str | None = None, type_check: bool = True, config: Any = None
    ) -> None:
        """Hold the kernels in int8 or int4; see `keras.layers.Dense.quantize`.

        Args:
            mode: "int8" or "int4".
            type_check: as in Keras; subclasses are quantised too.
            config: a `keras.quantizers.Int8QuantizationConfig` or `Int4QuantizationConfig`.

        Raises:
            NotImplementedError: another mode.
            ValueError: the config has an activation quantizer of its own.
        """
        mode = mode or getattr(config, "mode", None) or ""
        self._check_mode(mode)
        _check_config(mode, config)
        block = getattr(config, "block_size", None) if mode == "int4" else None
        block = block if block is not None and block > 0 else None
        quantizer = getattr(config, "weight_quantizer", None)
        for role in _ROLES:
            variable = getattr(self, f"_{role}", None)
            if variable is None:
                continue
            integers = _integers(self._rows(role, variable), mode, block, quantizer)
            delattr(self, f"_{role}")
            self._add_integers(role, mode, block)
            self._assign(role, integers)
        if self.dtype_policy.quantization_mode is None:
            name = mode if mode == "int8" or not _has_blocks() else f"int4/{block or -1}"
            policy = f"{name}_from_{self.dtype_policy.name}"
            self._is_quantized = True
            self.dtype_policy = keras.dtype_policies.get(policy)

    def _rows(self, role: str, value: Any) -> Tensor:
        """Return a kernel as a matrix, rows by units."""
        return ops.reshape(ops.convert_to_tensor(value), (-1, self._shapes()[role][-1]))

    def _add_integers(self, role: str, mode: str, block: int | None) -> None:
        shape = self._shapes()[role]
        rows, units = math.prod(shape[:-1]), shape[-1]
        columns = (units + 1) // 2 if mode == "int4" else units
        scales = (units,) if block is None else (math.ceil(rows / block), units)

        def add(name: str, size: tuple[int, ...], dtype: str | None, start: str) -> Any:
            return self.add_weight(
                name=name, shape=size, dtype=dtype, initializer=start, trainable=False
            )

        setattr(self, role, add(role, (rows, columns), "int8", "zeros"))
        setattr(self, f"{role}_scale", add(f"{role}_scale", scales, None, "ones"))
        if block is not None:
            setattr(self, f"{role}_zero", add(f"{role}_zero", scales, "int8", "zeros"))
        self._is_quantized = True

    def _assign(self, role: str, integers: tuple[Any, Any, Any]) -> None:
        for name, value in zip(
            (f"_{role}", f"{role}_scale", f"{role}_zero"), integers, strict=True
        ):
            if value is not None:
                getattr(self, name).assign(value)

    def _dequantized(self, role: str) -> Tensor:
        shape = self._shapes()[role]
        scale = ops.convert_to_tensor(getattr(self, f"{role}_scale"))
        integers = ops.convert_to_tensor(getattr(self, f"_{role}"))
        if self.quantization_mode == "int4":
            integers = keras.quantizers.unpack_int4(integers, shape[-1], axis=-1)
        values = ops.cast(integers, scale.dtype)
        zero = getattr(self, f"{role}_zero", None)
        if zero is None:
            values = values / scale
        else:
            rows = math.prod(shape[:-1])
            groups = ops.arange(rows) // self._block_size()
            shift = ops.cast(ops.take(zero, groups, axis=0), scale.dtype)
            values = (values - shift) * ops.take(scale, groups, axis=0)
        return ops.reshape(values, shape)

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Initializer = "he_uniform",
        b_initializer: Initializer = "zeros",
    ) -> None:
        """Freeze the kernels and add products A B of low rank, which train instead.

        Saving the layer merges them into the kernels (Hu et al., ICLR 2022).

        Args:
            rank: columns of A and rows of B.
            lora_alpha: the products are multiplied by lora_alpha / rank; default: `rank`.
            a_initializer, b_initializer: of A and B.

        Raises:
            ValueError: the cell is not built, has LoRA already, or constrains its kernels.
        """
        if not self.built:
            raise ValueError(f"Layer {self.name!r} must be built before LoRA is enabled.")
        if self.lora_enabled:
            raise ValueError(f"Layer {self.name!r} has LoRA already; it can be enabled once.")
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ValueError(
                f"Argument `rank` must be an integer of at least 1. Received: rank={rank!r}"
            )
        for name in ("kernel_constraint", "recurrent_constraint"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"LoRA changes kernels that `{name}` of layer {self.name!r} would not see. "
                    f"Leave `{name}` out."
                )
        # Keras locks what is built, and opens it to its own layers alone.
        self._tracker.unlock()
        for role in _ROLES:
            variable = getattr(self, f"_{role}", None)
            if variable is None:
                continue
            shape = self._shapes()[role]
            sizes = {"a": (math.prod(shape[:-1]), rank), "b": (rank, shape[-1])}
            for part, start in (("a", a_initializer), ("b", b_initializer)):
                name = f"{role}_lora_{part}"
                weight = self.add_weight(
                    name=name, shape=sizes[part], initializer=start, dtype="float32"
                )
                setattr(self, name, weight)
            variable.trainable = False
        self._tracker.lock()
        self.lora_enabled, self.lora_rank = True, rank
        self.lora_alpha = float(rank if lora_alpha is None else lora_alpha)

    def save_own_variables(self, store: Any) -> None:
        """Save like Keras, LoRA merged."""
        if not self.lora_enabled and self.quantization_mode is None:
            super().save_own_variables(store)  # type: ignore[misc]
            return
        for index, (name, variable) in enumerate(self._saved()):
            role = name.removeprefix("_").removesuffix("_scale").removesuffix("_zero")
            value = variable
            if self.lora_enabled and role in _ROLES:
                value = self._merged(role)[name]
            store[str(index)] = value

    def load_own_variables(self, store: Any) -> None:
        """Load like Keras; what LoRA adds starts anew at zero."""
        if not self.lora_enabled and self.quantization_mode is None:
            super().load_own_variables(store)  # type: ignore[misc]
            return
        saved = self._saved()
        if len(store.keys()) != len(saved):
            raise ValueError(
                f"Layer {self.name!r} expected {len(saved)} variables ("
                f"{', '.join(name.removeprefix('_') for name, _ in saved)}). "
                f"Received: {len(store.keys())} variables"
            )
        for index, (_, variable) in enumerate(saved):
            variable.assign(store[str(index)])
        for role in _ROLES:
            second = getattr(self, f"{role}_lora_b", None)
            if second is not None:
                second.assign(ops.zeros(second.shape))

    def _saved(self) -> list[tuple[str, Any]]:
        """Return what is saved, by name: in the order of Keras, or of names where quantised."""
        names = [f"_{role}" for role in _ROLES]
        names += [role + end for role in _ROLES for end in ("_scale", "_zero")]
        names += ["bias", "threshold_weight", "decay_weight"]
        found = {name: getattr(self, name, None) for name in names}
        kept = [(name, variable) for name, variable in found.items() if variable is not None]
        if self.quantization_mode is not None:
            return kept
        places = {id(variable): place for place, variable in enumerate(self.weights)}
        return sorted(kept, key=lambda entry: places[id(entry[1])])

    def _merged(self, role: str) -> dict[str, Any]:
        """Return what is held of a kernel, with LoRA's addition in it."""
        value = self._matrix(role)
        if self.quantization_mode is None:
            return {f"_{role}": value}
        rows = self._rows(role, value)
        integers = _integers(rows, self.quantization_mode, self._block_size(), None)
        return dict(zip((f"_{role}", f"{role}_scale", f"{role}_zero"), integers, strict=True))


def _has_blocks() -> bool:
    """Return whether this Keras names blocks of int4 in its policies."""
    return hasattr(keras.quantizers, "Int4QuantizationConfig")


def _check_config(mode: str, config: Any) -> None:
    quantizer = getattr(config, "activation_quantizer", None)
    if quantizer is None:
        return
    default = keras.quantizers.AbsMaxQuantizer().get_config()
    if type(quantizer) is not keras.quantizers.AbsMaxQuantizer or (
        quantizer.get_config() != default
    ):
        raise ValueError(
            "Argument `activation_quantizer` must keep its default for units, whose inputs stay in "
            f"floating point with mode={mode!r}. Received: {quantizer!r}"
        )


def _integers(matrix: Tensor, mode: str, block: int | None, quantizer: Any) -> tuple[Any, Any, Any]:
    """Quantise a matrix (rows, units); return integers, scales and zero points (or None)."""
    if block is not None:
        values, scale, zero = keras.quantizers.abs_max_quantize_grouped_with_zero_point(
            matrix, block_size=block, to_numpy=True
        )
    else:
        if quantizer is None:
            quantizer = keras.quantizers.AbsMaxQuantizer(
                axis=0, value_range=_RANGES[mode], output_dtype="int8"
            )
        values, scale = quantizer(matrix, to_numpy=True)
        scale, zero = ops.reshape(scale, (-1,)), None
    if mode == "int4":
        values = keras.quantizers.pack_int4(values, axis=-1)[0]
    return values, scale, zero
