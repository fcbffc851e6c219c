#!/usr/bin/env bash
# The study's heavy part on a machine with a GPU that is at hand for minutes: it may be bare (Python 3.12 with torch, transformers,
# accelerate, pandas and the like) and without network. Everything travels in a copy of this folder, in pieces if need be. OUT and
# ARCHIVE are paths from the project's folder.
#
#   here    make run PROFILE=readers-gpu SNAKEMAKE="--omit-from tune_llm"    data and CRSs, which a GPU full of LLMs trains slowly
#           workflow/gpu.sh pack qwen [gemma smollm2]       wheels and weights into runs/gpu/, in parts of 48 MiB
#   there   workflow/gpu.sh setup                           installs the wheels beside what is there
#           workflow/gpu.sh join qwen [gemma smollm2]       makes checkpoints of the parts, checks their hashes
#           workflow/gpu.sh speed OUT [MINUTES]             ~3 min: 7B LLaMA and 6B ChatGLM with random weights: tokens/s, memory
#           workflow/gpu.sh study OUT SECONDS PROFILE...    profiles of params/ within the time; archives of what they gave in OUT
#   back    workflow/gpu.sh unpack OUT/PROFILE.tar.gz.*     into runs/; make run goes on from there
#   any     workflow/gpu.sh --rehearse OUT                  speed and study on the CPU with tiny sizes, ~4 min: that they run
set -euo pipefail
cd "$(dirname "$0")/.."
gpu=runs/gpu
parts=$gpu/parts
wheels=$gpu/wheels
site=$gpu/site
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
export PYTHONPATH="$PWD/$site:$PWD" PYTORCH_ALLOC_CONF=expandable_segments:True PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=true HF_HUB_OFFLINE=1

# What a machine with torch and transformers may lack or have in another version; the versions are those of the lock file.
needed="annotated-types asttokens comm debugpy entrypoints executing fastjsonschema gguf httpcore2 httpx2 ipykernel ipython
  ipython-pygments-lexers jiter jsonschema jsonschema-specifications jupyter-client jupyter-core matplotlib-inline nbclient nbformat
  nest-asyncio2 openai papermill parso pexpect platformdirs prompt-toolkit ptyprocess pure-eval pydantic pydantic-core pyzmq referencing
  rpds-py sniffio stack-data tenacity tornado traitlets truststore typing-inspection tzdata wcwidth transformers tokenizers
  huggingface-hub peft pandas gensim smart-open"

pack() {
  rm -rf "$wheels" "$parts"
  mkdir -p "$wheels" "$parts"
  local pins=()
  for name in $needed; do pins+=("$(grep -i "^$name==" requirements.lock | cut -d';' -f1 | tr -d ' ')"); done
  local platforms=()
  for glibc in 2_5 2_12 2_17 2_24 2_26 2_27 2_28 2_31 2_34 2_35; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
  $python -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$wheels" "${pins[@]}"
  for model in "$@"; do
    $python -m llmcrs_utils.checkpoints.weights "$model" --gguf "$gpu"
    split -b 48M -d "$gpu/$model.gguf" "$parts/$model."
    rm "$gpu/$model.gguf"
    [ ! -d "$gpu/$model-wheels" ] || mv "$gpu/$model-wheels" "$parts/"
  done
  du -sh "$wheels"
  ls -l "$parts"
}

setup() {
  $python -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl
  $python -c 'import torch, transformers, peft, pandas, papermill; print(*(f"{m.__name__} {m.__version__}" for m in (torch, transformers, peft, pandas, papermill)))'
}

join() {
  mkdir -p runs/weights
  for model in "$@"; do
    if [ ! -d "runs/weights/$model" ]; then
      cat "$parts/$model".?? > "runs/weights/$model.gguf"
      [ ! -d "$parts/$model-wheels" ] || cp -r "$parts/$model-wheels" runs/weights/
    fi
    $python -m llmcrs_utils.checkpoints.weights "$model"
  done
}

speed() {
  mkdir -p "${1:?name a folder for the results}"
  $python benchmarks/gpu_7b.py --quick --minutes "${2:-2.5}" "${@:3}" | tee "$1/speed.jsonl"
}

study() {
  local out=${1:?name a folder for the results} status=0
  rm -f "$out"/*.tar.gz.*  # parts of an earlier run
  $python workflow/gpu.py --out "$out" --seconds "${2:?name the seconds}" "${@:3}" || status=$?
  for archive in "$out"/*.tar.gz; do split -b 15M -d "$archive" "$archive." && rm "$archive"; done
  return "$status"
}

unpack() { cat "$@" | tar -xz --no-same-owner runs; }

case "${1:-}" in
  --rehearse)
    speed "${2:?name a folder for the results}" 1 --tiny
    study "$2" 240 params/gpu-rehearsal.yaml --at-once 2
    ;;
  pack | setup | join | speed | study | unpack) "$@" ;;
  *) sed -n '2,/^set/{/^#/p}' workflow/gpu.sh; exit 2 ;;
esac
