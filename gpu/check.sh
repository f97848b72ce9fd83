#!/usr/bin/env bash
# bash gpu/check.sh [FOLDER]: does it all run on a GPU, does Unsloth train the same, how fast?
# Under eight minutes on one GPU, without a network. Parts that fail or take too long are said at
# the end; results lie in FOLDER (default: data/results/gpu).
cd "$(dirname "$0")/.." || exit
out=${1:-data/results/gpu}
python=${PYTHON:-python3}
mkdir -p "$out" && out=$(cd "$out" && pwd)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TQDM_DISABLE=1
failed=()

part() { # part NAME SECONDS COMMAND...: the output into FOLDER/NAME.json, errors into NAME.log
    local name=$1 limit=$2
    shift 2
    timeout -k 5 "$limit" "$@" >"$out/$name.json" 2>"$out/$name.log"
}

rm -rf "$out"/*.json "$out"/*.log
part adapter 90 "$python" gpu/steps.py adapter "$out/start" || failed+=(adapter)

# Side by side: eight first steps and the tests.
jobs=()
for method in sft grpo; do
    for backend in hf unsloth; do
        for precision in bf16 nf4; do
            name=first-$method-$backend-$precision
            UNSLOTH_COMPILE_LOCATION="$out/start/$name" part "$name" 150 \
                "$python" gpu/steps.py first $method $backend $precision "$out/start" &
            jobs+=("$!:$name")
        done
    done
done
part tests 210 "$python" -m pytest -q --maxfail=30 -p no:cacheprovider -n 6 \
    tests/test_decoder.py tests/test_models.py tests/test_trainers.py tests/test_train.py \
    tests/test_rollout.py tests/test_distillation.py tests/test_hybrids.py &
jobs+=("$!:tests")
for job in "${jobs[@]}"; do
    wait "${job%%:*}" || failed+=("${job#*:}")
done

# Alone: what is timed.
for case in "hf fp32 engine" "hf fp32 plain" "hf bf16 plain" "hf nf4 plain" \
    "unsloth bf16 plain" "unsloth nf4 plain"; do
    name=speed-${case// /-}
    part "$name" 60 "$python" gpu/steps.py speed $case || failed+=("$name")
done
for precision in fp32 bf16; do
    part "sample-$precision" 60 "$python" gpu/steps.py sample $precision ||
        failed+=("sample-$precision")
done

tail -n 40 "$out/tests.json"
"$python" gpu/summary.py "$out" || failed+=(parity)
rm -rf "$out/start"
for name in "${failed[@]}"; do
    echo "FAILED $name: $(tail -n 1 "$out/$name.log" 2>/dev/null)"
done
[ ${#failed[@]} -eq 0 ]
