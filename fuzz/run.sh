#!/usr/bin/env bash
# Fuzzes every target for a time, from the seeds in the repository; stops at the first finding.
#
#   fuzz/run.sh [SECONDS_PER_TARGET] [TARGET..]     60 seconds, all targets
#   fuzz/run.sh --shrink [TARGET..]                 keeps what was found, made small, as seeds
#
# Needs a nightly toolchain and cargo-fuzz (`cargo install cargo-fuzz --locked`). What is found on
# the way is kept in fuzz/corpus, which is not in the repository.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TERM_COLOR=never

# Seeds of a target in the repository: so many files, none longer than this.
max_seeds=20
max_seed_bytes=1024

shrink=
seconds=60
case "${1:-}" in
  --shrink) shrink=yes && shift ;;
  [0-9]*) seconds="$1" && shift ;;
  -*) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)

# Only the maps have unsafe code for the sanitizer to look at.
sanitizer() { [ "$1" = view ] && echo address || echo none; }

for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "seeds/$target"
  if [ -n "$shrink" ]; then
    cargo +nightly fuzz cmin -s "$(sanitizer "$target")" "$target" -- -max_len="$max_seed_bytes"
    # The largest tell the most; of those, few are enough to start from.
    find "corpus/$target" -type f -size "-$((max_seed_bytes + 1))c" -printf '%s %p\n' |
      sort -rn | head -n "$max_seeds" | cut -d' ' -f2 |
      while read -r file; do cp "$file" "seeds/$target/"; done
    continue
  fi
  log="target/$target.log"
  mkdir -p target
  if ! cargo +nightly fuzz run -s "$(sanitizer "$target")" "$target" \
    "corpus/$target" "seeds/$target" -- \
    -max_total_time="$seconds" -max_len=8192 -len_control=0 -print_final_stats=1 >"$log" 2>&1; then
    tail -n 40 "$log"
    echo "FOUND: $target ($log); the input is in fuzz/artifacts/$target"
    exit 1
  fi
  executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  echo "$target: $executions executions in $seconds s, nothing found"
done
