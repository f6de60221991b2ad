"""Fine-tuning one net on single frames, flow stacks or windows of frames."""
