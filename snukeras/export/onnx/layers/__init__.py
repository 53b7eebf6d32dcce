"""How each layer is lowered to ONNX."""
