"""From answers to results: metrics, statistics, tables, figures and sentences, and one module for each question of the study. No model is loaded here."""
