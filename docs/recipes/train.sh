#!/usr/bin/env bash
# All stages of a bundled model, one after the other; run it again after a stop and it goes on.
#   docs/recipes/train.sh rice2 DATA RUNS
set -euo pipefail
model=$1 data=$2 runs=$3
here=$(dirname "${BASH_SOURCE[0]}")
stage() {
    decr-scene train "$1" --config "$here/$model-$2.toml" --data "$data" --out "$runs/$model-$2" "${@:3}"
}
# minutes of a card, as docs/recipes/on_a_gpu.md has it; where there is none it would take days
on_a_card() { # FOLDER INIT RUN:MINUTES ...
    [ ! -e "$runs/$1/done" ] || return 0
    local tomls=() given=()
    for run in "${@:3}"; do
        tomls+=("$here/${run%%:*}.toml") given+=("$here/${run/:/.toml:}")
    done
    python "$here/on_a_gpu.py" pack "$data" "$runs/$1.zip" "${tomls[@]}" --quality 80
    python "$here/on_a_gpu.py" train "$runs/$1.zip" "$runs/$1" "${given[@]}" --init "$2"
    touch "$runs/$1/done"
}
stage reference reference
stage reference fine --init "$runs/$model-reference"
stage reference last --init "$runs/$model-fine"
stage reference steady --init "$runs/$model-last"
if [ "$model" = default ]; then
    stage reference settle --init "$runs/$model-steady"
    stage reference deepen --init "$runs/$model-settle"
    stage reference further --init "$runs/$model-deepen"
    [ -e "$runs/$model-mean.pt" ] ||
        decr-scene models average "$runs/$model-deepen" "$runs/$model-further" --out "$runs/$model-mean.pt"
    stage reference veils --init "$runs/$model-mean.pt"
    stage reference clear-days --init "$runs/$model-veils"
    stage reference broken --init "$runs/$model-clear-days"
    stage reference compressed --init "$runs/$model-broken"
    on_a_card more "$runs/$model-compressed/checkpoint.pt" default-more:2.2
    stage reference even --init "$runs/more/default-more-1.pt"
    on_a_card noise "$runs/$model-even/checkpoint.pt" default-denoise:3.3
    on_a_card longer "$runs/$model-even/checkpoint.pt" default-longer:8.9
    stage reference delivered --init "$runs/longer/default-longer-1.pt"
    stage reference airlight --init "$runs/$model-delivered"
    stage reference own-light --init "$runs/$model-airlight"
    stage reference slower --init "$runs/$model-own-light"
    [ -e "$runs/$model-mean-2.pt" ] ||
        decr-scene models average "$runs/$model-own-light" "$runs/$model-slower" --out "$runs/$model-mean-2.pt"
    on_a_card farther "$runs/$model-mean-2.pt" default-farther:8.9
    stage reference black-off --init "$runs/farther/default-farther-1.pt"
    on_a_card onward "$runs/$model-black-off/checkpoint.pt" default-onward:8.9
    [ -e "$runs/$model-mean-3.pt" ] ||
        decr-scene models average "$runs/$model-black-off" "$runs/onward/default-onward-1.pt" --out "$runs/$model-mean-3.pt"
    reference=$runs/$model-mean-3.pt
else
    on_a_card noise "$runs/$model-steady/checkpoint.pt" rice2-context:2.2 rice2-denoise:2.4
    on_a_card deepen "$runs/noise/rice2-context-1.pt" rice2-deepen:8.9
    stage reference wide --init "$runs/deepen/rice2-deepen-1.pt"
    [ -e "$runs/$model-mean.pt" ] ||
        decr-scene models average "$runs/deepen/rice2-deepen-1.pt" "$runs/$model-wide" --out "$runs/$model-mean.pt"
    reference=$runs/$model-mean.pt
fi
stage detector detector
detector=detector
if [ "$model" = default ]; then
    stage detector detector-last --init "$runs/default-detector"
    detector=detector-last
fi
decr-scene models export "$runs/noise/$model-denoise-1.pt" --config "$here/$model-denoise.toml" \
    --card "$here/$model-model.toml" --reference "$reference" --detector "$runs/$model-$detector" \
    --out "$runs/$model.safetensors" --overwrite
# then, on pairs that it has not seen: decr-scene models calibrate "$runs/$model.safetensors" --data PAIRS --out ..
