"""Reading and writing files so that nothing is half written: atomic text and JSON, Parquet tables, content hashes, locks."""
