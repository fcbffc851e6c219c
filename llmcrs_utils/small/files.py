"""The files in a small backbone's folder, so that the workflow can list them before they exist."""

MODEL = ("config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json")
FILES = {
    "bart": (*MODEL, "tokenizer.json"),
    "cpt": (*MODEL, "tokenizer.json"),
    "llama": (*MODEL, "tokenizer.json"),
    "chatglm": (*MODEL, "ice_text.model"),
    "bert": (*(name for name in MODEL if name != "generation_config.json"), "tokenizer.json"),  # BERT does not generate
    "gpt2": (*MODEL, "tokenizer.json"),
}
