"""Lower a Keras model to one ONNX graph."""
