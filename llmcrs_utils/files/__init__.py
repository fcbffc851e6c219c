"""Reading and writing files, each whole or not at all: text, JSON and Parquet, content hashes and locks. Nothing here knows what a file means."""
