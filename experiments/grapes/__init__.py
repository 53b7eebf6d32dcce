"""GRAPES on MNIST, against plain training and against a matched learning rate."""
