"""Optical flow: TV-L1, its levels of grey, the flow file, and ``.flo`` files."""
