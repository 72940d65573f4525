#!/usr/bin/env bash
# How far right runs of quantised files are from the original, per file: the largest rel_l2 of a whole tensor. The
# floors of src/compare/tolerance.rs rest on it. Run `cargo test --release` first: it rebuilds the GGUF files that the
# repository does not ship. Usage: benches/rounding_floors.sh [PROMPT FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-models/README.md}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
head -c 1500 "$prompt" > "$folder/prompt"
for name in tiny-qwen2 tiny-gpt2; do
  record() {
    target/release/actrace record --model "$1" --tokenizer "models/$name/tokenizer.json" \
      --prompt-file "$folder/prompt" --label "$2" --out "$folder/$name.actrace" > /dev/null 2>&1
  }
  record "models/$name" original
  for type in f16 q8_0 q4_k_m; do
    file=models/$name/$name.$type.gguf
    [ -e "$file" ] || file=target/tmp/models/$name.$type.gguf
    record "$file" "$type"
    target/release/actrace-query compare "$folder/$name.actrace" --reference original --target "$type" \
      --format csv 2> /dev/null > "$folder/rows.csv" || true
    python3 - "$name" "$type" "$folder/rows.csv" <<'P'
import csv, sys
rows = list(csv.DictReader(open(sys.argv[3])))
worst = max(rows, key=lambda row: float(row["rel_l2"]))
print(*sys.argv[1:3], "rows", worst["rows"], "largest rel_l2", worst["rel_l2"][:6], "layer", worst["layer"], worst["point"])
P
  done
done
