#!/usr/bin/env bash
# Small versions of the paper's other systems and of DE, trained on the same pairs for 8 minutes of processor time
# each, and compared on the test pairs (docs/paper.md). Run it again after a stop and it goes on: a run is continued,
# and a system that has its CSV is not measured again.
#   docs/recipes/compare.sh DATA RUNS
set -euo pipefail
export OMP_NUM_THREADS=1
data=$(realpath "$1") runs=$2
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
pairs=$data/pairs/rice2/test
stage() { # STAGE NAME MINUTES
    decr-scene train "$1" --config "$here/compare-$2.toml" --data "$data" --out "$2" --cpu-minutes "$3" "${@:4}"
}
model() { # of a run, under a name, sampled so
    printf 'name = "%s"\n[sampling]\n%s\n[info]\nabout = "small, for a comparison"\n' "$2" "$3" > "$2-card.toml"
    decr-scene models export "$1" --config "$here/compare-$1.toml" --card "$2-card.toml" --out "$2.safetensors" --overwrite
}
mkdir -p "$runs" && cd "$runs"
stage adversarial spagan 8
stage adversarial amgan 8
stage variational cvae 8
stage conditional diffcr 8
stage reference mn 8
stage reference mdsa 8
stage reference reference 4 # the three of DE are 8 together
stage diffusion diffusion 2
stage joint joint 2 --init reference --init diffusion
for alone in spagan amgan cvae mn mdsa; do
    model $alone $alone 'weight_floor = 0'
done
model diffcr diffcr $'steps = 20\nweight_floor = 0'
model joint de $'steps = 3\nstart = 25\nweight_floor = 0.8' # as `rice2` was sampled then

systems=(spagan amgan cvae mn mdsa diffcr de rice2)
files=("${systems[@]/%/.safetensors}")
files[-1]=rice2 # the bundled one
for number in "${!systems[@]}"; do
    table=${systems[number]}.csv
    [ -e "$table" ] || decr-scene evaluate --compare "${files[number]}" --data "$pairs" --protocol paper --csv "$table"
done
{
    head -n 3 de.csv # the names of the columns, the input and `fill`
    for system in "${systems[@]}"; do tail -n 1 "$system.csv"; done
} > compare.csv

mkdir -p few/cloudy few/clear
for half in cloudy clear; do # every sixteenth pair, to look at
    ls "$pairs/$half" | awk 'NR % 16 == 1' | while read -r name; do cp "$pairs/$half/$name" "few/$half"; done
done
decr-scene evaluate --compare "$(IFS=,; echo "${files[*]}")" --data few --protocol paper --sheet compare.png --overwrite
