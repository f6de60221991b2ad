"""The two-stream CNN [16]: what each fine-tuned net says of a clip by itself, and both joined."""
