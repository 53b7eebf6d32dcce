"""Callbacks: train at the noisy weights of a PCM chip, clip weights, and watch the spikes."""

from snukeras.callbacks.pcm_noise import PCMNoise, choose_variables
from snukeras.callbacks.spike_monitor import SpikeMonitor
from snukeras.callbacks.weight_clipping import ClipWeights, Remap

__all__ = ["ClipWeights", "PCMNoise", "Remap", "SpikeMonitor", "choose_variables"]
