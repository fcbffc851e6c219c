"""UniMIND, the conversational recommender system: how it encodes samples, trains, writes replies and ranks items."""
