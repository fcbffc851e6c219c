"""What all families share when they train and predict: one trainer, one module of collators, batches by tokens, prediction in batches, work split over processes."""
