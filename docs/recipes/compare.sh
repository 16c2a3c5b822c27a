#!/usr/bin/env bash
# Small versions of the paper's other systems and of DE, trained on the same pairs for 12 to 13 minutes of one core
# each, and compared on the test pairs (docs/paper.md); run it again after a stop and it goes on.
#   docs/recipes/compare.sh DATA RUNS
set -euo pipefail
export OMP_NUM_THREADS=1
data=$1 runs=$2
here=$(dirname "${BASH_SOURCE[0]}")
stage() {
    decr-scene train "$1" --config "$here/compare-$2.toml" --data "$data" --out "$runs/$2" "${@:3}"
}
model() { # of a run, under a name, sampled so
    printf 'name = "%s"\n[sampling]\n%s\n[info]\nabout = "small, for a comparison"\n' "$2" "$3" > "$runs/$2-card.toml"
    decr-scene models export "$runs/$1" --config "$here/compare-$1.toml" --card "$runs/$2-card.toml" \
        --out "$runs/$2.safetensors" --overwrite
}
stage adversarial spagan
stage adversarial amgan
stage variational cvae
stage conditional diffcr
stage reference reference
stage diffusion diffusion
stage joint joint --init "$runs/reference" --init "$runs/diffusion"
for alone in spagan amgan cvae; do
    model $alone $alone 'weight_floor = 0'
done
model diffcr diffcr $'steps = 20\nweight_floor = 0'
model joint de $'steps = 3\nstart = 25\nweight_floor = 0.8' # as `rice2` is sampled
cd "$runs"
decr-scene evaluate --compare spagan.safetensors,amgan.safetensors,cvae.safetensors,diffcr.safetensors,de.safetensors,rice2 \
    --data "$data/pairs/rice2/test" --protocol paper --csv compare.csv --sheet compare.png --overwrite | tee compare.txt
