"""What all families share when they train and predict: one trainer, one module of collators, prediction in batches, work split over processes."""
