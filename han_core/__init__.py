"""The library behind the pipeline: pure functions and ``nn.Module``s, no params file, no global state."""
