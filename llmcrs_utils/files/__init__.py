"""Reading and writing files completely or not at all: text, JSON, Parquet, hashes, locks. Nothing here knows a file's meaning."""
