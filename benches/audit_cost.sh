#!/usr/bin/env bash
# What an audit costs beside the recording of the same tokens: 480 tokens of prompt and 64 decode steps, everything
# captured; best of five rounds, seconds of wall time, and the audit's largest memory. Run `cargo test --release` first:
# it rebuilds the GGUF files that the repository does not ship. Usage: benches/audit_cost.sh
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 - > "$folder/tokens" <<'P'
import random
random.seed(1)
print(*(random.randrange(3, 1900) for _ in range(480)), sep=",")
P
best() { # COMMAND...: least seconds of five runs, most KiB of memory
  for _ in 1 2 3 4 5; do
    rm -f "$folder/out.actrace"
    /usr/bin/time -o "$folder/time" -f "%e %M" "$@" > "$folder/said" 2>&1 || { cat "$folder/said"; exit 1; }
    cat "$folder/time"
  done | sort -n | awk 'NR == 1 { seconds = $1 } { if ($2 > most) most = $2 } END { print seconds, most }'
}
for name in tiny-qwen2 tiny-gpt2; do
  for type in bf16 f16 q8_0 q4_k_m; do
    file=models/$name/$name.$type.gguf
    [ -e "$file" ] || file=target/tmp/models/$name.$type.gguf
    [ "$type" = bf16 ] && file=models/$name
    record=(target/release/actrace record --model "$file" --tokens-file "$folder/tokens" --generate 65 --label run)
    "${record[@]}" --out "$folder/run.actrace" > /dev/null 2>&1
    read -r recording _ <<< "$(best "${record[@]}" --out "$folder/out.actrace")"
    audit=(target/release/actrace-query audit "$folder/run.actrace" --run run)
    read -r whole memory <<< "$(best "${audit[@]}" --model "$file" --original "models/$name")"
    read -r alone _ <<< "$(best "${audit[@]}" --original "models/$name")"
    python3 - "$name" "$type" "$recording" "$whole" "$alone" "$memory" <<'P'
import sys
name, kind, recording, whole, alone, memory = sys.argv[1:3] + [float(text) for text in sys.argv[3:]]
print(f"{name:10} {kind:6} recording {recording:.2f} s, parts A and B {whole:.2f} s ({whole / recording:.1f}), "
      f"part C {alone:.2f} s ({alone / recording:.1f}), at most {memory / 1024:.0f} MiB")
P
    rm "$folder/run.actrace"
  done
done
