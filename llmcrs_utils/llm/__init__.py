"""Language models, LoRA-tuned here or asked at an address: how they encode instructions, train, write replies and rank candidates."""
