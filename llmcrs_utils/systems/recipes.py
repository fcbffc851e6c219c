"""Recipe numbers: one number for the way in which each model is trained.

Raise a model's number if a change makes its training end with other weights from the same parameters and files. Models of the
old recipe are then set aside and trained again. A test that trains each tiny model for two steps shows when this is needed.
"""

OF_BACKBONES = {"bart": 1, "cpt": 1, "llama": 1, "chatglm": 1, "bert": 1, "gpt2": 1}  # small models, by architecture
OF_CRS, OF_LLM = 1, 1  # whatever their backbone
OF_TYPICAL = {
    "bert": 1,
    "bert_crf": 1,
    "bert_bilstm_crf": 1,
    "dia_multiclass": 1,
    "dia_seq": 1,
    "bert_rec": 1,
    "sasrec": 1,
    "tg_crs": 1,
    "gpt2": 1,
    "kbrd": 1,
}
