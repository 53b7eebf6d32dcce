"""Callbacks: train at the noisy weights that a PCM chip would hold, and watch the spikes."""

from snukeras.callbacks.pcm_noise import PCMNoise, choose_variables
from snukeras.callbacks.spike_monitor import SpikeMonitor

__all__ = ["PCMNoise", "SpikeMonitor", "choose_variables"]
