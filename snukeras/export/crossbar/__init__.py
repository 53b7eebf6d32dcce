"""Crossbar maps: write, read, check and simulate the place and conductances of every weight."""
