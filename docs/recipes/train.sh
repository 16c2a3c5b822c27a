#!/usr/bin/env bash
# All stages of a bundled model, one after the other; run it again after a stop and it goes on.
#   docs/recipes/train.sh rice2 DATA RUNS
set -euo pipefail
model=$1 data=$2 runs=$3
here=$(dirname "${BASH_SOURCE[0]}")
stage() {
    decr-scene train "$1" --config "$here/$model-$2.toml" --data "$data" --out "$runs/$model-$2" "${@:3}"
}
stage reference reference
stage reference fine --init "$runs/$model-reference"
stage diffusion diffusion
stage joint joint --init "$runs/$model-fine" --init "$runs/$model-diffusion"
stage reference last --init "$runs/$model-fine"
stage reference steady --init "$runs/$model-last"
reference=$model-steady
if [ "$model" = default ]; then
    stage reference settle --init "$runs/$reference"
    stage reference deepen --init "$runs/$model-settle"
    stage reference further --init "$runs/$model-deepen"
    [ -e "$runs/$model-mean.pt" ] ||
        decr-scene models average "$runs/$model-deepen" "$runs/$model-further" --out "$runs/$model-mean.pt"
    stage reference veils --init "$runs/$model-mean.pt"
    stage reference clear-days --init "$runs/$model-veils"
    stage reference broken --init "$runs/$model-clear-days"
    stage reference compressed --init "$runs/$model-broken"
    # two minutes of a card, as docs/recipes/on_a_gpu.md has it; where there is none it would take a day
    if [ ! -e "$runs/more/reference-1.pt" ]; then
        python "$here/on_a_gpu.py" pack "$data" "$runs/images.zip" "$here/default-more.toml" --quality 80
        python "$here/on_a_gpu.py" train "$runs/images.zip" "$runs/more" "$here/default-more.toml:2.2" \
            --init "$runs/$model-compressed/checkpoint.pt"
    fi
    stage reference even --init "$runs/more/reference-1.pt"
    reference=$model-even
fi
stage joint polish --init "$runs/$model-joint" --init "$runs/$reference"
stage weight weight --init "$runs/$model-polish" --init "$runs/$reference"
detector=()
if [ "$model" = rice2 ]; then # that of `default` overlooks too much (its model card says what)
    stage detector detector
    detector=(--detector "$runs/$model-detector")
fi
decr-scene models export "$runs/$model-weight" --config "$here/$model-weight.toml" \
    --card "$here/$model-model.toml" "${detector[@]}" --out "$runs/$model.safetensors" --overwrite
