"""What is asked: dialogues become task samples with candidates, labels and folds; what a model wrote becomes an answer; one system's answers become another's help."""
