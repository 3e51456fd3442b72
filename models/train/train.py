"""Trains one of the small classifiers and writes its ONNX file.

    python train.py fashion-mnist DATA OUT.onnx --epochs 36
    python train.py mnist         DATA OUT.onnx --epochs 14

DATA is the folder that `fetch` filled. The last 5,000 training pictures are not learned from but counted on the way: compare
recipes by them, and leave the test pictures to `card.py`. `--held-out 0` learns from all. What is written is the running average
of the weights after the last step.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

import datasets
import network

BATCH = 128
PEAK_RATE = 4e-3       # of the learning rate, reached after WARM_UP of all steps, then a cosine down to 0
WARM_UP = 0.1
WEIGHT_DECAY = 0.02    # decoupled (AdamW), on kernels only
FIRST_MOMENT, SECOND_MOMENT = 0.9, 0.99
AVERAGE = 0.998        # of the running average of the weights
SMOOTHING = 0.05       # of the labels
DROPOUT = 0.3          # before the dense layer

# Ranges of the random changes. Clothes may be mirrored and hang straight; handwriting leans and wanders.
CHANGES = {
    "fashion-mnist": {"mirror": True, "size": (0.94, 1.06), "shift": 1.5, "turn": 0.03},
    "mnist": {"mirror": False, "size": (0.85, 1.15), "shift": 2.5, "turn": 0.22},
}


def layers(plan):
    keras = tf.keras.layers
    chain = [keras.Input((28, 28, 1))]
    for layer in plan:
        if layer == network.POOL:
            chain.append(keras.MaxPool2D(2))
        else:
            chain.append(keras.Conv2D(layer, 3, padding="same", use_bias=False, kernel_initializer="he_normal"))
            chain += [keras.BatchNormalization(momentum=0.97), keras.ReLU()]
    # Channels first, as the ONNX graph flattens them.
    chain += [keras.Permute((3, 1, 2)), keras.Flatten(), keras.Dropout(DROPOUT), keras.Dense(network.CLASSES)]
    return tf.keras.Sequential(chain)


def changed(batch, changes):
    """f32 [n, 28, 28, 1], 0 to 1: each picture mirrored, sized, turned, shifted, re-exposed and sometimes holed at random."""
    count = tf.shape(batch)[0]

    def pick(low, high):
        return tf.random.uniform([count], low, high)

    wide = pick(*changes["size"])
    high = wide * pick(0.97, 1.03)
    right, down = pick(-changes["shift"], changes["shift"]), pick(-changes["shift"], changes["shift"])
    side = tf.where(pick(0, 1) < 0.5, -1.0, 1.0) if changes["mirror"] else tf.ones([count])
    angle = pick(-changes["turn"], changes["turn"])
    middle = 13.5
    xx, xy = side * tf.cos(angle) / wide, tf.sin(angle) / wide
    yx, yy = -side * tf.sin(angle) / high, tf.cos(angle) / high
    zero = tf.zeros([count])
    rows = [xx, xy, middle - (xx + xy) * middle + right, yx, yy, middle - (yx + yy) * middle + down, zero, zero]
    pictures = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(batch, tf.float32) / 255.0, transforms=tf.stack(rows, 1), output_shape=[28, 28],
        fill_value=0.0, interpolation="BILINEAR", fill_mode="CONSTANT")

    # Contrast and exposure, as photographs have them.
    gain, gamma = tf.reshape(pick(0.9, 1.08), [-1, 1, 1, 1]), tf.reshape(pick(0.88, 1.14), [-1, 1, 1, 1])
    pictures = tf.clip_by_value(tf.pow(pictures + 1e-6, gamma) * gain, 0.0, 1.0)

    # A black square over three pictures in ten.
    line = tf.range(28.0, dtype=tf.float32)[None, :]
    x, y, half = pick(0, 28)[:, None], pick(0, 28)[:, None], pick(1.5, 4.0)[:, None]
    on = tf.cast(pick(0, 1) < 0.3, tf.float32)[:, None]
    across, along = tf.cast(tf.abs(line - x) < half, tf.float32), tf.cast(tf.abs(line - y) < half, tf.float32) * on
    return pictures * (1.0 - along[:, :, None, None] * across[:, None, :, None])


class Trainer:
    """A network, its optimiser's memory and the running average of its weights."""

    def __init__(self, data_set):
        self.changes = CHANGES[data_set]
        self.model = layers(network.PLANS[data_set])
        trained = self.model.trainable_variables
        self.first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in trained]
        self.second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in trained]
        self.average = [tf.Variable(v, trainable=False) for v in self.model.weights]
        self.steps = tf.Variable(0.0, trainable=False)

    @tf.function
    def step(self, pictures, labels, rate, average):
        wanted = tf.one_hot(labels, network.CLASSES) * (1 - SMOOTHING) + SMOOTHING / network.CLASSES
        with tf.GradientTape() as tape:
            logits = self.model(changed(pictures, self.changes), training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(wanted, logits))
        trained = self.model.trainable_variables
        self.steps.assign_add(1.0)
        for value, slope, first, second in zip(trained, tape.gradient(loss, trained), self.first, self.second):
            first.assign(FIRST_MOMENT * first + (1 - FIRST_MOMENT) * slope)
            second.assign(SECOND_MOMENT * second + (1 - SECOND_MOMENT) * slope * slope)
            mean = first / (1 - tf.pow(FIRST_MOMENT, self.steps))
            spread = second / (1 - tf.pow(SECOND_MOMENT, self.steps))
            decay = WEIGHT_DECAY * value if len(value.shape) > 1 else 0.0
            value.assign_sub(rate * (mean / (tf.sqrt(spread) + 1e-7) + decay))
        for kept, value in zip(self.average, self.model.weights):
            kept.assign(average * kept + (1 - average) * value)
        return loss

    def exported(self, plan):
        """The ONNX model of the averaged weights."""
        kept = {value.path: average.numpy() for value, average in zip(self.model.weights, self.average)}
        pairs, kernel = [], None
        for layer in self.model.layers:
            if isinstance(layer, tf.keras.layers.Conv2D):
                kernel = kept[layer.kernel.path]
            elif isinstance(layer, tf.keras.layers.BatchNormalization):
                values = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
                pairs.append(network.folded(kernel, *(kept[value.path] for value in values), layer.epsilon))
            elif isinstance(layer, tf.keras.layers.Dense):
                pairs.append((kept[layer.kernel.path].T, kept[layer.bias.path]))
        return network.graph(plan, pairs)


def share_right(model, pictures, labels):
    """Share of the pictures that the ONNX model names right, through ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = pictures[:, None].astype(np.float32) / np.float32(255.0)
    answers = [session.run(["logits"], {"image": rows[at:at + 500]})[0].argmax(1) for at in range(0, len(rows), 500)]
    return float((np.concatenate(answers) == labels).mean())


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data_set", choices=sorted(network.PLANS))
    arguments.add_argument("data", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--epochs", type=int, required=True)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--held-out", type=int, default=5000, help="training pictures to compare recipes by (5000)")
    arguments.add_argument("--pictures", type=int, help="train on so many only: to try whether it runs")
    chosen = arguments.parse_args()

    tf.config.threading.set_intra_op_parallelism_threads(chosen.threads)
    tf.config.threading.set_inter_op_parallelism_threads(chosen.threads)
    tf.keras.utils.set_random_seed(chosen.seed)
    known = datasets.read(chosen.data, chosen.data_set, "train")
    kept = len(known[0]) - chosen.held_out
    pictures, labels = (part[:kept][:chosen.pictures] for part in known)
    held_out = [part[kept:] for part in known]
    plan, trainer = network.PLANS[chosen.data_set], Trainer(chosen.data_set)
    order, started, done = np.random.default_rng(chosen.seed), time.monotonic(), 0
    steps = len(pictures) // BATCH
    for epoch in range(1, chosen.epochs + 1):
        shuffled, loss = order.permutation(len(pictures)), 0.0
        for at in range(0, steps * BATCH, BATCH):
            share = done / (steps * chosen.epochs)
            fall = 0.5 * (1 + np.cos(np.pi * max(0.0, (share - WARM_UP) / (1 - WARM_UP))))
            rate = PEAK_RATE * min(1.0, share / WARM_UP + 0.02) * fall
            done += 1
            # A short average first: the random start should not linger in it.
            average = min(AVERAGE, (done + 1) / (done + 10))
            chunk = shuffled[at:at + BATCH]
            rates = tf.constant(rate, tf.float32), tf.constant(average, tf.float32)
            loss += float(trainer.step(pictures[chunk][..., None], labels[chunk], *rates))
        if epoch in (1, chosen.epochs) or epoch % 5 == 0:
            seen = f", held out {share_right(trainer.exported(plan), *held_out):.4f}" if chosen.held_out else ""
            print(f"epoch {epoch}: loss {loss / steps:.4f}{seen}, {time.monotonic() - started:.0f} s", flush=True)
    onnx.save(trainer.exported(plan), chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
