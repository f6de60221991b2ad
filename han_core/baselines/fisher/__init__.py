"""Fisher vectors: codebooks, the encoding, kernels and SVMs on them, and Fisher vectors stacked in two layers."""
