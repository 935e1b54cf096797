#!/usr/bin/env bash
# Run what the project exists for on the sample photographs; `make demo` sets up and calls this.
set -eu
cd "$(dirname "$0")/.."

samples=alexnet_deploy/data/samples
mkdir -p demo
rm -rf demo/index # so that step 4 shows both runs

run() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}

echo "1. Export the bundled checkpoint to ONNX, compared with the NumPy reference"
run "alexnet-deploy export alexnet_deploy/data/caltech101.safetensors -o demo/alexnet.onnx"

printf '\n%s\n' "2. Classify the 100 sample photographs, none of which the network was trained on"
run "alexnet-deploy classify $samples --top5 --model demo/alexnet.onnx > demo/top5.txt"
run "head -n 12 demo/top5.txt"

printf '\n%s\n' "   Draw eight of them with their five likeliest classes, as the paper's Figure 4"
run "alexnet-deploy classify \\
    $samples/{Leopards/image_0035,airplanes/image_0005,butterfly/image_0020}.jpg \\
    $samples/grand_piano/image_0005.jpg $samples/{hawksbill,hedgehog,pizza,saxophone} \\
    --json --figure demo/figure4.png --model demo/alexnet.onnx > demo/figure4.jsonl"

printf '\n%s\n' "3. Embed all of them: one FC7 vector of 4096 numbers each"
run "alexnet-deploy embed $samples -o demo/fc7.npy --model demo/alexnet.onnx"

printf '\n%s\n' "4. Index them: what is there already is not done again, so a second run does nothing"
run "alexnet-deploy index $samples --index demo/index --model demo/alexnet.onnx"
run "alexnet-deploy index $samples --index demo/index"

printf '\n%s\n' "5. Search: twelve classes have six photographs each; are the nearest of their own class?"
run "alexnet-deploy search $samples --index demo/index -k 5 --json \\
    --sheet demo/neighbours.html > demo/neighbours.jsonl"
python - <<'END'
import json
from collections import Counter
from pathlib import Path

rows = [json.loads(line) for line in Path("demo/neighbours.jsonl").read_text().splitlines()]
sizes = Counter(Path(row["query"]).parent.name for row in rows)
hits = [
    [Path(found["path"]).parent.name == label for found in row["results"]]
    for row in rows
    if sizes[label := Path(row["query"]).parent.name] > 1
]
print(f"""
Of {len(hits)} photographs of these classes
  {sum(row[0] for row in hits) / len(hits):.1%} have one of their own class as the nearest,
  {sum(map(sum, hits)) / sum(map(len, hits)):.1%} of the five nearest are of their own class.""")
END

printf '\n%s\n' "   Draw eight of these, picked because all five are right; the page above has the rest"
run "alexnet-deploy search \\
    $samples/{Leopards/image_0035,Motorbikes/image_0265,accordion/image_0020}.jpg \\
    $samples/{airplanes/image_0005,car_side/image_0025,grand_piano/image_0005}.jpg \\
    $samples/{ketch/image_0050,windsor_chair/image_0005}.jpg \\
    --index demo/index -k 5 --sheet demo/neighbours.png > demo/neighbours.txt"
run "head -n 7 demo/neighbours.txt"

cat <<'END'

Done. Look at these:
  demo/neighbours.png    eight photographs and the five nearest to each: start here
  demo/neighbours.txt    the same as text
  demo/neighbours.html   all 100 and the five nearest to each, right and wrong
  demo/neighbours.jsonl  the same as JSON lines
  demo/figure4.png       eight photographs and what the network makes of them
  demo/figure4.jsonl     the same as JSON lines
  demo/top5.txt          five classes for each of the 100
  demo/alexnet.onnx      the network, for any ONNX runtime; the report of step 1 is inside
  demo/fc7.npy           the vectors, 100 x 4096 float32; the paths are in demo/fc7.paths.jsonl
  demo/index             the index; ask it with: alexnet-deploy info demo/index
END
