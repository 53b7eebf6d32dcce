"""Train a small network on one device or several; run by test_distribution.py, not by pytest.

Usage: train_distributed.py one|mirrored|workers|parallel WEIGHTS.npz
With `workers`, TF_CONFIG names the cluster and this process's place in it. `parallel` is
keras.distribution, on the devices that JAX has.
"""

import sys

import keras
import numpy as np

from snukeras.layers import SNU, SSNU


def compiled_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((None, 5)),
            keras.layers.Masking(),
            SNU(16, return_sequences=True, recurrent=True, trainable_decay=True),
            SSNU(8, return_sequences=True),
            keras.layers.Dense(5),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def main(mode, path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 16, 12, 5)).astype("float32")
    x[:, 9:] = 0  # masked steps
    replicas = 1
    if mode == "parallel":
        devices = keras.distribution.list_devices()
        replicas = len(devices)
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    if mode in ("one", "parallel"):
        model = compiled_model()
        before = model.get_weights()
        losses = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]
    elif mode == "mirrored":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = compiled_model()
        before = model.get_weights()
        losses = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]
    else:
        import tensorflow as tf

        # The strategy must be made before any other operation runs.
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = compiled_model()
            model.optimizer.build(model.trainable_variables)
        before = model.get_weights()
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        batches = strategy.experimental_distribute_dataset(batches)

        @tf.function
        def step(batch):
            return strategy.run(model.train_step, args=(batch,))

        losses = []
        for _ in range(3):
            model.reset_metrics()
            for batch in batches:
                step(batch)
            losses.append(float(model.get_metrics_result()["loss"]))
    if mode in ("mirrored", "workers"):
        replicas = strategy.num_replicas_in_sync
    after = model.get_weights()
    names = [v.path for v in model.weights]
    np.savez(
        path,
        losses=losses,
        replicas=replicas,
        **{f"before/{name}": value for name, value in zip(names, before, strict=True)},
        **{f"after/{name}": value for name, value in zip(names, after, strict=True)},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
