#!/bin/sh
# Install the peers into an environment of their own: anomalib alone brings some six gigabytes.
#
#     sh benchmarks/install_peers.sh [FOLDER]      # by default .peers beside this file
#
# Then: python benchmarks/peers.py [--python FOLDER/bin/python], or make bench BENCH=--peers
set -eu
folder="${1:-$(dirname "$0")/.peers}"
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet "anomalib>=2.7,<2.8" "adeval>=1.1" "openvino>=2024.4" "onnxscript>=0.2"
"$folder/bin/python" -c "import anomalib; print('anomalib', anomalib.__version__, 'is ready')"
