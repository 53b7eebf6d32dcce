"""Measure speed and memory: `python -m benchmark`.

Contestants of one framework run in a process of that framework; the processes take turns.
"""
