"""Slow Fusion (Karpathy et al. 2014): a net whose convolutions reach over time, and what it looks at."""
