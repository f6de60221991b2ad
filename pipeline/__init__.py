"""The DVC stages: each module reads typed params, calls ``han_core`` and writes its outputs."""
