#!/usr/bin/env bash
# Make the bundled checkpoint again, from the photographs: some five hours on two CPU cores.
#
#     tools/train_bundled.sh CALTECH101 runs/bundled
#
# Interrupted, it goes on where it was when it is run again. First nine tenths of `train`, with the
# rest to choose by; then, from there, all of `train`; `test` is judged once, at the end. What is
# set beside the recipe made no difference beyond chance on the held-out tenth.
set -euo pipefail

data=${1:?folder that holds train/ and test/}
run=${2:?folder of the runs}
common=(--recipe modern --keep 1 --set weight_decay=0.3 --set min_crop_area=0.25
    --set max_rotation=12 --set colour_jitter=0.3)

train() { # folder of the run, and what is special about it
    local folder=$1 resume=()
    shift
    ! compgen -G "$folder/step-*.pt" >/dev/null || resume=(--resume)
    python -m training train "$data/train" --output "$folder" "${common[@]}" "$@" "${resume[@]}"
}
last() { ls "$1"/step-*.pt | tail -1; } # there may be an earlier one, after a crash

mkdir -p "$run"
train "$run/part" --hold-out 0.1 --epochs 45 --set mixup=0.2 --seed 0
train "$run/whole" --hold-out 0 --init "$(last "$run/part")" --epochs 16 --learning-rate 2e-4 --seed 1
whole=$(last "$run/whole")
python -m training shrink "$whole" "$data/train" --output "$run/small.safetensors" --seed 0
python tools/bundle.py "$run/small.safetensors" "$whole" "$data/test"
