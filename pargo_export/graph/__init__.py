"""From deploy module to a verified ONNX graph in a bundle."""
