#!/usr/bin/env bash
# How far apart the errors of two right runs of one file are, per file and length of the prompt: the largest noise ratio of
# a point of at least 64 elements, for runs in ggml's semantics and in dequantize-f32 against the safetensors, each as the
# other's baseline. The limit of src/compare/baseline.rs rests on it. Run `cargo test --release` first: it rebuilds the
# GGUF files that the repository does not ship. Usage: benches/noise_ratios.sh [SEED OF THE PROMPTS]
set -euo pipefail
cd "$(dirname "$0")/.."
seed=${1:-1}
built=${CARGO_TARGET_DIR:-target}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
for name in tiny-qwen2 tiny-gpt2; do
  for length in 1 2 12 100 480 624; do
    python3 -c "import random; random.seed($seed); print(*(random.randrange(3, 1900) for _ in range($length)), sep=',')" > "$folder/tokens"
    record() { # MODEL LABEL MORE...
      "$built/release/actrace" record --model "$1" --tokens-file "$folder/tokens" --label "$2" "${@:3}" \
        --out "$folder/runs.actrace" > /dev/null 2>&1
    }
    ratio() { # TARGET BASELINE
      "$built/release/actrace-query" compare "$folder/runs.actrace" --reference original --target "$1" --baseline "$2" \
        --no-audit --format json 2> /dev/null > "$folder/answer.json" || true
      python3 -c "import json; print(json.load(open('$folder/answer.json'))['baseline']['largest_ratio'])"
    }
    record "models/$name" original
    for type in f16 q8_0 q4_k_m; do
      file=models/$name/$name.$type.gguf
      [ -e "$file" ] || file=$built/tmp/models/$name.$type.gguf
      record "$file" "$type-ggml"
      record "$file" "$type-f32" --semantics dequantize-f32
      printf '%-10s %4s tokens %-7s ggml over dequantize-f32 %.4g, dequantize-f32 over ggml %.4g\n' \
        "$name" "$length" "$type" "$(ratio "$type-ggml" "$type-f32")" "$(ratio "$type-f32" "$type-ggml")"
    done
    rm "$folder/runs.actrace"
  done
done
