"""What this machine is, asked without a framework: processor, memory, NVIDIA driver and GPUs, Jetson."""
