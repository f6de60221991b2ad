"""Two-stream CNN + LSTM (Ng et al. 2015), row [22] of Table 2."""
