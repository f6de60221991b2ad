"""The two VGG-16 nets: layers, weights, input, and what is taken out of them."""
