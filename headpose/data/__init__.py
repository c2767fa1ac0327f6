"""Data sets: reading, cropping, preparing once, splitting, augmenting."""
