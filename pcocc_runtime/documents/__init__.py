"""What one process leaves for another: typed, pure, one writer and one reader each."""
