"""Improved dense trajectories (iDT, Wang & Schmid 2013) from the frames and the stored flow of a clip."""
