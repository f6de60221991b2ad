"""HAN from Python in a line: what ``import han_core as han`` offers."""
