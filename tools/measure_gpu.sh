#!/usr/bin/env bash
# All that is to be measured on a GPU, in one call: the training step beside torchvision's, and a training on nuclei.
#
#   tools/measure_gpu.sh runs/gpu          # some minutes on one card; writes runs/gpu/*.log and metrics.json
#
# Wants the [pjrt-cuda12] or [pjrt-cuda13] extra in the Python that runs it (PYTHON=...), and torchvision for the peers.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
python=${PYTHON:-python3}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/card.log"

# ResNet-50 by the paper's recipe, 80 classes, 100 regions, 50 boxes an image, the batch in memory.
step() {
    "$python" -m tpu_retinamask.benchmark --runtime=pjrt --mode=jit --gin_file=recipe/retinamask_r50.gin \
        --gin_param="RetinaMask.dtype = 'mixed_bfloat16'" --gin_param="train.batch_size = 16" \
        --gin_param="benchmark.batch_size = 16" --gin_param="benchmark.max_instances = 100" \
        --gin_param="benchmark.steps = 30" --gin_param="benchmark.image_size = $1" "${@:3}" | tee "$out/step_$2.log"
}
step "(640, 640)" 640
step "(832, 1344)" 832
step "(640, 640)" 640_gathers --gin_param="RetinaMask.roi_implementation = 'gather'"

if "$python" -c "import torchvision" 2>/dev/null; then
    for model in maskrcnn_resnet50_fpn retinanet_resnet50_fpn; do
        for size in "640 640" "832 1344"; do
            # shellcheck disable=SC2086  # two numbers
            "$python" tools/torchvision_step.py "$model" 16 $size | tee -a "$out/torchvision.log"
        done
    done
else
    echo "torchvision is not installed: no peers" | tee "$out/torchvision.log"
fi

nuclei=examples/nuclei
"$python" -m tpu_retinamask.train --runtime=pjrt --annotations=$nuclei/train.csv --classes=$nuclei/classes.csv \
    --val_annotations=$nuclei/val.csv --model_dir="$out/nuclei" --gin_file=run/nuclei_demo.gin 2>&1 | tee "$out/nuclei.log"
"$python" -m tpu_retinamask.evaluate --runtime=pjrt --annotations=$nuclei/val.csv --model_dir="$out/nuclei" \
    --metrics="$out/metrics.json" 2>&1 | tee "$out/evaluate.log"
