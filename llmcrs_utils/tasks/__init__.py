"""What is asked: task samples with their labels, 20 candidates and folds, the row of predictions that an output becomes, and predictions joined to samples as another system's help."""
