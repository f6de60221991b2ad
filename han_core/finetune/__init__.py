"""Fine-tuning one VGG-16 on single frames or flow stacks."""
