"""What one process writes for another to read: typed, pure, with one writer and one reader each."""
