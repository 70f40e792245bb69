"""A run counts the images that it has been shown: with another batch it goes on with the next, and so do its epochs."""

import json
import pathlib

import numpy as np
import pytest

from tpu_retinamask.data.stream.sample_order import sample_numbers
from tpu_retinamask.tasks.start import Start, noted_before
from tpu_retinamask.training.checkpoints.images_seen import Seen, configs_in, images_seen
from tpu_retinamask.training.checkpoints.state import TrainState
from tpu_retinamask.training.settings import TrainSettings


@pytest.mark.parametrize(
    "settings, images, batch, step, seen, expected",
    [
        ({"epochs": 3}, 2, 2, 0, 0, 3),
        ({"epochs": 3}, 2, 4, 4, 8, 4),  # 4 epochs have been seen: nothing is left, and no step is unmade
        ({"epochs": 24}, 57, 8, 100, 800, 171),  # always of this size: as from the start
        ({"epochs": 24}, 57, 4, 100, 800, 242),  # 1368 - 800 = 568 images by 4
        ({"epochs": 24}, 57, 16, 100, 800, 136),  # 568 by 16: 35.5
        ({"epochs": 0.25}, 10, 1, 1, 1, 2),  # 2.5 rounds to 2 here as from the start, and 1.5 would have to 2
        ({"steps": 6}, 2, 4, 4, 8, 6),  # updates are updates
        ({"steps": 10, "reference_batch": 4}, 2, 8, 2, 8, 6),  # 40 - 8 = 32 images by 8
    ],
)
def test_what_is_left_is_shown_by_batches_of_today(settings, images, batch, step, seen, expected):
    found = TrainSettings(batch_size=batch, **settings).total_steps(images, batch, step=step, seen=seen)
    assert found == expected
    if seen == step * batch and step < expected:
        assert found == TrainSettings(batch_size=batch, **settings).total_steps(images, batch)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_next_batch_shows_the_next_images_whatever_its_size(replicas):
    def numbers(batch, step, count, **options):
        return list(sample_numbers(batch, step, replicas, (0, 1), **options).take(count).as_numpy_iterator())

    assert numbers(2, 0, 8) == list(range(8))
    assert numbers(4, 4, 8, start_image=8) == list(range(8, 16))  # after four steps of 2
    assert numbers(2, 5, 4, start_image=12) == list(range(12, 16))  # and a fifth of 4
    assert numbers(4, 4, 4, start_image=16) == numbers(4, 4, 4)  # always of 4
    # Two hosts share them as they always do.
    hosts = [list(sample_numbers(4, 4, 2, (host, 2), start_image=8).take(4).as_numpy_iterator()) for host in range(2)]
    assert hosts == [[8, 9, 12, 13], [10, 11, 14, 15]]


def test_batches_of_the_stream_and_of_a_transform_go_on_alike(tmp_path):
    PIL = pytest.importorskip("PIL.Image")
    from tpu_retinamask.data.annotated_image import ListedImage
    from tpu_retinamask.data.annotations.scan import scan_images
    from tpu_retinamask.data.stream.host_batches import HostBatches
    from tpu_retinamask.data.stream.pipeline import InputPipeline

    listed = []
    for number in range(5):
        path = str(tmp_path / f"{number}.png")
        PIL.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
        listed.append(ListedImage(image=path, name=path, line=number + 1, instances=()))
    images = scan_images(listed).images
    pipeline = InputPipeline(image_size=(16, 16), augmentation=None, max_instances=2, mask_size=4)

    def ids(batches, count):
        found = [batch.image_id.numpy() for batch, _ in zip(batches, range(count))]
        return np.concatenate(found).tolist()

    whole = ids(pipeline.train_dataset(images, 1), 20)
    first = ids(pipeline.train_dataset(images, 2), 4)
    other = ids(pipeline.train_dataset(images, 4, 4, start_image=8), 3)
    assert first + other == whole and sorted(whole[5:10]) == [0, 1, 2, 3, 4]
    held = HostBatches(pipeline, images, lambda **sample: sample, 4, start_step=4, start_image=8)
    assert ids(iter(held), 3) == other


def test_a_checkpoint_notes_them_and_a_run_reads_them_before_its_state(tmp_path, small_model, built_optimizer):
    model = small_model()
    optimizer = built_optimizer(model)
    state = TrainState(str(tmp_path), model, optimizer)
    assert noted_before(str(tmp_path), Start()) == (0, {})
    state.count_images(Seen(4, 8), 4)
    optimizer.iterations.assign(6)
    for path in (state.save(), state.save_best(0.5)):
        manifest = json.loads(pathlib.Path(path + ".manifest.json").read_text())
        assert manifest["values"]["images"] == 16  # 8, and two steps of 4
    step, values = noted_before(str(tmp_path), Start())
    assert images_seen(step, values, 32) == Seen(6, 16)
    other = noted_before(str(tmp_path / "new"), Start(weights=str(tmp_path), keep_optimizer=True))
    assert other == (step, values)
    assert noted_before(str(tmp_path / "new"), Start(weights=str(tmp_path))) == (0, {})


def test_a_checkpoint_of_before_is_told_by_what_its_run_wrote_down(tmp_path):
    configs = configs_in(str(tmp_path), ["config.gin", "operative_config.gin"])
    assert images_seen(6, {}, 8, configs) == Seen(6, 48, known=False)
    assert images_seen(0, {}, 8, configs) == Seen(0, 0)
    (tmp_path / "config.gin").write_text("train.batch_size = 4\n")
    assert images_seen(6, {}, 8, configs) == Seen(6, 24)
    (tmp_path / "operative_config.gin").write_text("train.batch_size = 2\ntrain.images_per_replica = None\n")
    assert images_seen(6, {}, 8, configs) == Seen(6, 12)
    (tmp_path / "operative_config.gin").write_text("train.batch_size = 8\ntrain.images_per_replica = 3\n")
    (tmp_path / "config.gin").write_text("train.images_per_replica = 3\n")
    assert images_seen(6, {}, 8, configs) == Seen(6, 48, known=False)  # of how many replicas, nobody knows
