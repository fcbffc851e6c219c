"""Numbers of the ways in which models are trained.

Raise a model's number whenever a change makes its training end with other weights from the same parameters and files: what was
trained in the old way is then set aside and trained anew. A test that trains each tiny model for two steps says when.
"""

OF_BACKBONES = {"bart": 1, "cpt": 1, "llama": 1, "chatglm": 1, "bert": 1, "gpt2": 1}  # small ones, by architecture
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
