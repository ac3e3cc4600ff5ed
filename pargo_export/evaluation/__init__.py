"""What a visual front-end is worth on a task: benchmarks through a language model."""
