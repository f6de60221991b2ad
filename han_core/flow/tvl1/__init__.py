"""TV-L1 optical flow (Zach, Pock and Bischof 2007): one interface, several back ends with one result."""
