#!/usr/bin/env bash
# Everything that is measured on a GPU, in one call of less than nine minutes: the tables of docs/benchmarks/gpu.md.
#
#   benchmarks/gpu.sh docs/benchmarks          on a GPU
#   benchmarks/gpu.sh --tiny OUT               the same commands on a CPU with tiny sizes, to try the script itself
#
# A part that fails or takes too long is reported, and the others go on; the most important ones come first.
set -uo pipefail
cd "$(dirname "$0")/.."
tiny=false
if [ "${1:-}" = --tiny ]; then tiny=true; shift; fi
out=$(realpath "${1:?where the results go}")/gpu
python=${PYTHON:-python}
most=520
mkdir -p "$out"
# What an earlier call measured must not pass for this one's.
rm -f "$out"/*.json "$out"/*.log "$out"/*.png "$out"/driver.txt
# A cache of its own, so that the first compilation is a first one.
TORCHINDUCTOR_CACHE_DIR=$(mktemp -d)
TRITON_CACHE_DIR=$TORCHINDUCTOR_CACHE_DIR/triton
export TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR
trap 'rm -rf "$TORCHINDUCTOR_CACHE_DIR"' EXIT

device=cuda; large=cifar10_unet; larger=celeba64; count=50000; batch=1000; count64=5000; batch64=500; batches=(64 4096)
time=(--steps 2 --rounds 5); compiled=max; sizes=()
if $tiny; then
    device=cpu; count=6; batch=3; count64=4; batch64=2; batches=(2 8); time=(--steps 1 --rounds 2); compiled=auto
    sizes=(--set energy.channels=8 --set time_steps=2 --set buffer.size=64 --set train.batch_size=4 --set train.threads=1)
else
    nvidia-smi --query-gpu=driver_version --format=csv,noheader --id=0 > "$out/driver.txt" || rm -f "$out/driver.txt"
fi

# name, most seconds, command
part() {
    local name=$1 limit=$2 begin=$SECONDS left=$((most - SECONDS)) code
    shift 2
    if [ "$left" -lt 10 ]; then
        echo "SKIPPED $name: the time is up"
        return
    fi
    timeout --kill-after=5 $((limit < left ? limit : left)) "$@" > "$out/$name.log" 2>&1
    code=$?
    case $code in
        0) echo "ok      $name ($((SECONDS - begin)) s)" ;;
        124 | 137) echo "FAILED  $name: not done after $((SECONDS - begin)) s" ;;
        *) echo "FAILED  $name ($((SECONDS - begin)) s): $(tail -n 1 "$out/$name.log")" ;;
    esac
}

bench=("$python" -m ebmkit bench)
where=(--device $device "${sizes[@]}")
part compiled 170 "${bench[@]}" $large "${where[@]}" "${time[@]}" --set train.fast=$compiled \
    --json "$out/compiled.json" --picture "$out/compiled.png"
part draw32 150 "$python" benchmarks/drawing.py $large "${where[@]}" --count $count --batch-size $batch \
    --fast $compiled --json "$out/draw32.json"
# Once more, in a new process: what was compiled is in the cache now.
part again 60 "$python" benchmarks/drawing.py $large "${where[@]}" --count $batch --batch-size $batch \
    --fast $compiled --json "$out/again.json"
part eager 60 "${bench[@]}" $large "${where[@]}" "${time[@]}" --json "$out/eager.json"
part draw64 120 "$python" benchmarks/drawing.py $larger "${where[@]}" --count $count64 --batch-size $batch64 \
    --fast $compiled --json "$out/draw64.json"
part data 40 "${bench[@]}" $large "${where[@]}" "${time[@]}" --data --json "$out/data.json"
part strict 90 "$python" benchmarks/strict.py $large "${where[@]}" "${time[@]}" --set train.fast=$compiled \
    --json "$out/strict.json"
part batches 60 "$python" benchmarks/batches.py $large "${where[@]}" --first "${batches[0]}" --last "${batches[1]}" \
    --json "$out/batches.json"
part parts 90 "$python" benchmarks/parts.py $large "${where[@]}" --rounds 3 --json "$out/parts.json"
# Those of the tests that need a GPU; they are skipped without one.
part tests 60 "$python" -m pytest -q tests/test_no_sync.py tests/distributed/test_one_process.py -k "gpu or cuda"
"$python" benchmarks/gpu_page.py "$out"
