"""The product of a sequence and a matrix on torch, by the fastest engine that it has.

On a processor torch multiplies float32 matrices by MKL, which takes its slow path where the
processor is not Intel's, and convolves by oneDNN, which does not. The product of all steps is a
convolution with a kernel of one place.
"""

import torch
from torch.nn import functional

# Multiplications below which a convolution's own overhead counts.
_MANY = 2**22


def times(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x (batch, time, rows) times a matrix (rows, columns); any leading axes will do."""
    if not _convolves(x, weight):
        return torch.matmul(x, weight)
    batch, steps, rows = x.shape
    # (batch, rows, 1, time) as channels last is x as it lies.
    maps = x.contiguous().view(batch, 1, steps, rows).permute(0, 3, 1, 2)
    kernel = weight.t().contiguous().view(-1, rows, 1, 1)
    found = functional.conv2d(maps, kernel.contiguous(memory_format=torch.channels_last))
    return found.permute(0, 2, 3, 1).reshape(batch, steps, -1)


def _convolves(x: torch.Tensor, weight: torch.Tensor) -> bool:
    alike = x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type
    if not alike or x.device.type != "cpu" or x.ndim != 3:
        return False
    if x.numel() * weight.shape[1] < _MANY or not torch.backends.mkldnn.is_available():
        return False
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())
