"""Version numbers of what the code makes of the same parameters and files: one for the data, one for each kind of model.

Raise a number whenever a change of the code makes another result: what the old code made is then set aside and made again.
``tests/test_recipes.py`` says when: it builds a tiny data set and trains each tiny model for two steps.
"""

OF_DATA = 2  # task samples, candidates and the catalogue
OF_BACKBONES = {"bart": 1, "cpt": 2, "llama": 1, "chatglm": 1, "bert": 1, "gpt2": 1}  # small ones, by architecture
OF_CRS, OF_LLM = 1, 3  # whatever their backbone
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
