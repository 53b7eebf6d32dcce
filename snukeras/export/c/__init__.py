"""One step of a network as plain C99: float32, and int8 weights with integers alone."""
