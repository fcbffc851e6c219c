"""What a small backbone's folder holds, so that the workflow can name these files before they are there."""

MODEL = ("config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json")
FILES = {
    "bart": (*MODEL, "tokenizer.json"),
    "cpt": (*MODEL, "tokenizer.json"),
    "llama": (*MODEL, "tokenizer.json"),
    "chatglm": (*MODEL, "ice_text.model"),
    "bert": (*(name for name in MODEL if name != "generation_config.json"), "tokenizer.json"),  # it writes no text
    "gpt2": (*MODEL, "tokenizer.json"),
}
