"""Publish trained models: weights, golden outputs, costs and cards."""
