"""What answers are worth: metrics, statistics, tables and figures, one module for each question. No model is loaded here."""
