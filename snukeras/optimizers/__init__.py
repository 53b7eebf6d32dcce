"""Optimizers: training with phase-change memory in the loop; GRAPES."""

from snukeras.optimizers.grapes.layer import GRAPES
from snukeras.optimizers.grapes.model import with_grapes, without_grapes
from snukeras.optimizers.pcm import PCMOptimizer

__all__ = ["GRAPES", "PCMOptimizer", "with_grapes", "without_grapes"]
