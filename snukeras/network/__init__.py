"""What a Keras model is to this package: its topology, matrices, weights, and copies of it."""
