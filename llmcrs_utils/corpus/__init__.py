"""Raw data: dialogues, product knowledge and shoppers' actions in U-NEED's format, converters from other sources, and validation."""
