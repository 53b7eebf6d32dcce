"""GRAPES: modulate the errors of hidden units by the weights that come into them."""
