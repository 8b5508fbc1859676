"""What files look like: streams in, rows out, and the other way round."""
