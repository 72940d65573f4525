#!/usr/bin/env bash
# Makes everything in this folder again, on a host with an NVIDIA card: the log of the GPU tests, a small trace, the
# figures. Takes about four minutes and 15 GB in FOLDER.
#
#   evidence/cuda/run.sh [FOLDER]
#
# Programs that were built elsewhere are named by ACTRACE, TESTS and BENCH (the binaries of `cargo build`, `cargo test
# --no-run` and `cargo bench --no-run`); OUT is where the results go.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-${TMPDIR:-/tmp}}
out=${OUT:-evidence/cuda}
features="--no-default-features --features record"
actrace=${ACTRACE:-cargo run --release $features --quiet --bin actrace --}
tests=${TESTS:-cargo test --release $features --quiet --test record --}
bench=${BENCH:-cargo bench $features --quiet --bench cuda --}

# A test says its lines, then its name: one thread keeps them apart.
$tests cards_agree on_a_card --nocapture --test-threads 1 | tee "$out/tests.log"

rm -f "$out/run.actrace"
$actrace record --model models/tiny-qwen2/tiny-qwen2.q4_k_m.gguf --device cuda --tokens 609,1827,409,72,608 --generate 3 \
    --layers 0,5 --label cuda --out "$out/run.actrace"

model="$folder/qwen2.5-7b.q4_k.gguf"
[ -e "$model" ] || $actrace synth --shape qwen2.5-7b --type q4_k --out "$model"
$bench "$model" "$folder" | tee "$out/figures.txt"
