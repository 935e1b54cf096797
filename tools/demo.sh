#!/usr/bin/env bash
# Run what the project exists for on the sample photographs; `make demo` sets up and calls this.
set -eu
cd "$(dirname "$0")/.."

samples=alexnet_deploy/data/samples
mkdir -p demo
rm -rf demo/index # so that step 5 shows both runs

run() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}

echo "1. Export the bundled checkpoint to ONNX, compared with the NumPy reference"
run "alexnet-deploy export alexnet_deploy/data/caltech101.safetensors -o demo/alexnet.onnx"

printf '\n%s\n' "2. Classify the 40 sample photographs, none of which the network was trained on"
run "alexnet-deploy classify $samples --top5 --model demo/alexnet.onnx > demo/top5.txt"
run "head -n 12 demo/top5.txt"

printf '\n%s\n' "3. Draw eight of them with their five likeliest classes, as the paper's Figure 4"
run "alexnet-deploy classify \\
    $samples/{Leopards,airplanes,butterfly,grand_piano,hawksbill,hedgehog,pizza,saxophone} \\
    --json --figure demo/figure4.png --model demo/alexnet.onnx > demo/figure4.jsonl"

printf '\n%s\n' "4. Embed all of them: one FC7 vector of 4096 numbers each"
run "alexnet-deploy embed $samples -o demo/fc7.npy --model demo/alexnet.onnx"

printf '\n%s\n' "5. Index them: what is there already is not done again, so a second run does nothing"
run "alexnet-deploy index $samples --index demo/index --model demo/alexnet.onnx"
run "alexnet-deploy index $samples --index demo/index"

printf '\n%s\n' "6. Search: each is the only one of its class here; which others look most like these four?"
run "alexnet-deploy search $samples/{airplanes,Leopards,grand_piano,pizza} --index demo/index \\
    -k 7 --sheet demo/neighbours.png > demo/neighbours.txt"
run "head -n 9 demo/neighbours.txt"
run "alexnet-deploy search $samples/airplanes --index demo/index -k 20 \\
    --sheet demo/neighbours.html --paths > demo/neighbours.paths"

cat <<'END'

Done. Look at these:
  demo/neighbours.png    four photographs and the seven nearest to each: start here
  demo/figure4.png       eight photographs and what the network makes of them
  demo/top5.txt          five classes for each of the 40
  demo/figure4.jsonl     the eight again, as JSON lines
  demo/alexnet.onnx      the network, for any ONNX runtime; the report of step 1 is inside
  demo/fc7.npy           the vectors, 40 x 4096 float32; the paths are in demo/fc7.paths.jsonl
  demo/neighbours.html   one query's neighbours as a page; demo/neighbours.txt: the four as text
  demo/index             the index; ask it with: alexnet-deploy info demo/index
END
