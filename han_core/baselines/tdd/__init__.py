"""Trajectory-pooled deep-convolutional descriptors [20]: a net's maps summed along trajectories."""
