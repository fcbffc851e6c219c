"""UniMIND, the conversational recommender system: its batches, training and answers."""
