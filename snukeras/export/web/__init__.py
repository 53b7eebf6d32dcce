"""A page that runs a network in a browser: its ONNX file, what it plays, and onnxruntime-web."""
