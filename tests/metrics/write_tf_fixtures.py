"""Writes the checkpoints of `fixtures/tf` with TensorFlow itself, and the outputs of StackGAN's evaluation Inception.

    pip install tensorflow-cpu==2.21.0 pillow cramjam   # in an environment of its own
    python write_tf_fixtures.py AUTHORS [FOLDER]        # hanzhanggit/StackGAN-inception-model at commit 971a2ef

The tests need neither TensorFlow nor the authors' code: they import the names and numbers from here and read what was
written. Weights are a function of their variables' names, so that no file has to carry them; the checkpoints of the
whole network, of 98 MB each, are written only where a FOLDER is given.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures" / "tf"
AVERAGE = "/ExponentialMovingAverage"
NUM_CLASSES = {"cub": 50, "oxford102": 20}

# Names, types and shapes of all kinds: a scalar, nothing at all, long repetitions, negative and large integers.
VARIABLES = {
    "conv0/weights": ("float32", (3, 3, 3, 4)),
    "conv0/weights/ExponentialMovingAverage": ("float32", (3, 3, 3, 4)),
    "conv0/zeros": ("float32", (40, 30)),
    "global_step": ("int64", ()),
    "flags": ("bool", (5,)),
    "half": ("float16", (3, 2)),
    "double": ("float64", (2, 2)),
    "integers": ("int32", (7,)),
    "bytes": ("uint8", (6,)),
    "signed": ("int8", (6,)),
    "nothing": ("float32", (0, 3)),
    "partitioned": ("float32", (70, 3)),  # in two parts of 35 rows
    "wide": ("float32", (2, 200)),  # in two parts of 100 columns, a place of two bytes in a key
}
PARTS = {"partitioned": (2, 1), "wide": (1, 2)}


def stream(name):
    return np.random.RandomState(zlib.crc32(name.encode()))


def values(name):
    """What a variable of `VARIABLES` holds."""
    dtype, shape = VARIABLES[name]
    if name == "conv0/zeros":
        return np.zeros(shape, dtype)
    if name == "global_step":
        return np.array(-(2**40) - 5, dtype)
    drawn = stream(name).standard_normal(shape)
    return (drawn * 60 % (256 if dtype == "uint8" else 100)).astype(dtype) if dtype != "bool" else drawn > 0


def inception_variable(name, shape):
    """What a variable of the authors' Inception holds: of a size that keeps activations in range."""
    drawn = stream(name).standard_normal(shape).astype(np.float32)
    match name.removesuffix(AVERAGE).rpartition("/")[2]:
        case "weights":
            return drawn * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        case "moving_variance":
            return np.float32(0.5) + np.abs(drawn)
        case _:
            return drawn * np.float32(0.1)


def inception_images():
    """Two pictures of 75 x 100 with coarse and fine parts: (2, 75, 100, 3) uint8."""
    draw = stream("images").randint
    coarse = np.kron(draw(0, 200, (2, 15, 20, 3)), np.ones((1, 5, 5, 1), int))
    return (coarse + draw(0, 56, coarse.shape)).astype(np.uint8)


def repetitive():
    """Bytes with repetitions near and far, short and long, that Snappy compresses in all its ways."""
    noise = stream("noise").bytes(300)
    return noise + noise[:200] + b"abcd" * 30 + b"x" * 400 + noise[-40:-20] + noise[100:110]


def part_of(value):
    """An initialiser of the parts of a partitioned variable."""

    def initialise(shape, dtype, partition_info):
        place = zip(partition_info.var_offset, shape, strict=True)
        return value[tuple(slice(start, start + size) for start, size in place)]

    return initialise


def variable(v1, name):
    """Makes a variable of `VARIABLES` in TensorFlow."""
    if name not in PARTS:
        return v1.get_variable(name, initializer=values(name))
    dtype, shape = VARIABLES[name]
    return v1.get_variable(
        name, shape, dtype, part_of(values(name)), partitioner=lambda shape, dtype: list(PARTS[name])
    )


def write_checkpoints(tf):
    v1 = tf.compat.v1
    for version, folder in ((v1.train.SaverDef.V1, "v1"), (v1.train.SaverDef.V2, "v2")):
        with tf.Graph().as_default(), v1.Session() as session:
            for name in VARIABLES:
                variable(v1, name)
            session.run(v1.global_variables_initializer())
            (FIXTURES / folder).mkdir(parents=True, exist_ok=True)
            saver = v1.train.Saver(write_version=version)
            saver.save(session, str(FIXTURES / folder / "model.ckpt"), write_meta_graph=False, write_state=False)


def record_inception(tf, authors):
    """Builds the authors' graph by their own code, gives it our weights and notes names, shapes and predictions."""
    from PIL import Image

    sys.modules["tensorflow"] = tf.compat.v1  # the authors wrote for TensorFlow 1
    sys.path.insert(0, authors)
    from inception.slim import slim

    v1 = tf.compat.v1
    pictures = [Image.fromarray(image).resize((299, 299), Image.Resampling.BILINEAR) for image in inception_images()]
    inputs = np.stack([np.asarray(picture, np.float32) for picture in pictures]) / 127.5 - 1
    recorded = {}
    for data, num_classes in NUM_CLASSES.items():
        with tf.Graph().as_default(), v1.Session() as session:
            with slim.arg_scope([slim.ops.conv2d], activation=tf.nn.relu, batch_norm_params={"epsilon": 0.001}):
                placeholder = v1.placeholder(tf.float32, [len(inputs), 299, 299, 3])
                logits, _ = slim.inception.inception_v3(placeholder, num_classes=num_classes + 1, is_training=False)
            averages = v1.train.ExponentialMovingAverage(0.9999).variables_to_restore()
            variables = {name: average.shape.as_list() for name, average in averages.items()}
            for name, average in averages.items():
                average.load(inception_variable(name, variables[name]), session)
            predicted = session.run(tf.nn.softmax(logits[:, 1:]), {placeholder: inputs})
            recorded[data] = {"variables": variables, "predictions": predicted.astype(float).tolist()}
            if len(sys.argv) > 2:
                v1.train.Saver(averages, write_version=v1.train.SaverDef.V1).save(session, f"{sys.argv[2]}/{data}.ckpt")
    (FIXTURES / "inception.json").write_text(json.dumps(recorded) + "\n")


if __name__ == "__main__":
    import cramjam
    import tensorflow

    FIXTURES.mkdir(parents=True, exist_ok=True)
    (FIXTURES / "snappy.bin").write_bytes(bytes(cramjam.snappy.compress_raw(repetitive())))
    tensorflow.compat.v1.disable_v2_behavior()
    write_checkpoints(tensorflow)
    record_inception(tensorflow, sys.argv[1])
