"""Reading and writing files, each completely or not at all: text, JSON, Parquet, hashes, locks. No module knows a file's meaning."""
