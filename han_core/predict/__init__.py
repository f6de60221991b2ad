"""A trained HAN on any video: features, windows, labels, and a picture of where it looked."""
