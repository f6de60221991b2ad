"""The Hierarchical Attention Network: the model as the paper has it, its fast path, its training and its file."""
