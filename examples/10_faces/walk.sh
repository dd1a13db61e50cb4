#!/bin/sh
# From a folder of images by person to a net for a chip:
#
#   FACES=/folder examples/10_faces/walk.sh
#
# FACES       a folder with a folder for each person; faces cut out already, or with
# LANDMARKS   a list of its files, `FILE X1 Y1 ... X5 Y5` (see `caffe-metric align --help`), or
# YUNET       OpenCV's detector, face_detection_yunet_*.onnx, which finds the landmarks, or
# MTCNN       a folder with MTCNN's Caffe nets, det1 to det3, which do
# TRUNK       a net with an Input, as those of nets/ (small.prototxt); its sides are the images'
# OUT         where everything goes (faces)
# PRESETS     the ways to train that are compared; the last one is deployed
# ITERATIONS  of each training (else 20 epochs)
# EVERY       every so many-th person is kept for the test (4)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
FACES=${FACES:?a folder with a folder of images for each person}
TRUNK=${TRUNK:-$here/small.prototxt}
OUT=${OUT:-faces}
PRESETS=${PRESETS:-softmax softmax-then-triplet a-softmax arcface}
EVERY=${EVERY:-4}
PYTHON=${PYTHON:-python3}

caffe_metric() {
    echo "+ caffe-metric $*" >&2
    "$PYTHON" -m caffe_metric "$@"
}

# The numbers of the Input's shape: images, channels, height, width.
shape=$(sed 's/#.*//' "$TRUNK" | tr -s ' {}' '\n' | grep -A 1 '^dim:$' | grep '^[0-9]')
channels=$(echo "$shape" | sed -n 2p)
size=$(echo "$shape" | sed -n 4p)x$(echo "$shape" | sed -n 3p)
gray=
[ "$channels" = 1 ] && gray=--gray
mkdir -p "$OUT"

# An image that cannot be read is left out, and named; the walk goes on.
echo "== align"
if [ -n "${LANDMARKS:-}" ]; then
    caffe_metric align "$LANDMARKS" "$OUT/aligned" --size "$size" || [ -s "$OUT/aligned/left_out.txt" ]
elif [ -n "${YUNET:-}${MTCNN:-}" ]; then
    find "$(cd "$FACES" && pwd)" -type f | LC_ALL=C sort >"$OUT/files.txt"
    caffe_metric align "$OUT/files.txt" "$OUT/aligned" --size "$size" \
        ${YUNET:+--yunet "$YUNET"} ${MTCNN:+--mtcnn "$MTCNN"} || [ -s "$OUT/aligned/left_out.txt" ]
else
    echo "no LANDMARKS, YUNET or MTCNN: the images of $FACES are taken for aligned faces"
fi
people=$OUT/aligned
[ -n "${LANDMARKS:-}${YUNET:-}${MTCNN:-}" ] || people=$FACES

echo "== convert: every ${EVERY}th person is kept for the test, no net sees them"
count=$(find "$people" -mindepth 1 -maxdepth 1 -type d | wc -l)
unseen=$(seq -s, 0 "$EVERY" $((count - 1)))
caffe_metric convert "$people" "$OUT/train.lmdb" --exclude-classes "$unseen" --relabel \
    --size "$size" $gray --order random --force || [ -s "$OUT/train.lmdb/left_out.txt" ]
caffe_metric convert "$people" "$OUT/test.lmdb" --include-classes "$unseen" \
    --size "$size" $gray --force || [ -s "$OUT/test.lmdb/left_out.txt" ]

files=
for preset in $PRESETS; do
    echo "== train: $preset"
    made=$OUT/$preset
    caffe_metric preset "$preset" --trunk "$TRUNK" --data "$OUT/train.lmdb" -o "$made" \
        --mean 127.5 --scale 0.0078125 --mirror ${ITERATIONS:+--iterations "$ITERATIONS"} \
        >"$made.txt"
    grep -v '^caffe-metric train' "$made.txt" || true
    grep '^caffe-metric train' "$made.txt" | sed 's/^.*--solver \([^ ]*\) .*$/\1/' |
        while read -r solver; do
            caffe_metric lint "${solver%solver.prototxt}net.prototxt"
            caffe_metric train --solver "$solver"
        done
    weights=$(find "$made" -name '*.caffemodel' -exec ls -t {} + | head -n 1)

    echo "== deploy: $preset"
    caffe_metric deploy --net "$made/net.prototxt" --weights "$weights" -o "$made/deployed" --onnx

    echo "== extract: the people that no net has seen"
    caffe_metric extract --net "$made/deployed" --data "$OUT/test.lmdb" -o "$OUT/$preset.npz"
    files="$files $OUT/$preset.npz"
done

echo "== eval: all of them, raw pixels beside; see $OUT/report/report.html"
# shellcheck disable=SC2086
caffe_metric eval $files --images "$OUT/test.lmdb" -o "$OUT/report"

echo "== mine: triplets of the training's images, by the last net"
caffe_metric extract --net "$made/deployed" --data "$OUT/train.lmdb" -o "$OUT/train.npz"
caffe_metric mine "$OUT/train.npz" -o "$OUT/triplets.txt"

echo "== embed: the deployed net in OpenCV and onnxruntime"
image=$(find "$people" -type f | LC_ALL=C sort | head -n 1)
"$PYTHON" "$here/embed.py" "$made/deployed" "$image"
