"""What a worker tells about itself: one frozen record per happening, and observers that turn them into metrics."""
