"""From a float graph and calibration images to a quantized graph whose accuracy was measured.

Needs NumPy, onnx, onnx_ir and ONNX Runtime, never PyTorch: it also runs on a device.
"""
