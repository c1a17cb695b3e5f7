#!/usr/bin/env bash
# Everything that is measured on a GPU, in one call of less than nine minutes: the tables of docs/benchmarks/gpu.md.
#
#   benchmarks/gpu.sh docs/benchmarks          on a GPU
#   benchmarks/gpu.sh --tiny OUT               the same commands on a CPU with tiny sizes, to try the script itself
#
# A part that fails or takes too long is reported, and the others go on.
set -uo pipefail
cd "$(dirname "$0")/.."
tiny=false
if [ "${1:-}" = --tiny ]; then tiny=true; shift; fi
out=$(realpath "${1:?where the results go}")/gpu
python=${PYTHON:-python}
mkdir -p "$out"
# A cache of its own, so that the first compilation is a first one.
TORCHINDUCTOR_CACHE_DIR=$(mktemp -d)
export TORCHINDUCTOR_CACHE_DIR

device=cuda; large=cifar10_unet; larger=lsun_church64; count=50000; count64=10000; batch=1000; batches=(64 4096)
time=(--steps 10 --rounds 3); compiled=max; sizes=(); cases=(--compile)
if $tiny; then
    device=cpu; count=6; count64=4; batch=3; batches=(2 8); time=(--steps 1 --rounds 2); compiled=auto; cases=()
    sizes=(--set energy.channels=8 --set time_steps=2 --set buffer.size=64 --set train.batch_size=4 --set train.threads=1)
fi

# name, most seconds, command
part() {
    local name=$1 limit=$2 begin=$SECONDS
    shift 2
    if timeout "$limit" "$@" > "$out/$name.log" 2>&1; then
        echo "ok      $name ($((SECONDS - begin)) s)"
    else
        echo "FAILED  $name ($((SECONDS - begin)) s): $(tail -n 1 "$out/$name.log")"
    fi
}

bench=("$python" -m ebmkit bench)
part eager 70 "${bench[@]}" $large --device $device "${time[@]}" "${sizes[@]}" --json "$out/eager.json"
part compiled 110 "${bench[@]}" $large --device $device "${time[@]}" "${sizes[@]}" --set train.fast=$compiled \
    --json "$out/compiled.json" --picture "$out/compiled.png"
part draw32 100 "$python" benchmarks/drawing.py $large --count $count --batch-size $batch --device $device \
    --fast $compiled "${sizes[@]}" --json "$out/draw32.json"
# Once more, in a new process: what was compiled is in the cache now.
part again 60 "$python" benchmarks/drawing.py $large --count $batch --batch-size $batch --device $device \
    --fast $compiled "${sizes[@]}" --json "$out/again.json"
part draw64 110 "$python" benchmarks/drawing.py $larger --count $count64 --batch-size $((batch / 2 + 1)) --device $device \
    --fast $compiled "${sizes[@]}" --json "$out/draw64.json"
part data 40 "${bench[@]}" $large --data --device $device "${time[@]}" "${sizes[@]}" --json "$out/data.json"
part batches 60 "$python" benchmarks/batches.py $large --device $device --first "${batches[0]}" --last "${batches[1]}" \
    "${sizes[@]}" --json "$out/batches.json"
part parts 120 "$python" benchmarks/parts.py $large --device $device --rounds 3 "${cases[@]}" "${sizes[@]}" \
    --json "$out/parts.json"
"$python" benchmarks/gpu_page.py "$out"
