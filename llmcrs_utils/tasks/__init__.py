"""Everything between dialogues and a system's answers: task samples, candidates and folds, answers read from model output, and answers as help for another system."""
