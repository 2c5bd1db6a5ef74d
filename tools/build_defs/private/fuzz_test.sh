#!/bin/bash
# Runs a fuzz target, for cc_fuzz_test.
#
# Usage: fuzz_test.sh corpus|fuzz TARGET FILE...
#
# corpus: TARGET, which has an ordinary main function, gets the FILEs.
# fuzz: libFuzzer begins with the FILEs and goes on for $FUZZ_SECONDS (30). What
#   it finds to crash is in the test's outputs.zip; to keep new inputs that are
#   worth it, set FUZZ_CORPUS to a folder of your own:
#
#   bazel test --config=fuzz //tests/ipc/mqueue:queue_fuzz_test \
#     --test_env=FUZZ_SECONDS=3600 --test_env=FUZZ_CORPUS=/tmp/corpus \
#     --sandbox_writable_path=/tmp/corpus --test_timeout=4000
set -euo pipefail

mode=$1
target=$2
shift 2
[[ $mode == fuzz ]] || exec "$target" "$@"

inputs=$TEST_TMPDIR/inputs
mkdir "$inputs"
cp -- "$@" "$inputs"
# libFuzzer adds what it finds to the first folder.
exec "$target" -max_total_time="${FUZZ_SECONDS:-30}" -timeout=10 \
  -print_final_stats=1 -verbosity=1 \
  -artifact_prefix="$TEST_UNDECLARED_OUTPUTS_DIR/" \
  ${FUZZ_CORPUS:+"$FUZZ_CORPUS"} "$inputs"
