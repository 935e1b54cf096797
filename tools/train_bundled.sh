#!/usr/bin/env bash
# Make a checkpoint to bundle, from the photographs: some two hours on two CPU cores. The one in the
# package is still the draft of `bundle_draft.py`.
#
#     tools/train_bundled.sh ../shared/data/caltech101 runs/bundled
#
# Interrupted, it goes on where it was when it is run again. The recipe was chosen on a tenth of
# `train` that was held out; here it sees all of `train`, and `test` is judged once, at the end.
set -euo pipefail

data=${1:?folder that holds train/ and test/}
run=${2:?folder of the run}
resume=()
! compgen -G "$run/step-*.pt" >/dev/null || resume=(--resume)

python -m training train "$data/train" --output "$run" --recipe modern --hold-out 0 --seed 0 \
    --keep 1 "${resume[@]}"
whole=$(ls "$run"/step-*.pt | tail -1)  # there may be an earlier one, after a crash
python -m training shrink "$whole" "$data/train" --output "$run/small.safetensors" --seed 0
python tools/bundle.py "$run/small.safetensors" "$whole" "$data/test"
