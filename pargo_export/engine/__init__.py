"""From a graph of the bundle to a TensorRT engine in the bundle.

Imports the base alone, never PyTorch: engines of TensorRT are built on the device that they run on.
"""
