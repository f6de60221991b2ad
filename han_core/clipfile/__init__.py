"""The HDF5 file of one clip: written once, verified, then only read."""
