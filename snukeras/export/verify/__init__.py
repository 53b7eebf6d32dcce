"""Prove an export: ONNX against Keras, weights of the map against those of the model."""
