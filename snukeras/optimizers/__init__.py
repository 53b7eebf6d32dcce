"""Optimizers: training with phase-change memory in the loop."""

from snukeras.optimizers.pcm import PCMOptimizer

__all__ = ["PCMOptimizer"]
