#!/usr/bin/env bash
# Everything that wants a GPU, in one run that builds nothing: the tests, compute-sanitizer, the goldens, the
# benchmarks, and PyTorch beside them. Ends in one table.
#
#     benches/gpu.sh BUNDLE OUT            BUNDLE is made by benches/gpu_bundle, OUT is a folder for the records
#
#     TASR_TEST_DEVICE=cuda                cuda, cuda:N; `emulator` is a dry run of this script with no GPU
#     TASR_PEER_PYTHON=/path/to/python     a Python with torch, numpy and safetensors; without it no peer is timed
#     TASR_GPU_STEPS="info kernels"        only these steps
#
# A step that cannot run here (no compute-sanitizer, no torch) is named NOT RUN and does not fail the run.
set -uo pipefail

if [ $# -ne 2 ]; then
    sed -n '2,12s/^# \{0,1\}//p' "$0"
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
bundle=$(cd "$1" && pwd) || exit 2
mkdir -p "$2" && out=$(cd "$2" && pwd) || exit 2
device=${TASR_TEST_DEVICE:-cuda}
export TASR_TEST_DEVICE=$device
# Where the tests find their fixtures; the path that was built in is another machine's.
export CARGO_MANIFEST_DIR=$root
for name in tasr kernels golden; do
    [ -x "$bundle/$name" ] || { echo "benches/gpu.sh: $bundle/$name is missing; benches/gpu_bundle makes it"; exit 2; }
done

dry=false
preset=sd21
kernel_flags=()
if [ "$device" = emulator ]; then
    dry=true
    preset=tiny
    export TASR_EMULATOR_CHECK=0
    kernel_flags=(--at-most 0.02 --repeats 1 --batch-ms 0 --filter 8x8)
fi

names=() verdicts=() times=()
failed=0

wanted() {
    [ -z "${TASR_GPU_STEPS:-}" ] || [[ " $TASR_GPU_STEPS " == *" $1 "* ]]
}

record() {
    names+=("$1") verdicts+=("$2") times+=("$3")
    printf '%-22s %s (%s s)\n' "$1" "$2" "$3"
}

# step NAME COMMAND...: runs it, its output in OUT/NAME.log.
step() {
    local name=$1 start=$SECONDS
    shift
    wanted "$name" || return 0
    if "$@" > "$out/$name.log" 2>&1; then
        record "$name" ok $((SECONDS - start))
    else
        record "$name" "FAILED, see $out/$name.log" $((SECONDS - start))
        tail -n 5 "$out/$name.log"
        failed=1
    fi
}

# absent NAME WHY: a step that cannot run here.
absent() {
    wanted "$1" && record "$1" "NOT RUN: $2" 0
}

golden() {
    TASR_GOLDEN_DEVICE=$device TASR_GOLDEN_DTYPE=$1 "$bundle/golden" "${@:2}"
}

json() {
    local name=$1
    shift
    "$bundle/tasr" "$@" --json > "$out/$name.jsonl" && cat "$out/$name.jsonl"
}

step info "$bundle/tasr" info --device
step kernels "$bundle/kernels"

# --- compute-sanitizer: every access and every pair of accesses of the kernel tests ----------------------
for tool in memcheck racecheck; do
    if $dry; then
        absent "$tool" "the emulator checks accesses itself"
    elif command -v compute-sanitizer > /dev/null; then
        # Slow: one test at a time, and without those that are large.
        step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 --launch-timeout 0 \
            "$bundle/kernels" --test-threads 1
    else
        absent "$tool" "compute-sanitizer is not installed"
    fi
done

# --- whole networks and a whole run against the official implementation ---------------------------------
if $dry; then
    step golden_f32 golden f32 units nets_tiny
    step golden_f16 golden f16 nets_tiny
else
    for dtype in f32 f16 bf16; do
        step "golden_$dtype" golden $dtype
    done
fi

# --- speed -----------------------------------------------------------------------------------------------
step bench_kernels json bench_kernels bench kernels --device "$device" --preset $preset --dtype f16 \
    "${kernel_flags[@]}" --plot "$out/roofline.svg"
parts=step,stage1,vae_encode,vae_decode,text,pipeline
$dry && parts=text
size=(--size 512)
$dry && size=(--size 64 --repeats 1 --warmup 0)
step bench_pipeline json bench_pipeline bench pipeline --device "$device" --preset $preset --dtype f16 --parts $parts \
    "${size[@]}"
for batch in 4 8; do
    $dry || step "bench_batch_$batch" json "bench_batch_$batch" bench pipeline --device "$device" --dtype f16 \
        --parts step,vae_decode,pipeline --batch $batch
done

$dry || step bench_train json bench_train bench train --device "$device" --dtype bf16 --batch 8

if [ -z "${TASR_PEER_PYTHON:-}" ] || ! "$TASR_PEER_PYTHON" -c 'import torch' 2> /dev/null; then
    absent peers "TASR_PEER_PYTHON names no Python with torch"
    absent peer_kernels "TASR_PEER_PYTHON names no Python with torch"
else
    peers() {
        local flags=("${@:2}")
        "$root/benches/peers/run" --program "$bundle/tasr" --device "$device" --dtype f16 --preset $preset \
            "${flags[@]}" > "$out/$1.jsonl" && cat "$out/$1.jsonl"
    }
    if $dry; then
        absent peers "PyTorch has no emulator"
    else
        step peers_eager peers peers_eager --peer-channels-last
        step peers_graphs peers peers_graphs --peer-channels-last --peer-cuda-graphs
        step peers_compile peers peers_compile --peer-channels-last --peer-compile
        step peers_batch_8 peers peers_batch_8 --peer-channels-last --peer-cuda-graphs --batch 8 --parts step,pipeline
        step peers_train "$TASR_PEER_PYTHON" "$root/benches/peers/reference/bench_torch.py" --dtype bf16 \
            --channels-last --no-inference --train-batch 8 --checkpointing yes --repeats 3
    fi
    peer_kernels() {
        "$TASR_PEER_PYTHON" "$root/benches/peers/kernels" --device "${device%%emulator*}" "$out/bench_kernels.jsonl" \
            > "$out/peer_kernels.jsonl" && cat "$out/peer_kernels.jsonl"
    }
    [ -s "$out/bench_kernels.jsonl" ] && step peer_kernels peer_kernels
fi

# --- one table -------------------------------------------------------------------------------------------
{
    echo
    echo "device: $device; $(date -u +%Y-%m-%d)"
    for place in "${!names[@]}"; do
        printf '%-22s %8s s  %s\n' "${names[$place]}" "${times[$place]}" "${verdicts[$place]}"
    done
    if command -v python3 > /dev/null; then
        python3 "$root/benches/table" "$out"
    fi
} | tee "$out/table.txt"
exit $failed
